"""A clock for rollouts that goes on when the machine's clock is set: Unix seconds at the start, a steady clock since.

Pure but for reading clocks. Times in records that others wrote by the machine's clock are brought to this one by
`correction`, so a clock that is set back or forward drops nothing and makes nothing wait.
"""

import time
from collections.abc import Callable

SAME = 1.0  # seconds of difference that are the clocks' own drift


class SteadyClock:
    """Call it for the time, Unix seconds. It begins at the machine's time, or at `after` where that is later.

    `after` is the last time that an earlier process wrote down: what comes now is later, whatever the machine says.
    """

    def __init__(
        self, *, after: float = 0.0, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._steady = wall, steady
        self._begun, self._at = steady(), max(wall(), after)

    def __call__(self) -> float:
        """Return the time."""
        return self._at + self._steady() - self._begun

    def correction(self) -> float:
        """Return what to add to a time that the machine's clock gave just now; 0 while the two agree."""
        difference = self() - self._wall()
        return difference if abs(difference) > SAME else 0.0
