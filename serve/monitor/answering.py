"""Answers of a classifier as numbers: classes as codes, the confidence, and the labelled reference that is kept.

What the model answered stands in columns that the plan names (`plan_answers.Answers`). Pure.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import Plan
from .plan_answers import Answers
from .quantities import Columns, Floats
from .sketch import Sketch, numeric

Codes = NDArray[np.int64]
LEAST = 1000  # labelled rows of a reference, below which nothing is expected of a model by it: chosen
MOST = 20_000  # labelled rows of a reference that are kept
_SHOWN = 8  # values of a category that are told apart when inputs are compared
_WHOLE = re.compile(r"-?\d+\.0+")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Answers whose outcome is known: `features` of shape [rows, features], `predicted` and `truth` classes of shape
    [rows], and `confidence`, the probability that the model gave to its prediction.
    """

    features: Floats
    predicted: Codes
    confidence: Floats
    truth: Codes

    @property
    def correct(self) -> Floats:
        """1 where the answer was right, shape [rows]."""
        found: Floats = (self.predicted == self.truth).astype(np.float64)
        return found

    def at(self, places: Any) -> "Labelled":
        """Return those rows."""
        return Labelled(
            features=self.features[places],
            predicted=self.predicted[places],
            confidence=self.confidence[places],
            truth=self.truth[places],
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Labelled rows of the reference: the columns of features, groups, answers and labels, each of shape [rows].

    `said` is what the plan said of them, so that another plan is noticed.
    """

    columns: Columns
    said: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coder:
    """Classes as codes: their place in `classes`, -1 where there is none, and one beyond the last where unknown."""

    classes: tuple[str, ...]
    binary: bool = False

    def codes(self, values: Iterable[Any]) -> Codes:
        """Return the codes of class names; of two classes, of which one is named, the other is every other name."""
        known = {name: code for code, name in enumerate(self.classes)}
        other = 0 if self.binary else len(self.classes)
        names = map(class_name, values)
        return np.array([known.get(name, other) if name else -1 for name in names], dtype=np.int64)


def said(plan: Plan) -> str:
    """Return what a plan says of answers and groups, as text that changes with it."""
    return repr((plan.estimate, plan.outcomes.groups if plan.outcomes else ()))


def reference_of(plan: Plan, columns: Columns) -> Reference:
    """Keep the rows of a reference that have a label and an answer.

    Raises:
        ValueError: fewer than `LEAST` such rows, or a column is absent.
    """
    answers = plan.estimate
    if answers is None:
        raise ValueError("the plan has no [estimate]")
    named = (answers.label, answers.answer, answers.confidence, *answers.probabilities.values())
    if absent := [name for name in named if name and name not in columns]:
        raise ValueError(f"the reference lacks {', '.join(absent)}")
    coder = coder_of(answers, columns)
    predicted, confidence = answered(answers, columns, coder)
    usable = (coder.codes(columns[answers.label]) >= 0) & (predicted >= 0)
    if answers.probable:
        usable &= np.isfinite(confidence)
    places = np.flatnonzero(usable)
    if len(places) < LEAST:
        raise ValueError(f"{len(places)} rows have a label and an answer, and at least {LEAST} are needed")
    places = places[np.linspace(0, len(places) - 1, min(MOST, len(places))).astype(np.int64)]
    kept = {*plan.features, *plan.also} - {plan.outcomes.request if plan.outcomes else ""}
    return Reference(
        columns={name: _plain(column[places]) for name, column in columns.items() if name in kept}, said=said(plan)
    )


def coder_of(answers: Answers, columns: Columns) -> Coder:
    """Return the classes of a reference: those that have a probability first, then the others by name."""
    named = tuple(answers.probabilities)
    if len(named) == 1:
        return Coder(classes=(f"not {named[0]}", named[0]), binary=True)
    there = (answers.label, answers.answer)
    found = {class_name(value) for name in there if name in columns for value in np.unique(_plain(columns[name]))}
    return Coder(classes=(*named, *sorted(found - {"", *named})))


def answered(answers: Answers, columns: Columns, coder: Coder) -> tuple[Codes, Floats]:
    """Return the answered classes, -1 where unknown, and their confidence, NaN where there is none; shape [rows]."""
    rows = len(next(iter(columns.values())))
    chances = [numeric(columns.get(name), rows)[0] for name in answers.probabilities.values()]
    if coder.binary:
        chances = [1 - chances[0], chances[0]]
    table = np.stack(chances, axis=1) if chances else np.full((rows, 1), np.nan)
    if answers.answer:
        predicted = coder.codes(columns[answers.answer]) if answers.answer in columns else np.full(rows, -1, np.int64)
    else:
        known = np.isfinite(table).all(axis=1)
        predicted = np.where(known, np.where(known[:, None], table, 0.0).argmax(axis=1), -1)
    if answers.confidence:
        return predicted, numeric(columns.get(answers.confidence), rows)[0]
    inside = (predicted >= 0) & (predicted < table.shape[1])
    mine = table[np.arange(rows), np.where(inside, predicted, 0)]
    return predicted, np.where(inside, mine, np.nan)


def labelled(answers: Answers, sketch: Sketch, columns: Columns, coder: Coder, truth: Iterable[Any]) -> Labelled:
    """Return answers with their outcome; where the model gives no confidence it is 0 for every row."""
    predicted, confidence = answered(answers, columns, coder)
    return Labelled(
        features=encoded(sketch, columns),
        predicted=predicted,
        confidence=np.where(np.isfinite(confidence), confidence, 0.0),
        truth=coder.codes(truth),
    )


def encoded(sketch: Sketch, columns: Columns) -> Floats:
    """Return features as numbers, shape [rows, terms]: normal scores, and 0 or 1 for the frequent categories."""
    rows = len(next(iter(columns.values())))
    parts = list[Floats]()
    for each in sketch.numbers:
        scores = np.zeros(rows, np.float32)
        each.sums(numeric(columns.get(each.name), rows)[0], scores)
        parts.append(scores.astype(np.float64))
    for category in sketch.categories:
        column = columns.get(category.name)
        names = np.array([class_name(value) for value in column] if column is not None else [""] * rows)
        parts += [(names == value).astype(np.float64) for value in category.top[:_SHOWN]]
    return np.stack(parts, axis=1)


def class_name(value: Any) -> str:
    """Return a class or category as text, nothing where it is missing; 3, 3.0 and "3.0" are one."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text[: text.index(".")] if _WHOLE.fullmatch(text) else text


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column as numbers, or as text with nothing where it is missing."""
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    return np.array(["" if value is None else str(value) for value in column], dtype=np.str_)
