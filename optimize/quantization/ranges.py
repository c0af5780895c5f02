"""Ranges from histograms: which real interval the integers of an activation stand for.

Every method gives an interval inside what was seen; beyond it values are clipped, inside it they are rounded, and the
methods differ in how they trade the one against the other. For a symmetric target the interval is ``(-t, t)``.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from ..samples import Array
from .histogram import Histogram

Method = Literal["minmax", "percentile", "entropy", "mse"]
Range = tuple[float, float]
_LEVELS = 256  # integers of eight bits
_BEYOND = 1e15  # a sentinel, whatever else the tensor holds
_MASK = 9.9e3  # the least that is in use to stand for minus infinity is -1e4
_SENTINEL, _FEW, _APART, _NOTICED = 100.0, 4, 64, 0.01  # of a tensor in two clusters, see `too_wide`
_SHARES = np.linspace(1.0, 0.02, 50)  # how far a side is drawn in, as a share of what was seen


def range_of(histogram: Histogram, method: Method, *, symmetric: bool, percentile: float = 99.99) -> Range:
    """The interval of one tensor; `percentile` is the share in percent of values that the method of that name keeps."""
    if not histogram.total or histogram.low == histogram.high:
        return _minmax(histogram, symmetric)
    if method == "minmax":
        return _minmax(histogram, symmetric)
    if method == "percentile":
        return _percentile(histogram, symmetric, percentile)
    return _mse(histogram, symmetric) if method == "mse" else _entropy(histogram, symmetric)


def squared_error(histogram: Histogram, interval: Range, *, symmetric: bool, levels: int = _LEVELS) -> float:
    """Mean squared error of rounding and clipping the bins' centres to `levels` integers over the interval.

    Zero is always represented exactly, as the runtime's kernels demand.
    """
    low, high = min(interval[0], 0.0), max(interval[1], 0.0)
    if symmetric:
        bound, reach = max(-low, high), levels // 2 - 1
        scale, lowest, highest = bound / reach, -reach, reach
        zero = 0.0
    else:
        scale, lowest, highest = (high - low) / (levels - 1), 0, levels - 1
        zero = float(np.rint(-low / scale)) if scale else 0.0
    values = histogram.centres
    if not scale:
        return float(np.average(values**2, weights=histogram.counts))
    integers = np.clip(np.rint(values / scale) + zero, lowest, highest)
    return float(np.average((values - (integers - zero) * scale) ** 2, weights=histogram.counts))


def too_wide(histogram: Histogram, interval: Range, *, symmetric: bool) -> str:
    """Return why no 8-bit scale holds these values; empty where one does.

    A mask written as a very low number beside scores leaves the scores a few of 256 steps; so does a feature in
    millions beside one of ones. What is not finite has no integer at all.
    """
    if histogram.not_finite:
        return f"{histogram.not_finite} of its values are not finite"
    bound = max(abs(end) for end in interval)
    if bound > _BEYOND:
        return f"it reaches {bound:.3g}"
    step = bound / (_LEVELS // 2 - 1) if symmetric else (max(interval[1], 0.0) - min(interval[0], 0.0)) / (_LEVELS - 1)
    if bound < _SENTINEL or not step:
        return ""
    sizes, counts = np.abs(histogram.centres), histogram.counts
    near, far = sizes <= _FEW * step, sizes >= _APART * step
    if counts[~near & ~far].any() or not counts[far].any():
        return ""
    if bound < _MASK and counts[far].sum() < _NOTICED * histogram.total:
        return ""  # a few outliers, which ranges, smoothing and mixed precision are for
    lost = int(counts[near].sum()) - histogram.zeros
    if lost < _NOTICED * histogram.total:
        return ""
    return f"it reaches {bound:.3g} while {lost / histogram.total:.0%} of its values lie within {_FEW} steps of zero"


def _minmax(histogram: Histogram, symmetric: bool) -> Range:
    bound = max(abs(histogram.low), abs(histogram.high))
    return (-bound, bound) if symmetric else (histogram.low, histogram.high)


def _percentile(histogram: Histogram, symmetric: bool, percentile: float) -> Range:
    """Leave the rest of the values outside: half of it on each side, or by magnitude where the range is symmetric."""
    low, high = _minmax(histogram, symmetric)
    rest = 1.0 - percentile / 100.0
    if symmetric:
        bound = min(high, _quantile(histogram.magnitudes(), 0, histogram.width, 1.0 - rest))
        return -bound, bound
    counts, first, width = histogram.counts, histogram.first, histogram.width
    lower = _quantile(counts, first, width, rest / 2) if rest else low
    upper = _quantile(counts, first, width, 1.0 - rest / 2) if rest else high
    return min(max(lower, low), high), max(min(upper, high), low)


def _quantile(counts: Array, first: int, width: float, share: float) -> float:
    """The value below which that share of the counts lies, straight inside a bin."""
    if share >= 1.0:
        return float("inf")
    reached = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    return float(np.interp(share, reached, first + np.arange(len(counts) + 1)) * width)


def _mse(histogram: Histogram, symmetric: bool) -> Range:
    """Draw in one side, then the other, twice, each time to the least squared error; it starts from min-max."""
    best = _minmax(histogram, symmetric)

    def better(candidates: Iterable[Range], error: Callable[[Range], float]) -> Range:
        return min([best, *candidates], key=error)

    def error(interval: Range) -> float:
        return squared_error(histogram, interval, symmetric=symmetric)

    low, high = best
    if symmetric:
        return better(((low * share, high * share) for share in _SHARES), error)
    for _ in range(2):
        if high > 0:
            best = better(((best[0], high * share) for share in _SHARES if high * share > best[0]), error)
        if low < 0:
            best = better(((low * share, best[1]) for share in _SHARES if low * share < best[1]), error)
    return best


def _entropy(histogram: Histogram, symmetric: bool) -> Range:
    """The threshold on |value| whose integers tell least from the histogram (Kullback-Leibler, Migacz 2017).

    Zeros are exact under every threshold, so the bin that holds them counts as its neighbour does.
    """
    low, high = _minmax(histogram, symmetric)
    counts = histogram.magnitudes()
    levels = _LEVELS // 2
    if len(counts) <= levels:
        return low, high
    counts[0] = min(counts[0], counts[1])
    stops = [*range(levels, len(counts), max(1, len(counts) // 256)), len(counts)]
    divergences = [_divergence(counts, stop, levels) for stop in stops]
    bound = stops[int(np.argmin(divergences))] * histogram.width
    return max(low, -bound), min(high, bound)


def _divergence(counts: Array, stop: int, levels: int) -> float:
    """KL divergence, in nats, of clipped counts [bins] from the same in `levels` numbers; infinite where undefined."""
    kept = counts[:stop]
    expected = kept.copy()
    expected[-1] += counts[stop:].sum()
    edges = np.unique(np.linspace(0, stop, levels + 1).astype(np.int64)[:-1])
    occupied = np.add.reduceat((kept > 0).astype(np.float64), edges)
    level = np.divide(np.add.reduceat(kept, edges), occupied, out=np.zeros(len(edges)), where=occupied > 0)
    told = np.repeat(level, np.diff(np.append(edges, stop))) * (kept > 0)
    if not expected.sum() or not told.sum():
        return float("inf")
    expected, told = expected / expected.sum(), told / told.sum()
    some = expected > 0
    if (told[some] == 0).any():
        told = np.where(told == 0, 1e-12, told)
    return float((expected[some] * np.log(expected[some] / told[some])).sum())
