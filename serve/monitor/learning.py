"""Learning: a baseline from traffic at hand, and what it says of itself before it judges anything.

The reference is cut into windows, the row functions and the baseline are learned from them, and the detector is run
over the same windows: what it finds there was in the reference.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seatrial.optimize.errors import ConfigError

from .answering import Reference, reference_of
from .baseline import LEAST, SEASONAL, Baseline, learn_baseline
from .detect import fresh, ranked_features, restarted, step
from .plan import Plan
from .quantities import Columns, Floats
from .season import HOURS, cell
from .sketch import SAMPLE, Sketch, learn_sketch
from .window import Window, of_enough_rows

Progress = Callable[[str, float, str], None]
_ROWS = 40_000  # of the sample that the row functions are learned from
_DAY = 86_400.0


class Source(Protocol):
    """Rows of traffic in order of time."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    @property
    def first(self) -> float:
        """The time of the first row, in seconds of the Unix epoch."""
        ...

    @property
    def last(self) -> float:
        """The time of the last row."""
        ...

    def sample(self, rows: int) -> Columns:
        """Draw about that many rows."""
        ...

    def between(self, start: float, end: float) -> Columns:
        """Return the rows from `start` to before `end`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The row functions and the baseline of a model, and the traffic that is usual.

    `usual` is the least number of rows that the reference had in an interval of each hour of the week, shape [168]; 0
    where it had none. `replayed` are alarms of the reference itself: time, feature. `doubts` are reasons to trust less.
    """

    sketch: Sketch
    baseline: Baseline
    usual: Floats
    replayed: tuple[tuple[float, str], ...]
    doubts: tuple[str, ...]


def learn(plan: Plan, source: Source, progress: Progress) -> Learned:
    """Learn what is normal.

    Raises:
        ConfigError: too few rows or windows, or a feature that is absent or not of its kind.
    """
    try:
        sketch = learn_sketch(plan, source.sample(max(_ROWS, SAMPLE)))
        intervals = windows(plan, sketch, source, progress, label="windows")
        baseline = learn_baseline(plan, sketch.quantities, of_enough_rows(intervals, plan.rows))
    except ValueError as error:
        raise ConfigError(
            f"the reference is not enough to learn from: {error}",
            where="reference",
            next_step=f"give more quiet traffic ({LEAST} windows of {plan.rows} rows are the least, four weeks are "
            "good), or change the plan",
        ) from error
    return Learned(
        sketch=sketch,
        baseline=baseline,
        usual=_usual(plan, intervals),
        replayed=_replayed(baseline, of_enough_rows(intervals, plan.rows)),
        doubts=tuple(_doubts(plan, baseline, intervals)),
    )


def labelled_reference(plan: Plan, source: Source) -> tuple[Reference | None, tuple[str, ...]]:
    """Return the labelled rows that answers are judged by, and why there are none where the plan asks for some."""
    if plan.estimate is None:
        return None, ()
    try:
        return reference_of(plan, source.sample(_ROWS)), ()
    except ValueError as error:
        return None, (f"answers will not be judged, and their accuracy not estimated: {error}",)


def windows(
    plan: Plan,
    sketch: Sketch,
    source: Source,
    progress: Progress,
    *,
    label: str,
    begin: float | None = None,
    until: float | None = None,
) -> list[Window]:
    """Sum up every whole interval from the first row, or from `begin`, to the last row, or to `until`.

    Intervals start at multiples of the plan's interval since 1970; empty ones have no row. The one that the last row
    lies in is left out, since it may go on.
    """
    first = math.floor(source.first / plan.interval) * plan.interval
    start = first if begin is None else begin
    count = max(0, math.floor(((source.last if until is None else until) - start) / plan.interval))
    chunk = max(1, round(_DAY / plan.interval))
    found = list[Window]()
    for at in range(0, count, chunk):
        here = [start + (at + each) * plan.interval for each in range(min(chunk, count - at))]
        found += _summed(plan, sketch, source, here)
        progress(label, (at + len(here)) / count, f"{at + len(here)} of {count}")
    return found


def _summed(plan: Plan, sketch: Sketch, source: Source, starts: Sequence[float]) -> list[Window]:
    """Return the windows that begin at `starts`."""
    return [
        sketch.window(source.between(start, start + plan.interval), start=start, seconds=plan.interval)
        for start in starts
    ]


def _usual(plan: Plan, intervals: Sequence[Window]) -> Floats:
    """Return the least rows of an interval by hour of the week, where the season is known; else of any interval."""
    rows = np.array([each.rows for each in intervals], dtype=np.float64)
    least = np.full(HOURS, rows.min())
    if intervals[-1].end - intervals[0].start >= SEASONAL:
        least = np.full(HOURS, np.inf)
        np.minimum.at(least, cell(np.array([each.start for each in intervals])), rows)
        least = np.where(np.isfinite(least), least, 0.0)
    return least


def _replayed(baseline: Baseline, windows_: Sequence[Window]) -> tuple[tuple[float, str], ...]:
    """Return the alarms that the reference raises against itself."""
    state, found = fresh(baseline), list[tuple[float, str]]()
    for window in windows_:
        state, evidence = step(baseline, state, window)
        if evidence.alarms:
            found.append((window.start, ranked_features(baseline, evidence)[0][0]))
            state = restarted(state)
    return tuple(found)


def _doubts(plan: Plan, baseline: Baseline, intervals: Sequence[Window]) -> list[str]:
    """Return what makes the baseline less certain than it looks."""
    found = []
    days = (baseline.end - baseline.start) / _DAY
    if not baseline.seasonal:
        found.append(
            f"{days:.1f} days of reference: the season is unknown, and a usual day may alarm; two weeks are needed"
        )
    elif baseline.end - baseline.start < 0.95 * plan.reference:
        found.append(f"{days:.1f} of {plan.reference / _DAY:.0f} days of reference")
    if faults := {fault for each in intervals for fault in each.faults}:
        found += sorted(faults)
    still = [str(each) for each, weight in zip(baseline.quantities, baseline.weight, strict=True) if weight == 0]
    if still:
        more = f" and {len(still) - 5} more" if len(still) > 5 else ""
        found.append(f"never varied, so only values out of range are seen: {', '.join(still[:5])}{more}")
    return found
