"""Row functions: what a row adds to the sums of its window, learned once from rows of the reference.

Sums alone leave this module, so that windows of several nodes or hours add up and no row is kept. Scores follow the
ranks of the reference: a feature in another unit, or with heavy tails, counts like any other.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm

from .plan import Plan
from .quantities import Columns, Floats, Quantity
from .window import Window

BINS = 64
BLOCK = 20_000  # rows at a time, which bounds the memory
MISSING = (None, "")
NO_NUMBERS = "values that are no numbers"
WRONG = "wrong:"  # before the name of a number feature: a column of flags, which rows held text that is no number
SAMPLE = 500  # rows of a reference below which nothing is learned: 8 for each bin


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A number feature: inner `edges` of its bins, shape [bins - 1]; the mean normal score of each, shape [bins]."""

    name: str
    edges: Floats
    scores: NDArray[np.float32]
    low: float
    high: float

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is summed of it, in the order of `sums`."""
        return tuple(Quantity(feature=self.name, what=what) for what in ("location", "scale", "missing", "outside"))

    def sums(self, column: Floats, scores: NDArray[np.float32]) -> list[float]:
        """Return the sums of a block of rows and write the rows' scores, 0 where missing. Both of shape [rows]."""
        missing = np.isnan(column)
        place = np.searchsorted(self.edges, column, side="right")
        np.take(self.scores, place, out=scores)
        scores[missing] = 0
        there = len(column) - int(np.count_nonzero(missing))
        outside = int(np.count_nonzero(column < self.low)) + int(np.count_nonzero(column > self.high))
        location = float(scores.sum(dtype=np.float64))
        return [location, float(np.dot(scores, scores)) - there, float(len(column) - there), float(outside)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """A category feature: its most frequent values, and all that the reference had."""

    name: str
    top: tuple[str, ...]
    known: frozenset[str]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is summed of it, in the order of `sums`."""
        two = [Quantity(feature=self.name, what=what) for what in ("missing", "unseen")]
        return (*two, *(Quantity(feature=self.name, what="share", value=value) for value in self.top))

    def sums(self, column: NDArray[Any]) -> list[float]:
        """Return the sums of a block of rows, of shape [rows]."""
        counts = counted(column)
        unseen = sum(count for value, count in counts.items() if value is not None and value not in self.known)
        return [float(counts[None]), float(unseen), *(float(counts[value]) for value in self.top)]


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """The row functions of a plan's features. `pairs` are places of two number features, shape [pairs, 2]."""

    numbers: tuple[Numbers, ...]
    categories: tuple[Categories, ...]
    pairs: NDArray[np.int64]

    @cached_property
    def quantities(self) -> tuple[Quantity, ...]:
        """What a window holds sums of, in order."""
        single = [each for numbers in self.numbers for each in numbers.quantities]
        single += [each for categories in self.categories for each in categories.quantities]
        names = [feature.name for feature in self.numbers]
        pairs = [Quantity(feature=names[one], what="pair", value=names[other]) for one, other in self.pairs]
        return (*single, *pairs)

    def window(self, columns: Columns, *, start: float, seconds: float) -> Window:
        """Sum up the rows of one interval; a feature that is absent or not of its kind counts as missing.

        Raises:
            ValueError: columns of different lengths, or none that is watched.
        """
        names = [*(each.name for each in self.numbers), *(each.name for each in self.categories)]
        lengths = {len(columns[name]) for name in names if name in columns}
        if len(lengths) != 1:
            raise ValueError(f"columns of one length are needed, found {sorted(lengths)}")
        [rows] = lengths
        sums = np.zeros(len(self.quantities))
        faults = dict[str, None]()
        for begin in range(0, rows, BLOCK):
            end = min(begin + BLOCK, rows)
            sums += self._block({name: column[begin:end] for name, column in columns.items()}, end - begin, faults)
        return Window(start=start, seconds=seconds, rows=rows, sums=sums, faults=tuple(faults))

    def _block(self, columns: Columns, rows: int, faults: dict[str, None]) -> Floats:
        """Return the sums of one block of rows, shape [quantities]."""
        scores = np.zeros((len(self.numbers), rows), np.float32)
        found = list[float]()
        for place, numbers in enumerate(self.numbers):
            column, fault = numeric(columns.get(numbers.name), rows)
            if (wrong := columns.get(WRONG + numbers.name)) is not None and wrong.any():
                fault = NO_NUMBERS
            if fault:
                faults[f"{numbers.name}: {fault}"] = None
            found += numbers.sums(column, scores[place])
        for categories in self.categories:
            values = columns.get(categories.name)
            if values is None:
                faults[f"{categories.name}: the column is absent"] = None
                values = np.full(rows, None)
            found += categories.sums(values)
        products = scores @ scores.T
        return np.concatenate([found, products[self.pairs[:, 0], self.pairs[:, 1]].astype(np.float64)])


def learn_sketch(plan: Plan, rows: Columns) -> Sketch:
    """Learn the row functions from rows that stand for the whole reference.

    Raises:
        ValueError: a feature of the plan is absent, empty or not of its kind, or there are fewer than `SAMPLE` rows.
    """
    if absent := [name for name in plan.features if name not in rows]:
        raise ValueError(f"the reference lacks {', '.join(absent)}")
    if (least := min(len(rows[name]) for name in plan.features)) < SAMPLE:
        raise ValueError(f"{least} rows, and at least {SAMPLE} are needed")
    numbers = tuple(_numbers(name, rows[name]) for name, each in plan.features.items() if each.kind == "number")
    categories = tuple(
        _categories(name, rows[name], each.top) for name, each in plan.features.items() if each.kind == "category"
    )
    return Sketch(numbers=numbers, categories=categories, pairs=_pairs(numbers, rows, plan.pairs))


def counted(column: Iterable[Any]) -> Counter[str | None]:
    """Count the values of a category feature as text; None, NaN and the empty text are missing (None)."""
    found = Counter[str | None]()
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":  # each NaN would be a value of its own
        there = column[~np.isnan(column)]
        found[None] = len(column) - len(there)
        column = there
    values = column.tolist() if isinstance(column, np.ndarray) else column
    for value, count in Counter(values).items():
        gone = value in MISSING or (isinstance(value, float) and value != value)
        found[None if gone else _text(value)] += count
    return found


def numeric(column: NDArray[Any] | None, rows: int) -> tuple[Floats, str]:
    """Return a column as numbers of shape [rows], and what was wrong with it: absent, or text that is no number."""
    if column is None:
        return np.full(rows, np.nan), "the column is absent"
    if column.dtype.kind in "fiub":
        return column.astype(np.float64, copy=False), ""
    found, wrong = np.full(rows, np.nan), 0
    for place, value in enumerate(column.tolist()):
        if value in MISSING:
            continue
        try:
            found[place] = float(value)
        except (TypeError, ValueError):
            wrong += 1
    return found, NO_NUMBERS if wrong else ""


def _text(value: Any) -> str:
    """Return a category as text; 3 and 3.0 are one, since files do not keep the difference."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(name: str, column: NDArray[Any]) -> Numbers:
    """Learn bins and scores. The score of a bin is the mean of a standard normal between its quantiles."""
    values, fault = numeric(column, len(column))
    known = values[np.isfinite(values)]
    if fault or not len(known):
        raise ValueError(f"{name} cannot be read as numbers: {fault or 'it has no finite value'}")
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS))
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    until = np.concatenate([[0.0], np.cumsum(counts)]) / len(known)
    density = norm.pdf(ndtri(until))
    scores = np.where(counts > 0, (density[:-1] - density[1:]) / np.maximum(np.diff(until), 1e-12), 0.0)
    return Numbers(
        name=name, edges=edges, scores=scores.astype(np.float32), low=float(known.min()), high=float(known.max())
    )


def _categories(name: str, column: NDArray[Any], top: int) -> Categories:
    counts = counted(column)
    counts.pop(None, None)
    if not counts:
        raise ValueError(f"{name} has no value in the reference")
    ordered = sorted(counts, key=lambda value: (-counts[value], str(value)))
    return Categories(name=name, top=tuple(map(str, ordered[:top])), known=frozenset(map(str, ordered)))


def _pairs(numbers: tuple[Numbers, ...], rows: Columns, most: int) -> NDArray[np.int64]:
    """Return the pairs of number features with the strongest rank correlation, at most so many; shape [pairs, 2]."""
    one, other = np.triu_indices(len(numbers), 1)
    if most == 0 or not len(one):
        return np.zeros((0, 2), np.int64)
    scores = np.zeros((len(numbers), len(next(iter(rows.values())))), np.float32)
    for place, feature in enumerate(numbers):
        feature.sums(numeric(rows[feature.name], scores.shape[1])[0], scores[place])
    strength = np.abs(scores @ scores.T)[one, other]
    kept = np.sort(np.argsort(-strength, kind="stable")[:most])
    return np.stack([one[kept], other[kept]], axis=1)
