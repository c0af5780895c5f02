"""Faults of what runs: a version's processes, the server, the edge's proxy. Ends only what belongs to this home."""

import signal
from collections.abc import Sequence

from seatrial.optimize.artifact import canonical, digest_bytes, digest_file
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.plain import parse_json, read_plain

from ..errors import RehearsalError
from ..processes import alive, send
from ..traffic.envoy import on_envoy
from ..traffic.envoy.proxy import Proxy, read, running
from ..traffic.envoy.router import EnvoyRouter
from ..triton.control import Control
from ..triton.running import on_pytriton
from ..triton.running.stubs import Stub, stubs
from ..triton.server import Server
from ..triton.supervision.probe import probe
from ..triton.supervision.standing import supervision
from ..triton.supervision.supervisor import SERVER, name_of

_READ = 16 << 20
_DEADLINE = 1.0  # seconds for a golden request


class _Served:
    """Base of the server's faults: a version that is asked golden requests, and the supervisor's log.

    `subject` is the name under which the log speaks of what fails; events of others are no word of this fault.
    """

    def __init__(self, server: Server, model: str, version: int, subject: str) -> None:
        self._server, self._model, self._version, self._subject = server, model, version, subject
        self._log = supervision() / "events.jsonl"
        self._begun = self._events()

    def state(self) -> str:
        """Return a digest of the versions that are served, their processes' number, and the repository's choice."""
        with Control.to(self._now) as control:
            ready = control.ready_versions(self._model)
        config = digest_file(self._server.repository / self._model / "config.pbtxt")
        count = sum((each.model, each.version) == (self._model, self._version) for each in stubs(self._now.pid))
        return digest_bytes(canonical({"ready": sorted(ready), "config": config, "processes": count}))

    def works(self) -> bool:
        """Return whether the version answers a golden request."""
        try:
            return probe(self._now.url, self._model, self._version, deadline=_DEADLINE).state in ("ok", "busy")
        except SeatrialError:
            return False

    def noticed(self) -> str:
        """Return the supervisor's first event about it since then."""
        events = self._events()
        known = len(self._begun) if events[: len(self._begun)] == self._begun else 0  # 0: the log was begun anew
        for event in events[known:]:
            return " ".join(str(event.get(key, "")) for key in ("subject", "event", "reason")).strip()
        return ""

    @property
    def _now(self) -> Server:
        return on_pytriton.wanted() or self._server

    def _events(self) -> list[dict[str, object]]:
        try:
            lines = read_plain(self._log, _READ).splitlines()
        except OSError:
            return []
        found = list[dict[str, object]]()
        for line in lines:
            try:
                event = parse_json(line)
            except ValueError:
                continue
            mine = isinstance(event, dict) and event.get("subject") == self._subject
            if mine and event["event"] not in ("watching", "stopped", "down"):
                found.append(event)
        return found


class StubsFault(_Served):
    """The processes of one version, killed or halted."""

    def __init__(self, server: Server, model: str, version: int, number: signal.Signals) -> None:
        super().__init__(server, model, version, name_of(model, version))
        self._signal = number
        self._stubs: Sequence[Stub] = [
            each for each in stubs(server.pid) if (each.model, each.version) == (model, version)
        ]
        if not self._stubs:
            raise RehearsalError(
                f"version {version} of {model} has no process of its own",
                next_step="rehearse server-killed instead: its backend runs inside the server",
            )

    def plant(self) -> None:
        """Send the signal to each."""
        for each in self._stubs:
            send(each.pid, each.started, self._signal)

    def undo(self) -> None:
        """Let those go on that are still halted."""
        for each in self._stubs:
            if alive(each.pid, each.started):
                send(each.pid, each.started, signal.SIGCONT)


class ServerFault(_Served):
    """The server, killed."""

    def __init__(self, server: Server, model: str, version: int) -> None:
        super().__init__(server, model, version, SERVER)

    def plant(self) -> None:
        """Kill it."""
        send(self._server.pid, self._server.started, signal.SIGKILL)

    def undo(self) -> None:
        """Start it again where the supervisor did not."""
        if on_pytriton.status() is None and (server := on_pytriton.wanted()) is not None:
            on_pytriton.restart(server, (self._model,))


class EdgeFault:
    """The edge's proxy, killed; that it is there again as another process is the word of who noticed."""

    def __init__(self, proxy: Proxy, model: str) -> None:
        self._proxy, self._model = proxy, model

    def state(self) -> str:
        """Return a digest of the routes in force."""
        return digest_bytes(repr(EnvoyRouter(self._now).current(self._model)).encode())

    def works(self) -> bool:
        """Return whether the proxy runs and has its routes."""
        try:
            return running(self._now) and self._now.admin.ready()
        except SeatrialError:
            return False

    def plant(self) -> None:
        """Kill it."""
        send(self._proxy.pid, self._proxy.started, signal.SIGKILL)

    def noticed(self) -> str:
        """Return who is there now, once it is another process."""
        now = self._now
        changed = (now.pid, now.started) != (self._proxy.pid, self._proxy.started)
        return f"edge watch started process {now.pid}" if changed and running(now) else ""

    def undo(self) -> None:
        """Start it again where nobody did."""
        if not running(self._now):
            on_envoy.revive(self._proxy.places.folder)

    @property
    def _now(self) -> Proxy:
        return read(self._proxy.places.folder) or self._proxy
