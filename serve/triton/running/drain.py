"""Emptying a server before it is stopped: no new requests, the old ones answered, every model unloaded.

Ends no process. A server that is told to stop closes its doors at once, with no state in which it drains: so a caller
that sends it requests must be led away first (`before`), and what waits in its queues is answered here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from urllib.request import urlopen

from seatrial.optimize.errors import SeatrialError

from ...processes import wait
from ..control import Control
from ..server import Server

_PENDING = "nv_inference_pending_request_count{"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Result of draining: `empty` if no request waited and every model was unloaded; `seconds` taken."""

    empty: bool
    pending: int
    seconds: float


def drain(server: Server, *, before: Callable[[], None] = lambda: None, timeout: float = 30.0) -> Drained:
    """Lead traffic away, wait until no request waits, unload every model; at most `timeout` seconds.

    Never raises for what the server does: one that is broken is stopped all the same. What `before` raises is raised.
    """
    began = monotonic()
    before()
    idle = wait(lambda: pending(server) in (0, None), timeout)
    gone = False
    try:
        with Control.to(server, timeout=5.0) as control:
            gone = wait(lambda: _dismissed(control), max(timeout - (monotonic() - began), 1.0))
    except SeatrialError:
        gone = False
    return Drained(empty=idle and gone, pending=pending(server) or 0, seconds=monotonic() - began)


def _dismissed(control: Control) -> bool:
    """Unload every version, including ones loaded meanwhile; return whether all are gone."""
    states = control.index()
    for name in sorted({each.name for each in states if each.state == "READY"}):
        control.dismiss(name)
    return all(each.state in ("", "UNAVAILABLE") for each in states)


def pending(server: Server) -> int | None:
    """Requests that wait in the server's queues, of all models; None where it does not say."""
    try:
        with urlopen(server.metrics_url, timeout=5.0) as reply:
            text = reply.read().decode()
    except OSError:
        return None
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(_PENDING))
