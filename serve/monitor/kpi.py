"""Business figures: the mean of an outcome over all requests of a window, held against its own usual course.

A window counts once its outcomes have had the plan's `delay` to come; what comes later is left out, in the baseline as
in what is judged, so that all windows are comparable. Worse by more than the figure's minimum effect is gathered by a
one-sided e-detector (`detect`). Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seatrial.optimize.record import Record

from .baseline import learn_baseline
from .detect import BETS, as_normal, bet
from .plan import Plan
from .plan_answers import Kpi
from .quantities import Floats, Quantity
from .season import HOURS, cell
from .window import Window, of_enough_rows

_MONDAY = 4 * 86_400.0  # the first Monday of the Unix epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class KpiBaseline(Record):
    """The usual mean by hour of the week, 168 of them; the others as of `baseline.Baseline`, of one quantity."""

    usual: tuple[float, ...]
    rows: float
    phi: float
    spread: float
    tails: float
    unsure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KpiState(Record):
    """How far a business figure was judged: until when, its last error, the statistic of each bet.

    `mean` and `usual` are sums over the windows since the last alarm, `windows` how many those are.
    """

    name: str
    baseline: KpiBaseline
    until: float
    statistic: tuple[float, ...] = (0.0,) * len(BETS)
    error: float = 0.0
    at: float | None = None
    windows: int = 0
    mean: float = 0.0
    usual: float = 0.0

    @property
    def evidence(self) -> float:
        """The mean over bets."""
        return sum(self.statistic) / len(self.statistic)

    def spent(self) -> "KpiState":
        """Return the state after an alarm, with its evidence spent."""
        return replace(self, statistic=(0.0,) * len(self.statistic), windows=0, mean=0.0, usual=0.0)


def windows_of(
    plan: Plan, kpi: Kpi, requests: Floats, moments: Floats, values: Floats, *, start: float, until: float
) -> list[Window]:
    """Sum up a figure from `start` to `until`, of whole intervals merged until each has enough rows.

    `requests` are the times of all requests, `moments` those of the requests with an outcome, `values` what it was.
    """
    first = math.floor(start / plan.interval)
    count = max(0, math.floor(until / plan.interval) - first)
    sums, rows = np.zeros(count), np.zeros(count, np.int64)
    for times, target, amounts in (
        (moments, sums, values),
        (moments if kpi.outcome == "review" else requests, rows, 1),
    ):
        at = np.floor(times / plan.interval).astype(np.int64) - first
        inside = (at >= 0) & (at < count)
        np.add.at(target, at[inside], amounts[inside] if isinstance(amounts, np.ndarray) else amounts)
    found = [
        Window(start=(first + at) * plan.interval, seconds=plan.interval, rows=int(rows[at]), sums=sums[at : at + 1])
        for at in range(count)
    ]
    return of_enough_rows(found, plan.rows)


def learn_kpi(plan: Plan, kpi: Kpi, windows: Sequence[Window]) -> KpiBaseline:
    """Learn the usual course of a figure.

    Raises:
        ValueError: too few windows, or the outcome never came.
    """
    if not any(float(each.sums[0]) for each in windows):
        raise ValueError(f"no {kpi.outcome} came in the reference")
    found = learn_baseline(plan, (Quantity(feature=kpi.name, what="location"),), windows)
    hours = [_MONDAY + (hour + 0.5) * 3600.0 for hour in range(HOURS)]
    return KpiBaseline(
        usual=tuple(float(found.expected(each)[0]) for each in hours),
        rows=found.rows,
        phi=float(found.phi[0]),
        spread=float(found.spread[0]),
        tails=float(found.tails[0]),
        unsure=float(found.unsure[0]),
    )


def judge_kpi(plan: Plan, kpi: Kpi, state: KpiState, window: Window) -> KpiState:
    """Take in one window, later than the one before."""
    base, middle = state.baseline, (window.start + window.end) / 2
    usual, mean = base.usual[int(cell(np.array([middle]))[0])], float(window.sums[0]) / window.rows
    gap = math.inf if state.at is None else max(1.0, (middle - state.at) / plan.interval)
    carried = base.phi**gap if gap < math.inf else 0.0
    spread = base.spread * math.sqrt((1 - carried**2) / (1 - base.phi**2) * max(1.0, base.rows / window.rows))
    surprise = (mean - usual - carried * state.error) / spread
    worse = -surprise if kpi.direction == "up" else surprise
    allowed = (kpi.minimum_effect * abs(usual) + base.unsure) * (1 - carried) / spread
    tails = np.array([base.tails])
    ratio = bet(as_normal(np.array([worse]), tails) - as_normal(np.array([allowed]), tails))[:, 0]
    return replace(
        state,
        until=window.end,
        statistic=tuple(
            min((before + 1) * float(each), 1e30) for before, each in zip(state.statistic, ratio, strict=True)
        ),
        error=mean - usual,
        at=middle,
        windows=state.windows + 1,
        mean=state.mean + mean,
        usual=state.usual + usual,
    )


def described(kpi: Kpi, state: KpiState, rows_a_day: float) -> str:
    """Return what a figure did since the last alarm, and what that is worth a day."""
    count = max(state.windows, 1)
    mean, usual = state.mean / count, state.usual / count
    change = (mean - usual) / usual if usual else 0.0
    text = f"{kpi.name}: {mean:.4g} {kpi.unit} a request, usually {usual:.4g} ({change:+.1%})"
    if kpi.worth:
        text += f", worth {abs(mean - usual) * kpi.worth * rows_a_day:,.0f} a day"
    return f"{text}; ask {kpi.owner}" if kpi.owner else text
