"""The clock of a rehearsal with processes: plant the fault, watch, and take back what was not overcome.

Pure apart from the clock that it is given. Everything that it does to a machine is the fault's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import RehearsalError

_PERIOD = 0.1  # seconds between two looks
_IN_A_ROW = 5  # looks at which it must work before it counts as overcome
_SETTLING = 20.0  # seconds in which everything must stand as before


class Fault(Protocol):
    """A fault that can be planted in what runs."""

    def state(self) -> str:
        """Return a digest of how everything stands."""

    def works(self) -> bool:
        """Return whether the part in question works now."""

    def plant(self) -> None:
        """Do the damage."""

    def noticed(self) -> str:
        """Return the first word of who noticed since then; empty as long as there is none."""

    def undo(self) -> None:
        """Take back what is left of the damage; nothing where it was overcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds until it was noticed and overcome; None where that did not come."""

    detected: float | None
    recovered: float | None
    evidence: str
    same: bool
    undone: bool


def timed(
    fault: Fault,
    *,
    longest: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> Timed:
    """Plant a fault and watch for at most `longest` seconds; whatever happens, it is taken back.

    Raises:
        RehearsalError: the part does not work before anything was done to it.
    """
    if not fault.works():
        raise RehearsalError(
            "it does not work already, before anything was done to it", next_step="bring it up first, then rehearse"
        )
    before = fault.state()
    detected: float | None = None
    recovered: float | None = None
    evidence, broke, row, first = "", False, 0, 0.0
    begun = clock()
    try:
        fault.plant()
        while (now := clock() - begun) < longest and recovered is None:
            if detected is None and (evidence := fault.noticed()):
                detected = clock() - begun
            if not fault.works():
                broke, row = True, 0
            elif broke or detected is not None:
                first = clock() - begun if not row else first
                row += 1
                recovered = first if row == _IN_A_ROW else None
            progress(now / longest, "noticed" if detected is not None else "waiting for someone to notice")
            sleep(_PERIOD)
        if detected is None and (evidence := fault.noticed()):
            detected = clock() - begun
    finally:
        fault.undo()
    same, until = False, clock() + _SETTLING
    while not (same := fault.state() == before and fault.works()) and clock() < until:
        sleep(_PERIOD)
    return Timed(detected=detected, recovered=recovered, evidence=evidence, same=same, undone=recovered is None)
