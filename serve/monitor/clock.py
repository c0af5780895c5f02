"""Wall-clock time for a process that runs long: a step of the clock makes it judge nothing twice and nothing early.

A step back counts at once: what was judged stays judged, and the time that comes again is passed over. A step ahead
counts once it has lasted: until then time goes on as before, since intervals that were judged too early, without their
rows, would count as silent.
"""

import time
from collections.abc import Callable

_STEP = 2.0  # seconds against the steady clock that are no slewing


def _steady() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps, and is never set


class Clock:
    """Seconds of the Unix epoch; a step ahead counts after `settle` seconds. `steps` counts steps, back and ahead."""

    def __init__(
        self, *, settle: float, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady
    ) -> None:
        self._settle, self._wall, self._steady = settle, wall, steady
        self._offset = wall() - steady()
        self._ahead: tuple[float, float] | None = None  # its offset, and when it was first seen
        self.steps = 0

    def now(self) -> float:
        """Return the time."""
        steady = self._steady()
        offset = self._wall() - steady
        step = offset - self._offset
        if step > _STEP:
            if self._ahead is None or abs(offset - self._ahead[0]) > _STEP:
                self._ahead = (offset, steady)
                self.steps += 1
            if steady - self._ahead[1] < self._settle:
                return steady + self._offset
        elif step < -_STEP:
            self.steps += 1
        self._offset, self._ahead = offset, None
        return steady + offset
