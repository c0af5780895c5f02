"""Power: the smallest change that the detector finds within so many windows, so that silence can be read.

A change of constant size is followed along its expected path, without noise: half of all changes of that size are found
sooner, half later. Bisection over the size, from the baseline alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .baseline import Baseline
from .detect import BETS, RATIOS, as_normal, bet
from .quantities import Floats

_LARGEST = 1e6  # standard deviations
_HALVINGS = 40
_STEPS = 256  # windows that are followed one by one: beyond them a statistic moves one way


def smallest_changes(baseline: Baseline, windows: Sequence[int]) -> Mapping[int, Floats]:
    """Return, for each number of windows, the smallest change of each quantity that is found by then.

    In the quantity's own unit, shape [quantities]; infinite where nothing is found, or the quantity is not judged.
    """
    return {count: _smallest(baseline, count) for count in windows}


def _smallest(baseline: Baseline, windows: int) -> Floats:
    """Bisect the size for all quantities at once; `spread` is the unit of the search."""
    watched = baseline.weight > 0
    low, high = np.zeros(len(baseline.quantities)), np.full(len(baseline.quantities), _LARGEST)
    found_at_all = _found(baseline, high, windows)
    for _ in range(_HALVINGS):
        middle = np.sqrt(np.maximum(low, 1e-6) * high)
        found = _found(baseline, middle, windows)
        low, high = np.where(found, low, middle), np.where(found, middle, high)
    change: Floats = np.where(watched & found_at_all, high * baseline.spread, np.inf)
    share_left = np.where(baseline.rare, 1.0, np.inf)
    return np.where(change > share_left, np.inf, change)


def _found(baseline: Baseline, size: Floats, windows: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which quantities alarm by themselves within so many windows, at changes of `size` spreads."""
    statistic, passed = np.zeros((len(BETS), len(size))), np.zeros(len(size), np.bool_)
    first = as_normal(size, baseline.tails)
    later = as_normal(size * (1 - baseline.phi), baseline.tails)
    allowed = as_normal((baseline.tolerance + baseline.unsure) * (1 - baseline.phi) / baseline.spread, baseline.tails)
    for window in range(min(windows, _STEPS)):
        ratio = bet((later if window else first) - allowed)
        if baseline.rare.any():
            ratio[:, baseline.rare] = _rare(baseline, size)
        statistic = np.minimum((statistic + 1) * ratio, 1e30)
        passed |= baseline.weight * 0.5 * statistic.mean(axis=0) >= baseline.threshold
    if windows > _STEPS:
        statistic = followed(statistic, ratio, windows - _STEPS)
        passed |= baseline.weight * 0.5 * statistic.mean(axis=0) >= baseline.threshold
    return passed


def followed(statistic: Floats, ratio: Floats, windows: int) -> Floats:
    """Return the statistic after more windows of one ratio each: the sum of the geometric series, at most 1e30.

    (s + 1) r, repeated n times, is r^n s + r (r^n - 1) / (r - 1).
    """
    power = np.exp(np.clip(windows * np.log(ratio), -690.0, 69.5))
    apart = np.abs(ratio - 1) > 1e-9
    series = np.where(apart, ratio * (power - 1) / np.where(apart, ratio - 1, 1.0), windows)
    found: Floats = np.minimum(power * statistic + series, 1e30)
    return found


def _rare(baseline: Baseline, size: Floats) -> Floats:
    """Return the likelihood ratios of rare counts whose share has grown by `size` spreads, shape [bets, rare]."""
    at = baseline.rare
    usual = np.minimum(baseline.ceiling[at] + baseline.tolerance[at], 0.3)
    share = np.minimum(usual - baseline.tolerance[at] + size[at] * baseline.spread[at], 1.0)
    higher = np.minimum(RATIOS[:, None] * usual, 0.9)
    rows = baseline.rows / baseline.clumping[at]
    ratio = rows * (share * np.log(higher / usual) + (1 - share) * (np.log1p(-higher) - np.log1p(-usual)))
    found: Floats = np.exp(np.clip(ratio, -60, 60))
    return found
