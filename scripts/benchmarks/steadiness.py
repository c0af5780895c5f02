"""Steadiness: whether a process holds as much at the end of a long run as at its beginning, by an honest interval.

Pure. What a process holds settles first and then moves in steps that stay (an arena, a page): a random walk, in which a
line that is fitted to levels finds a slope in any single step, while one large step (a table that grows) hides a leak
from a mean. So the beginning is left out, the rest is cut into blocks, and of the steps from block to block the median
of all pairs' means (Hodges and Lehmann) is taken, with its exact interval by the signed-rank test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCKS = 12
SETTLING = 0.25  # of the run, that is left out at its beginning
CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A slope per second and its interval; `first` and `last` are the means of the first and the last block."""

    slope: float
    low: float
    high: float
    first: float
    last: float

    @property
    def flat(self) -> bool:
        """Return whether the interval includes 0."""
        return self.low <= 0.0 <= self.high


def slope(times: Sequence[float], values: Sequence[float], *, confidence: float = CONFIDENCE) -> Slope:
    """Return the slope of what was sampled at those times (seconds, ascending), without the settling at the beginning.

    Raises:
        ValueError: fewer than two samples for each block.
    """
    at, held = np.asarray(times, float), np.asarray(values, float)
    kept = at >= at[0] + SETTLING * (at[-1] - at[0])
    at, held = at[kept], held[kept]
    if len(at) < 2 * BLOCKS:
        raise ValueError(f"{len(at)} samples are too few for {BLOCKS} blocks")
    ends = [np.array_split(each, BLOCKS) for each in (at, held)]
    levels = np.array([[part[-max(len(part) // 3, 1) :].mean() for part in each] for each in ends])
    steps, seconds = np.diff(levels[1]), float(levels[0, -1] - levels[0, 0]) / (BLOCKS - 1)
    pairs = np.sort([(steps[a] + steps[b]) / 2 for a in range(len(steps)) for b in range(a, len(steps))]) / seconds
    left = _left_out(len(steps), confidence)
    return Slope(
        slope=float(np.median(pairs)),
        low=float(pairs[left]),
        high=float(pairs[-1 - left]),
        first=float(levels[1, 0]),
        last=float(levels[1, -1]),
    )


def _left_out(count: int, confidence: float) -> int:
    """Return how many of the smallest and of the largest pairs' means lie outside the interval."""
    ways = np.array([1.0])
    for rank in range(1, count + 1):  # how many sets of ranks have each sum
        ways = np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))
    below = np.cumsum(ways) / 2.0**count
    return max(int(np.searchsorted(below, (1 - confidence) / 2, side="right")) - 1, 0)
