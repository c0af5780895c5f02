"""Surrogate metrics: whether an offline metric was shown to follow a business figure over past releases.

Correlation of Pearson with the interval of Fisher's transformation (Fisher 1921): atanh(r) is about normal with
variance 1 / (n - 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from statistics import NormalDist, fmean
from typing import Literal

LEAST = 5  # releases: below, the interval of Fisher's transformation is as wide as the range; chosen
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One release: the offline metric that was promised, and the figure that was realised."""

    release: str
    offline: float
    realised: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Whether the metric follows the figure, the correlation with its interval, and that in words."""

    follows: bool
    releases: int
    reason: str
    correlation: float | None = None
    low: float | None = None
    high: float | None = None


def shown(pairs: Sequence[Pair], *, follows: Literal[1, -1]) -> Shown:
    """Return whether the correlation over past releases has that sign, with its 95 % interval.

    Fewer than five releases, or a metric or figure that never changed, show nothing.
    """
    n = len(pairs)
    if n < LEAST:
        return Shown(follows=False, releases=n, reason=f"{n} releases with a realised figure, {LEAST} are needed")
    one, other = [each.offline for each in pairs], [each.realised for each in pairs]
    spread_one, spread_other = _spread(one), _spread(other)
    if not spread_one or not spread_other:
        return Shown(follows=False, releases=n, reason="the metric or the figure was the same in every release")
    mean_one, mean_other = fmean(one), fmean(other)
    joint = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    r = max(-1.0, min(1.0, joint / (spread_one * spread_other)))
    inner = max(-1 + 1e-12, min(1 - 1e-12, r))
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) / sqrt(n - 3)
    low, high = tanh(atanh(inner) - half), tanh(atanh(inner) + half)
    said = f"correlation {r:+.2f} [{low:+.2f}, {high:+.2f}] over {n} releases"
    return Shown(
        follows=(low if follows > 0 else -high) > 0, releases=n, reason=said, correlation=r, low=low, high=high
    )


def _spread(values: Sequence[float]) -> float:
    """Return the root of the sum of squared distances from the mean; 0 where that is rounding alone."""
    mean = fmean(values)
    found = sqrt(sum((value - mean) ** 2 for value in values))
    return found if found > 1e-12 * (abs(mean) + 1e-300) else 0.0
