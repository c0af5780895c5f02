"""What the verbs of outcomes need at hand: the labelled reference as numbers, its segments, and rows with outcomes.

Learns the chance of each answer to be right (`on_sklearn_causes`) when it is made, which takes a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from seatrial.optimize.errors import ConfigError

from .answering import Coder, Labelled, Reference, answered, coder_of, encoded, labelled, said
from .attribution import LEAST, Attributed, attributed
from .concept import Drifting
from .diagnosis import Cause, advised
from .estimate import Estimate, estimated
from .expectation import Expectation, expectation
from .judging import Rows
from .label_power import share_interval
from .outcomes import Truth
from .plan import Plan
from .plan_answers import Answers
from .quantities import Columns, Floats
from .segments import Masks, Segment, members, segments_of, supported
from .sketch import Sketch

if TYPE_CHECKING:
    from .on_sklearn_causes import Correctness

_SAMPLE = 500  # labels that a cause is named from, the newest
_NO_ANSWERS = "the plan does not say what the model answered"
_ADD = 'add [estimate] with label = "..." and the columns of the answer, then learn again'


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """A plan with its labelled reference, and the row functions that were learned."""

    plan: Plan
    sketch: Sketch
    reference: Reference

    @property
    def answers(self) -> Answers:
        """The columns of the answer.

        Raises:
            ConfigError: the plan has none.
        """
        if self.plan.estimate is None:
            raise ConfigError(_NO_ANSWERS, where="estimate", next_step=_ADD)
        return self.plan.estimate

    @cached_property
    def coder(self) -> Coder:
        """The classes."""
        return coder_of(self.answers, self.reference.columns)

    @cached_property
    def known(self) -> Labelled:
        """The reference as numbers."""
        columns = self.reference.columns
        return labelled(self.answers, self.sketch, columns, self.coder, columns[self.answers.label])

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The segments in which errors are compared."""
        return segments_of(self.plan, self.reference.columns)

    @cached_property
    def masks(self) -> Masks:
        """Which rows of the reference lie in which segment, shape [segments, rows]."""
        return members(self.segments, self.reference.columns)

    @cached_property
    def model(self) -> "Correctness":
        """The chance of each answer to be right."""
        from .on_sklearn_causes import Correctness

        return Correctness(self.known)

    @cached_property
    def expected(self) -> Expectation:
        """What is expected of each segment."""
        return expectation(self.segments, self.masks, self.known.correct, self.model.held_out)

    def labelled(self, columns: Columns, truth: Sequence[str]) -> Labelled:
        """Return rows of traffic with their right classes."""
        return labelled(self.answers, self.sketch, columns, self.coder, truth)

    def chance(self, columns: Columns) -> Floats:
        """Return the chance of each row's answer to be right, shape [rows]."""
        _, confidence = answered(self.answers, columns, self.coder)
        return self.model.chance(encoded(self.sketch, columns), np.where(np.isfinite(confidence), confidence, 0.0))

    def rows(self, columns: Columns, moments: Floats, truth: Sequence[str]) -> Rows:
        """Return rows with outcomes for judging: those with an answer, and only values that the reference had."""
        found = self.labelled(columns, truth)
        usable = np.flatnonzero((found.predicted >= 0) & (found.truth >= 0) & supported(self.sketch, columns))
        here = {name: column[usable] for name, column in columns.items()}
        found = found.at(usable)
        return Rows(
            moments=moments[usable],
            correct=found.correct,
            chance=self.model.chance(found.features, found.confidence),
            masks=members(self.segments, here),
        )

    def estimate(self, columns: Columns, *, labels: int, checked: float | None) -> Estimate:
        """Return the estimated accuracy of rows without labels.

        Raises:
            ConfigError: the model gives no probabilities, or no row has any.
        """
        from .on_sklearn import AccuracyEstimator

        if not self.answers.probable:
            raise ConfigError(
                "a model without probabilities: its accuracy cannot be estimated without labels",
                where="estimate",
                next_step="name them in the plan, or judge outcomes; drift is watched all the same",
            )
        predicted, confidence = answered(self.answers, columns, self.coder)
        usable = np.flatnonzero((predicted >= 0) & np.isfinite(confidence))
        if len(usable) < 2:
            raise ConfigError(
                f"{len(usable)} rows have a probability",
                where="estimate",
                next_step="check the columns that [estimate] names, and give more rows",
            )
        here = {name: column[usable] for name, column in columns.items()}
        found = AccuracyEstimator(self.known).hypotheses(
            encoded(self.sketch, here), predicted[usable], confidence[usable]
        )
        return estimated(found, labels=labels, checked=checked)

    def cause(
        self, columns: Columns, moments: Floats, truth: Sequence[str], others: Columns, *, released: float | None
    ) -> tuple[Cause, Attributed]:
        """Return the cause that the newest labels point at; `others` are rows of the same time without labels.

        `released` is when a version began to serve; it counts as near for seven times the plan's `hold`.
        """
        from .on_sklearn_causes import CauseFinder

        newest = np.argsort(moments, kind="stable")[-_SAMPLE:]
        here = {name: column[newest] for name, column in columns.items()}
        found = self.labelled(here, [truth[place] for place in newest])
        usable = np.flatnonzero((found.predicted >= 0) & (found.truth >= 0))
        window, here = found.at(usable), {name: column[usable] for name, column in here.items()}
        if len(usable) < LEAST:
            attribution = Attributed(
                shift="unknown", reasons=(f"{len(usable)} random labels, at least {LEAST} are needed",)
            )
        else:
            finder = CauseFinder(self.known, self.segments, self.masks, self.model)
            more = encoded(self.sketch, others) if others else np.zeros((0, window.features.shape[1]))
            attribution = attributed(finder.signs(window, members(self.segments, here), more))
        right = int(window.correct.sum())
        harmed = len(usable) > 0 and share_interval(right, len(usable))[1] < float(self.known.correct.mean())
        harmed = harmed or attribution.shift == "concept"
        end = float(moments[newest].max()) if len(newest) else 0.0
        near = released is not None and released <= end <= released + 7 * self.plan.hold
        return advised(attribution, harmed=harmed, released=near), attribution


def at_hand(plan: Plan, sketch: Sketch, reference: Reference | None) -> AtHand:
    """Return what judging needs.

    Raises:
        ConfigError: no labelled reference was learned, or by other answers and groups than the plan has now.
    """
    if plan.estimate is None:
        raise ConfigError(_NO_ANSWERS, where="estimate", next_step=_ADD)
    if reference is None or reference.said != said(plan):
        what = "has too few labelled rows" if reference is None else "was learned by another [estimate] or other groups"
        raise ConfigError(
            f"the reference {what}",
            where=plan.model,
            next_step=f"learn from tables with the column {plan.estimate.label!r}: seatrial learn PLAN FILE",
        )
    return AtHand(plan=plan, sketch=sketch, reference=reference)


def evidence_by_segment(found: Sequence[Drifting], columns: Columns) -> Mapping[str, tuple[float, Masks]]:
    """Return suspected segments by name, with their evidence and which rows lie in them; everything is none."""
    return {str(each.segment): (each.part, each.segment.members(columns)) for each in found if each.segment.column}


def random_truths(truths: Mapping[str, Truth]) -> dict[str, Truth]:
    """Return the truths that say how good the model is."""
    return {name: truth for name, truth in truths.items() if truth.random}
