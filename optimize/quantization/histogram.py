"""A histogram of bounded size over a stream of any length, whose result does not depend on the order of the stream.

Bins are aligned at zero and 2**exponent wide; when the values no longer fit into `BINS` of them, neighbours are merged
and the width doubles. Since halving an index and rounding down is exact, a value lands in the same bin whether it came
before or after the widening: the histogram is a function of the set of values alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..samples import Array

BINS = 2048
_FINEST = -126  # below this, float32 has no normal numbers
_CHUNK = 1 << 15  # values at a time, so that temporaries stay in the processor's cache
_DIGITS = 24  # bins finer than float32's own spacing would only make large indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts of values: bin i of `counts` [n] holds ``[(first + i) * width, (first + i + 1) * width)``.

    `low` and `high` are the exact smallest and largest value, `zeros` of the values are exactly zero. Values that are
    not finite are left out and counted in `not_finite`.
    """

    exponent: int
    first: int
    counts: Array
    low: float
    high: float
    not_finite: int = 0
    zeros: int = 0

    @property
    def width(self) -> float:
        """The width of one bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def centres(self) -> Array:
        """The middle of each bin, [n], held inside `low` and `high`."""
        middles = (self.first + np.arange(len(self.counts)) + 0.5) * self.width
        return np.clip(middles, self.low, self.high)

    @property
    def total(self) -> int:
        """Number of finite values that were counted."""
        return int(self.counts.sum())

    @classmethod
    def of(cls, values: Array) -> "Histogram":
        """The histogram of an array of any shape; an array without finite values gives an empty one at zero."""
        flat = np.asarray(values).ravel()
        lost = 0
        if not flat.size or not (np.isfinite(flat.min()) and np.isfinite(flat.max())):
            finite = flat[np.isfinite(flat)]
            lost, flat = int(flat.size - finite.size), finite
        if not flat.size:
            return cls(exponent=_FINEST, first=0, counts=np.zeros(1, np.int64), low=0.0, high=0.0, not_finite=lost)
        low, high = float(flat.min()), float(flat.max())
        exponent = _exponent(low, high)
        first, last = (math.floor(math.ldexp(end, -exponent)) for end in (low, high))
        counts = np.zeros(last - first + 1, np.int64)
        inverse = math.ldexp(1.0, -exponent)
        for start in range(0, flat.size, _CHUNK):
            indices = np.multiply(flat[start : start + _CHUNK], inverse, dtype=np.float64)
            np.floor(indices, out=indices)
            indices -= first
            counts += np.bincount(indices.astype(np.int64), minlength=len(counts))
        zeros = int(flat.size - np.count_nonzero(flat))
        return cls(exponent=exponent, first=first, counts=counts, low=low, high=high, not_finite=lost, zeros=zeros)

    def merge(self, other: "Histogram") -> "Histogram":
        """The histogram of both streams together; neither the order nor the grouping of merges matters."""
        lost = self.not_finite + other.not_finite
        if not self.total or not other.total:
            some = self if self.total else other
            return Histogram(
                exponent=some.exponent,
                first=some.first,
                counts=some.counts,
                low=some.low,
                high=some.high,
                not_finite=lost,
                zeros=some.zeros,
            )
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent = _exponent(low, high)
        parts = [part._coarser(exponent) for part in (self, other)]
        first = min(start for start, _ in parts)
        counts = np.zeros(max(start + len(part) for start, part in parts) - first, np.int64)
        for start, part in parts:
            counts[start - first : start - first + len(part)] += part
        zeros = self.zeros + other.zeros
        return Histogram(
            exponent=exponent, first=first, counts=counts, low=low, high=high, not_finite=lost, zeros=zeros
        )

    def magnitudes(self) -> Array:
        """Return counts of |value|, [bins], in bins of the same width from zero upwards."""
        indices = self.first + np.arange(len(self.counts))
        folded = np.where(indices < 0, -1 - indices, indices)
        return np.bincount(folded, weights=self.counts)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Histogram":
        """Read what `as_json` gives."""
        return cls(**{**value, "counts": np.array(value["counts"], np.int64)})

    def _coarser(self, exponent: int) -> tuple[int, Array]:
        """First index and counts [bins] on a grid of wider bins, of width ``2 ** exponent``."""
        shift = exponent - self.exponent
        indices = (self.first + np.arange(len(self.counts), dtype=np.int64)) >> min(shift, 63)
        return int(indices[0]), np.bincount(indices - indices[0], weights=self.counts).astype(np.int64)


def _exponent(low: float, high: float) -> int:
    """The finest grid on which the range takes at most `BINS` bins; only ever grows as the range grows."""
    largest = max(abs(low), abs(high))
    exponent = max(_FINEST, math.frexp(largest)[1] - _DIGITS) if largest else _FINEST
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= BINS:
        exponent += 1
    return exponent
