"""Measures of how one array of outputs differs from another, by the kind of output. Pure arithmetic, judges nothing.

NaN and infinities are compared by position and left out of the arithmetic, and so are finite stand-ins for an infinity
(a masked logit of -1e9): beside them every other difference would vanish.
"""

from dataclasses import dataclass
from math import inf, log10
from typing import Literal

import numpy as np

from ..samples import Array

Kind = Literal["score", "probability", "logits", "embedding", "map", "integer", "mask", "text"]

STILL = 1e-5  # relative variation below which an output counts as constant: rounding alone can cause it
STILL_SCALE = 0.1  # of its size: the reference for the error of an output that does not vary
COLUMN_ROWS = 32  # least number of rows for a column's error to be an estimate
_FAR = 5e3  # masks are larger: -1e4 is the least that is in use
_SURELY = 1e8  # masks that were added twice differ by a factor
_FAR_RATIO, _FAR_WIDTH, _FAR_ERROR = 100.0, 1e-2, 2e-2
_ROUNDING = 1e-6  # relative variation below which a column counts as constant
_LIKE_OTHERS, _DEAD, _DEAD_SHARE = 4.0, 0.1, 0.1
_TOP = 5  # as in the top-5 of ImageNet
_UNIT = 1e-3  # by which the norm of an embedding may differ from 1: fp16 rounds to 5e-4
_NOTHING = 1e-30  # added to a divisor, far below any float32 that is not denormal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """Variation of an output over samples: per element of a row ("column") and on the whole.

    `columns` are standard deviations, [c]; `steady` marks columns of which no single sample makes most of the variance;
    `whole` is their root mean square, or a tenth of the output's `size` (its own root mean square) where it does not
    vary (`still`). `far` is per column the magnitude from which a value stands for an infinity.
    """

    kind: Kind
    means: Array
    columns: Array
    steady: Array
    far: Array
    whole: float
    size: float
    still: bool
    rows: int

    @property
    def fraction(self) -> float:
        """Return how much the output varies, as a fraction of its size."""
        return self.whole / self.size if self.size else 0.0


def is_float(array: Array) -> bool:
    """Tell an array of floats, of any shape, from whole numbers, booleans and text; bfloat16 is of numpy's kind V."""
    return array.dtype.kind in "fV"


def kind_of(array: Array) -> Kind:
    """The kind of output that values [n, ...] are, by their type, shape and range."""
    if array.dtype.kind in "OSU":
        return "text"
    if array.dtype.kind == "b":
        return "mask"
    if not is_float(array):
        return "integer"
    values = array.astype(np.float64)
    finite = values[np.isfinite(values)]
    if ((finite == 0) | (finite == 1)).all() and 0 < finite.sum() < finite.size:
        return "mask"
    unit = bool(finite.size) and bool((finite >= 0).all() and (finite <= 1 + _UNIT).all())
    if array.ndim < 2 or array[0].size == 1:
        return "probability" if unit else "score"
    if array.ndim >= 4:
        return "map"
    if finite.size < values.size:
        return "logits"
    if unit and np.abs(values.sum(axis=-1) - 1).max() <= _UNIT:
        return "probability"
    if array.ndim == 2 and array.shape[1] > 2 and np.abs(np.linalg.norm(values, axis=1) - 1).max() <= _UNIT:
        return "embedding"
    return "logits"


def spread_of(array: Array) -> Spread:
    """The spread of an output over its samples, [n, ...]; of a single row, that of its values."""
    kind = kind_of(array)
    rows = len(array)
    if kind == "text" or not array.size:
        none = np.zeros(0)
        return Spread(
            kind=kind, means=none, columns=none, steady=none, far=none, whole=0.0, size=0.0, still=True, rows=rows
        )
    values = array.astype(np.float64).reshape(rows, -1)
    finite = np.isfinite(values)
    far = _far(values, finite)
    ok = finite & (np.abs(np.where(finite, values, 0.0)) < far)
    held = np.where(ok, values, 0.0)
    peak = float(np.abs(held).max(initial=0.0)) or 1.0  # squares of 1e200 would not be numbers
    counts = np.maximum(ok.sum(axis=0), 1)
    means = held.sum(axis=0) / counts
    apart = np.square(np.where(ok, held - means, 0.0) / peak)
    if rows == 1:
        columns = np.full(values.shape[1], float((held[ok] / peak).std()) if ok.sum() > 1 else 0.0) * peak
    else:
        columns = np.sqrt(apart.sum(axis=0) / np.maximum(counts - 1, 1)) * peak
    columns = np.where(columns <= _ROUNDING * np.abs(means), 0.0, columns)
    steady = apart.max(axis=0, initial=0.0) <= apart.sum(axis=0) / 4
    used = max(int(ok.sum()), 1)
    size = float(np.sqrt(np.square(held / peak).sum() / used)) * peak
    whole = float(np.sqrt((np.square(columns / peak) * ok.sum(axis=0)).sum() / used)) * peak
    still = whole <= STILL * size
    return Spread(
        kind=kind,
        means=means,
        columns=columns,
        steady=steady,
        far=far,
        whole=STILL_SCALE * size if still else whole,
        size=size,
        still=still,
        rows=rows,
    )


def _far(values: Array, finite: Array) -> Array:
    """Per column the magnitude from which a value stands for an infinity; infinite where none does.

    Such values are large and nearly equal (or huge), and stand alone: far beyond whatever else is in their column,
    measured by its width; or, in a column that holds nothing else, beyond the other columns.
    """
    none = np.full(values.shape[1], inf)
    sizes = np.abs(np.where(finite, values, 0.0))
    most = sizes.max(axis=0, initial=0.0)
    if not (most >= _FAR).any():
        return none
    cut = np.where(most >= _SURELY, most / _FAR_RATIO, most * (1 - _FAR_WIDTH))
    large = finite & (sizes >= cut) & (most >= _FAR)
    near = finite & ~large
    mixed = near.any(axis=0)
    least = np.where(large, sizes, inf).min(axis=0)
    high, low = (np.where(near, values, fill) for fill in (-inf, inf))
    width = np.where(mixed, high.max(axis=0), 0.0) - np.where(mixed, low.min(axis=0), 0.0)
    reach = np.where(near, sizes, 0.0).max(axis=0)
    one_sign = ~((large & (values > 0)).any(axis=0) & (large & (values < 0)).any(axis=0))
    beside = near.any() and least >= 10 * np.where(most < _FAR, most, reach).max()
    alone = np.where(
        mixed,
        (least >= 10 * reach) & (least - reach >= _FAR_RATIO * width),
        beside & (most - np.where(np.isfinite(least), least, 0.0) <= _ROUNDING * most),
    )
    return np.where(alone & large.any(axis=0) & one_sign, np.where(np.isfinite(least), least, 0.0) * 0.99, inf)


def beyond(values: Array) -> Array:
    """Per column of float64 values [n, c] the magnitude from which a value stands for an infinity."""
    return _far(values, np.isfinite(values))


def misplaced(expected: Array, got: Array, far: Array) -> tuple[int, Array]:
    """Count the values that are NaN, infinite or far in one array and not in the other; and where both are to be used.

    Arrays are [n, c], float64. A far value must be within 2 % of the other one.
    """
    known, other = np.isfinite(expected), np.isfinite(got)
    sizes = np.where(known, np.abs(np.where(known, expected, 0.0)), 0.0)
    beyond = known & (sizes >= far)
    ok = known & other & ~beyond
    wrong = known != other
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    wrong |= ~known & ~other & ~same
    if beyond.any():
        off = np.abs(np.where(beyond & other, got - np.where(beyond, expected, 0.0), 0.0)) > _FAR_ERROR * sizes
        wrong |= beyond & off
    return int(wrong.sum()), ok


def relative_error(expected: Array, got: Array) -> float:
    """Return max |difference| / max |reference| of arrays [n, ...]; infinite where values are not finite in one
    alone.
    """
    if not expected.size:
        return 0.0
    one, other = (array.astype(np.float64).reshape(len(array) if array.ndim else 1, -1) for array in (expected, got))
    wrong, ok = misplaced(one, other, _far(one, np.isfinite(one)))
    if wrong:
        return inf
    worst = float(np.abs(np.where(ok, one, 0.0) - np.where(ok, other, 0.0)).max(initial=0.0))
    peak = float(np.abs(np.where(ok, one, 0.0)).max(initial=0.0))
    return worst / peak if peak else (inf if worst > _NOTHING else 0.0)


def distances(expected: Array, got: Array) -> Array:
    """Return the greatest absolute difference per row of arrays [n, ...], [n]; infinite where only one is not
    finite.
    """
    one, other = (array.astype(np.float64).reshape(len(array), -1) for array in (expected, got))
    known = np.isfinite(one) & np.isfinite(other)
    same = known | (one == other) | (np.isnan(one) & np.isnan(other))
    apart = np.abs(np.where(known, one, 0.0) - np.where(known, other, 0.0))
    return np.asarray(np.where(same, apart, inf).max(axis=1, initial=0.0))


def spread_error(difference: Array, ok: Array, spread: Spread) -> float:
    """Return the root mean square of `difference` [n, c] over the spread; infinite where a zero output differs."""
    peak = float(np.abs(difference).max(initial=0.0))
    if not peak:
        return 0.0
    error = float(np.sqrt(np.square(difference / peak).sum() / ok.sum())) * peak
    return error / spread.whole if spread.whole else inf


def column_error(difference: Array, varied: Array, ok: Array, spread: Spread) -> tuple[float, int]:
    """Return the greatest error of a column of `difference` [n, c] over that column's own spread, and its index.

    `varied` is the candidate's standard deviation per column, [c]; `ok` [n, c] marks the values to use. A column that
    hardly varies, beside others that do, is held against half of the whole spread as long as its error is like the
    others': noise of one size is no fault of that column. That is not so where more than a tenth of the columns stopped
    varying at all.
    """
    counts = np.maximum(ok.sum(axis=0), 1)
    peak = float(np.abs(difference).max(initial=0.0))
    if not peak:
        return 0.0, 0
    errors = np.sqrt(np.square(difference / peak).sum(axis=0) / counts) * peak
    varies = spread.columns > 0
    typical = float(np.median(errors[varies])) if varies.any() else 0.0
    dead = varies & (varied < _DEAD * spread.columns) & (errors > _DEAD * spread.columns)
    lost = dead & (dead.sum() > _DEAD_SHARE * max(varies.sum(), 1))
    classes = spread.kind == "probability"
    excused = ~lost & ((errors <= _LIKE_OTHERS * typical) | ~spread.steady | classes)
    scale = np.where(excused | ~varies, np.maximum(spread.columns, spread.whole / 2), spread.columns)
    found = np.divide(errors, scale, out=np.where(errors > 0, inf, 0.0), where=scale > 0)
    at = int(found.argmax())
    return float(found[at]), at


def classes_of(array: Array, kind: Kind) -> Array | None:
    """The decision of each row of classes, [m]; None where the output holds no classes.

    Whole numbers, masks and text are decisions themselves; else the greatest value over the last axis, of a map over
    its channels.
    """
    if kind == "mask" and is_float(array):
        return np.asarray(np.rint(array.astype(np.float64)).reshape(-1))
    if kind in ("integer", "mask", "text"):
        return array.reshape(-1)
    axis = 1 if kind == "map" else -1
    if kind == "embedding" or array.ndim < 2 or array.shape[axis] < 2:
        return None
    values = array.astype(np.float64)
    return np.asarray(np.where(np.isnan(values), -inf, values).argmax(axis).reshape(-1))


def minority(expected: Array, same: Array) -> tuple[int, int]:
    """Count the rows whose decision, in `expected` [m], is not the most frequent, and those of them with `same` [m]."""
    _, places, counts = np.unique(expected, return_inverse=True, return_counts=True)
    rare = places.reshape(-1) != counts.argmax()
    return int(rare.sum()), int((rare & same).sum())


def top_in_common(expected: Array, got: Array, kind: Kind) -> float:
    """Return the mean fraction of the greatest values per row [n, c] in common: 5, or half where c is below 10."""
    axis = 1 if kind == "map" else -1
    one, other = (
        np.moveaxis(each.astype(np.float64), axis, -1).reshape(-1, each.shape[axis]) for each in (expected, got)
    )
    count = min(_TOP, max(1, one.shape[-1] // 2))
    best = [
        np.argpartition(-np.where(np.isnan(each), -inf, each), count - 1, axis=-1)[:, :count] for each in (one, other)
    ]
    return float((best[0][:, :, None] == best[1][:, None, :]).any(axis=2).mean())


def signal_to_noise(one: Array, other: Array) -> float:
    """Return the energy of `one` [n, c] over that of the difference to `other` [n, c], in dB; infinite if equal."""
    noise, signal = float(np.square(one - other).sum()), float(np.square(one).sum())
    return inf if noise == 0 else -inf if signal == 0 else 10 * log10(signal / noise)


def cosines(one: Array, other: Array) -> Array:
    """Return the cosine per row of arrays [n, c], [n]; 1 for two zero rows, 0 for a zero row and another."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = ~(one.any(axis=1) | other.any(axis=1))
    dots = (one * other).sum(axis=1)
    return np.where(both_zero, 1.0, np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
