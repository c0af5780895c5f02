"""Judging outcomes: each once, in order of the requests' time, by segment; business figures once they have matured.

What was judged is kept with the evidence, so that a look at more outcomes goes on where the last one ended.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from seatrial.optimize.record import Record

from . import concept
from .alarms import Watched, held, raised
from .concept import Bounds, Drifting, ErrorState
from .diagnosis import Cause
from .expectation import Expectation
from .kpi import KpiState, described, judge_kpi
from .outcomes import Outcome, Truth, truths
from .plan import Plan
from .plan_answers import Outcomes
from .quantities import Floats
from .segments import Masks
from .window import Window

BUSINESS = 0.3  # the budget's part for business figures, where there are any
Table = tuple[tuple[float, ...], ...]
Explain = Callable[[tuple[Drifting, ...], float], Cause]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(
    Record,
    schema=1,
    what="how far outcomes were judged",
    next_step="remove the file: all outcomes are judged again, from the first on",
):
    """How far outcomes were judged, with the evidence by `segments`; `said` is what plan and reference they are of.

    `taken` counts the outcomes that were read, in the order in which they were added; `waiting` are requests of them
    that were in no table. `newest` is the end of the last window of outcomes. `answers` and `business` are the alarms.
    """

    said: str
    segments: tuple[str, ...]
    errors: Table = ()
    gaps: Table = ()
    counts: Table = ()
    taken: int = 0
    waiting: tuple[str, ...] = ()
    newest: float | None = None
    answers: Watched = field(default_factory=Watched)
    business: Watched = field(default_factory=Watched)
    kpi: tuple[KpiState, ...] = ()

    def state(self, expected: Expectation) -> ErrorState:
        """Return the statistics as arrays."""
        if not self.errors:
            return concept.fresh(expected)
        labels, wrong, usual = (np.array(each) for each in self.counts)
        return ErrorState(
            errors=np.array(self.errors), gaps=np.array(self.gaps), labels=labels, wrong=wrong, expected=usual
        )

    def of(self, state: ErrorState) -> "Judgement":
        """Return it with these statistics."""
        return replace(
            self,
            errors=_table(state.errors),
            gaps=_table(state.gaps),
            counts=_table(np.stack([state.labels, state.wrong, state.expected])),
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Answers with an outcome, in order of time: whether right, its chance, [rows]; segments, [segments, rows]."""

    moments: Floats
    correct: Floats
    chance: Floats
    masks: Masks


def unjudged(outcomes: Sequence[Outcome], taken: int, waiting: Sequence[str]) -> dict[str, Truth]:
    """Return the truths of randomly chosen requests that were not judged yet."""
    before = {each.request for each in outcomes[:taken] if each.single} - set(waiting)
    return {name: truth for name, truth in truths(outcomes).items() if truth.random and name not in before}


def judge_answers(plan: Plan, expected: Expectation, kept: Judgement, rows: Rows, explain: Explain) -> Judgement:
    """Take in outcomes; an alarm spends the evidence, and `explain` says what it looks like."""
    said = plan.outcomes or Outcomes(request="request")
    threshold = plan.threshold / ((1 - BUSINESS) if plan.kpi else 1.0)
    state, found = kept.state(expected), kept
    hours = np.floor(rows.moments / plan.interval).astype(np.int64)
    for hour in np.unique(hours):
        here = hours == hour
        end = float(hour + 1) * plan.interval
        elapsed = 1.0 if found.newest is None else max(0.0, (end - found.newest) / plan.interval)
        bounds = Bounds(tolerance=said.tolerance, gap=said.gap, elapsed=elapsed)
        state = concept.step(expected, state, rows.correct[here], rows.chance[here], rows.masks[:, here], bounds)
        watched = found.answers
        watched = replace(watched, windows=watched.windows + 1, rows=watched.rows + int(here.sum()))
        if concept.total(expected, state) >= threshold:
            watched = _raised(watched, end, explain(concept.drifting(expected, state), end))
            state = concept.fresh(expected)
        newest = end if found.newest is None else max(end, found.newest)
        watched = held(replace(watched, until=newest), newest, plan.hold)
        found = replace(found, answers=watched, newest=newest)
    return found.of(state)


def judge_business(
    plan: Plan, kept: Judgement, windows: Mapping[str, Sequence[Window]], rows_a_day: float
) -> Judgement:
    """Take in windows of business figures, each later than what was judged of the figure, in order of time."""
    threshold = plan.threshold / (BUSINESS if plan.estimate is not None else 1.0)
    states = {each.name: each for each in kept.kpi}
    watched = kept.business
    queue = sorted(
        ((window.end, kpi.name, window) for kpi in plan.kpi for window in windows.get(kpi.name, ())),
        key=lambda each: each[:2],
    )
    kpis = {each.name: each for each in plan.kpi}
    for end, name, window in queue:
        states[name] = judge_kpi(plan, kpis[name], states[name], window)
        watched = replace(watched, until=end, windows=watched.windows + 1, rows=watched.rows + window.rows)
        if sum(each.evidence for each in states.values()) / len(plan.kpi) >= threshold:
            worst = max(states.values(), key=lambda each: each.evidence)
            text = described(kpis[worst.name], worst, rows_a_day)
            cause = Cause(kind="business", advice="unknown", features=(worst.name,), reasons=(text,))
            watched = raised(watched, end, cause)
            states = {key: each.spent() for key, each in states.items()}
        watched = held(watched, end, plan.hold)
    return replace(kept, business=watched, kpi=tuple(states.values()))


def _raised(watched: Watched, end: float, cause: Cause) -> Watched:
    """Return it with an alarm begun or renewed; a first cause that could not be told yet gives way to a later one."""
    found = raised(watched, end, cause)
    alarm = found.alarm
    if alarm is None or alarm.cause.kind != "unknown":
        return found
    return replace(found, alarms=(*found.alarms[:-1], replace(alarm, cause=cause)))


def _table(values: Floats) -> Table:
    return tuple(tuple(float(each) for each in row) for row in values)
