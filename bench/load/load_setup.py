"""Setup of a load: its processes, the loop that follows a schedule, and the web UI. Values only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .guard import AbortRules

UI_SECONDS = 300.0  # that Locust's web UI stays after the run


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSetup:
    """Setup of every load process, in an open and in a closed loop.

    `warmup` requests go first, unrecorded. `cores` pins the process. `own_target` says that a server on another machine
    is yours to load. `abort` stops the run early.
    """

    warmup: int = 16
    cores: Sequence[int] = ()
    own_target: bool = False
    abort: AbortRules | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoopSetup:
    """Setup of a loop that follows a schedule.

    At most `in_flight` requests per worker are open; arrivals beyond that are recorded as censored. Several `workers`
    report to a Locust master. After the last arrival late replies are awaited for `drain` seconds. `real_time` lets the
    workers run first where the machine allows it, which keeps neighbours on the same cores out of the figures.
    """

    in_flight: int = 256
    workers: int = 1
    drain: float = 10.0
    real_time: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WebUi:
    """Locust's web UI: `announce` is called with its address, and it stays for `seconds` after the run."""

    announce: Callable[[str], None]
    seconds: float = UI_SECONDS


CLIENT, OPEN_LOOP = ClientSetup(), OpenLoopSetup()
