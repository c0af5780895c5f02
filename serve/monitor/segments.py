"""Segments of traffic: the parts in which errors are compared, fixed by the plan and the reference before any outcome.

Since no outcome has a say in what the segments are, no part of the outcomes has to be kept apart for choosing them.
Pure.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .answering import class_name
from .plan import Plan
from .quantities import Columns, Floats
from .sketch import Sketch, numeric

Masks = NDArray[np.bool_]
EVERYTHING = "all requests"
_TAILS = (0.1, 0.25)  # of a number feature, below and above which a segment lies: chosen
_RAREST = 0.02  # share of the reference from which a value is a segment of its own: chosen
_MOST_VALUES = 20  # of one column


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Requests with a `value` of a column, or with one from `low` up to `high`; every request where there is no column.

    `weight` is its part of the budget; `group` says that the plan names its column.
    """

    column: str = ""
    value: str = ""
    low: float = -np.inf
    high: float = np.inf
    group: bool = False
    weight: float = 0.0

    def __str__(self) -> str:
        """Return it as reports print it."""
        if not self.column:
            return EVERYTHING
        if self.value:
            return f"{self.column} = {self.value}"
        return f"{self.column} below {self.high:.4g}" if np.isinf(self.low) else f"{self.column} above {self.low:.4g}"

    def members(self, columns: Columns) -> Masks:
        """Return which rows lie in it, shape [rows]; a row without the column does not."""
        rows = len(next(iter(columns.values())))
        if not self.column:
            return np.ones(rows, np.bool_)
        column = columns.get(self.column)
        if column is None:
            return np.zeros(rows, np.bool_)
        if self.value:
            return np.array([class_name(each) == self.value for each in column], np.bool_)
        numbers, _ = numeric(column, rows)
        return (numbers >= self.low) & (numbers <= self.high)


def segments_of(plan: Plan, columns: Columns) -> tuple[Segment, ...]:
    """Return everything, the values of the plan's groups, then tails and values of its features, by a reference.

    The budget is 0.2 for everything; the rest goes in halves to groups and features, or to the one that there is.
    """
    groups = plan.outcomes.groups if plan.outcomes else ()
    named = [each for name in groups for each in _values(name, columns, group=True)]
    found = list[Segment]()
    for name, feature in plan.features.items():
        if name in columns and name not in groups:
            found += _tails(name, columns) if feature.kind == "number" else _values(name, columns, group=False)
    parts = [part for part in (named, found) if part]
    every = [Segment(weight=0.2 if parts else 1.0)]
    every += [replace(each, weight=0.8 / len(parts) / len(part)) for part in parts for each in part]
    return tuple(every)


def members(segments: tuple[Segment, ...], columns: Columns) -> Masks:
    """Return which rows lie in which segment, shape [segments, rows]."""
    return np.stack([each.members(columns) for each in segments])


def supported(sketch: Sketch, columns: Columns) -> Masks:
    """Return which rows have only values that the reference had: numbers in its range, known categories; [rows]."""
    rows = len(next(iter(columns.values())))
    inside = np.ones(rows, np.bool_)
    for each in sketch.numbers:
        numbers, _ = numeric(columns.get(each.name), rows)
        inside &= np.isnan(numbers) | ((numbers >= each.low) & (numbers <= each.high))
    for category in sketch.categories:
        column = columns.get(category.name)
        known = category.known | {""}
        inside &= np.array([class_name(each) in known for each in column]) if column is not None else True
    return inside


def _values(name: str, columns: Columns, *, group: bool) -> list[Segment]:
    """Return a segment for each value that is not rare, the most frequent first."""
    if name not in columns:
        return []
    counts = Counter(class_name(each) for each in columns[name])
    rows = sum(counts.values())
    there = [value for value, count in counts.most_common(_MOST_VALUES + 1) if value and count >= _RAREST * rows]
    return [Segment(column=name, value=value, group=group) for value in there[:_MOST_VALUES]]


def _tails(name: str, columns: Columns) -> list[Segment]:
    """Return the tails of a number feature, of those that hold the same rows one."""
    numbers: Floats = numeric(columns[name], len(columns[name]))[0]
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return []
    found = dict[tuple[float, float], Segment]()
    for share in _TAILS:
        low, high = (float(each) for each in np.quantile(known, (share, 1 - share)))
        for ends in ((-np.inf, low), (high, np.inf)):
            part = float(((known >= ends[0]) & (known <= ends[1])).mean())
            if _RAREST <= part <= 0.5:
                found[ends] = Segment(column=name, low=ends[0], high=ends[1])
    return list(found.values())
