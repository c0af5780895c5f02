"""Windows: what is kept of an interval of traffic, a count of rows and sums over them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .quantities import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Sums of every quantity over `rows` rows from `start`, for `seconds`; `sums` has shape [quantities].

    `start` counts from the Unix epoch. `faults` says what was wrong with the columns themselves: one that was absent or
    of another type, whose rows count as missing.
    """

    start: float
    seconds: float
    rows: int
    sums: Floats
    faults: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """When it ends, in seconds of the Unix epoch."""
        return self.start + self.seconds


def merged(parts: Sequence[Window]) -> Window:
    """Return one window of several: of nodes that served side by side, or of intervals that follow each other.

    Raises:
        ValueError: no part.
    """
    if not parts:
        raise ValueError("no windows to merge")
    start = min(each.start for each in parts)
    return Window(
        start=start,
        seconds=max(each.end for each in parts) - start,
        rows=sum(each.rows for each in parts),
        sums=np.sum([each.sums for each in parts], axis=0),
        faults=tuple(dict.fromkeys(fault for each in parts for fault in each.faults)),
    )


def of_enough_rows(windows: Iterable[Window], rows: int) -> list[Window]:
    """Merge windows, in order of time, until each has so many rows; what is left over at the end is held back."""
    found, waiting = list[Window](), list[Window]()
    for each in sorted(windows, key=lambda window: window.start):
        waiting.append(each)
        if sum(part.rows for part in waiting) >= rows:
            found.append(merged(waiting))
            waiting = []
    return found
