"""Latency search: the share to prune at which the measured latency is nearest to a target.

Pure: it is given a way to measure and the shares worth trying. Latency falls with the share in steps (widths are
multiples), and every reading is noisy; so it bisects over the steps and believes the nearest reading, not the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..record import fields_json

TOLERANCE = 0.05
"""Relative distance from the target that counts as met. Chosen: widths move in steps, and one step of 8
channels in 160 is 5 %.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Latency at one share of what is pruned, relative to the parent's, with its 95 % interval."""

    ratio: float
    share: float
    low: float
    high: float

    def misses(self, target: float) -> float:
        """Return the distance of the reading from the target, relative to the target."""
        return abs(self.share / target - 1)

    def misses_at_most(self, target: float) -> float:
        """Return the distance of the interval's farther end from the target, relative to the target."""
        return max(abs(self.low / target - 1), abs(self.high / target - 1))

    def to_json(self) -> dict[str, Any]:
        """JSON values, rounded to what a timing can tell."""
        return {key: round(value, 4) for key, value in fields_json(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The nearest reading, and every reading taken on the way, in order."""

    best: Reading
    tries: tuple[Reading, ...]


def search(measure: Callable[[float], Reading], rungs: Sequence[float], target: float) -> Found:
    """Bisect over `rungs` (shares, ascending, at least one) for the latency nearest to `target`.

    Both neighbours of the crossing are measured unless it lies beyond an end. If readings are within e of the truth,
    the found one is truly within 3 e of the best reachable: a wrong turn is only taken where the truth is within e.
    """
    tries: list[Reading] = []

    def read(index: int) -> Reading:
        tries.append(measure(rungs[index]))
        return tries[-1]

    low, high = -1, len(rungs)  # rungs[low] is slower than the target, rungs[high] is not
    while high - low > 1:
        middle = (low + high) // 2
        if read(middle).share > target:
            low = middle
        else:
            high = middle
    return Found(best=min(tries, key=lambda reading: reading.misses(target)), tries=tuple(tries))
