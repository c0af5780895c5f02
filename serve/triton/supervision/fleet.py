"""The fleet of one Triton: the journaled switch and the probe behind the two methods that a rollout knows.

Implements `serve.fleet.Fleet`. The server is asked for anew each time, since a supervisor may have started it
again; how often it did so comes from the supervisor's own file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from seatrial.optimize.errors import MissingError

from ...errors import ModelLoadError, ServerError
from ...fleet import Health
from ..control import Control
from ..repository.vouching import REFUSALS
from ..running.stubs import memory
from ..server import Server
from .healing import Watch
from .probe import DEADLINE_SECONDS, not_finite, probe
from .standing import standing
from .supervisor import SERVER, name_of
from .switch import switch

_GIVEN_UP: Mapping[str, str] = {"resting": "until its next attempt ", "given up": ""}  # the latter by older releases


class TritonFleet:
    """The versions of one server, which `find` names (`on_pytriton.status`).

    `deadline` is seconds for a golden request, `load` for a load: one whose process dies in it never ends by itself.
    """

    def __init__(
        self, find: Callable[[], Server | None], *, deadline: float = DEADLINE_SECONDS, load: float = 120.0
    ) -> None:
        self._find, self._deadline, self._load = find, deadline, load

    def serve(self, model: str, versions: tuple[int, ...]) -> None:
        """Serve exactly these versions, proven, on disk as on the server.

        Raises:
            ModelLoadError: a version cannot be loaded, or its files are not what was placed.
            ServerError: no server, or no answer.
        """
        server = self._server()
        try:
            with Control.to(server, timeout=self._load) as control:
                switch(control, server.repository, model, versions)
        except (*REFUSALS, MissingError) as error:
            raise ModelLoadError(error.what, where=error.where, next_step=error.next_step) from error

    def health(self, model: str, version: int) -> Health:
        """A golden request, the bytes that server and stubs hold, and how often they had to be brought back.

        A late answer of a version that answers others is no illness, and neither is a model that no request can try.
        """
        watches = standing()
        own, whole = (watches.get(name, Watch()) for name in (name_of(model, version), SERVER))
        health = Health(ok=False, restarts=own.restarts, server_restarts=whole.restarts)
        try:
            server = self._server()
        except ServerError as error:
            return replace(health, reason=error.what)
        found = probe(server.url, model, version, deadline=self._deadline)
        reason = found.reason if found.state in ("late", "broken", "refused") else ""
        if not reason and found.answer is not None and (bad := not_finite(found.answer)):
            reason = f"the answer has NaN or infinity in {', '.join(bad)}"
        for watch in (whole, own):
            if reason and watch.state in _GIVEN_UP:
                reason = f"given up by the supervisor {_GIVEN_UP[watch.state]}({watch.reason}): {reason}"
                break
        held = memory(server.pid, model, version)
        return replace(health, ok=not reason, reason=reason, memory=held, server=str(server.pid))

    def _server(self) -> Server:
        server = self._find()
        if server is None:
            raise ServerError("no server is running", next_step="start one: seatrial up")
        return server
