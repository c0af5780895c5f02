"""Steadiness: whether a process holds as much at the end of a long run as at its beginning, by an honest interval.

Pure. What a process holds is autocorrelated and settles first, so neither its samples count singly nor those of the
beginning at all: the rest is cut into blocks, and the slope over the blocks' means has a t interval by their scatter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

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
        """Whether the interval includes 0."""
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
    means = np.array([[part.mean() for part in np.array_split(each, BLOCKS)] for each in (at, held)])
    first, last = float(means[1, 0]), float(means[1, -1])
    if np.ptp(means[1]) == 0:  # no scatter to fit
        return Slope(slope=0.0, low=0.0, high=0.0, first=first, last=last)
    fitted = stats.linregress(means[0], means[1])
    reach = float(stats.t.ppf((1 + confidence) / 2, BLOCKS - 2)) * float(fitted.stderr)
    found = float(fitted.slope)
    return Slope(slope=found, low=found - reach, high=found + reach, first=first, last=last)
