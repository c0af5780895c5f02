"""Error rates of trends and of budgets as tests, on synthetic series with known truth."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.bench.gating.rounds import Rounds, Rule, Session, decide, judge_rounds
from seatrial.bench.records.trend import Trend, trend
from seatrial.bench.stats import clopper_pearson

Array = npt.NDArray[np.float64]
SERIES = 1000
GATES = 40  # a series: some six weeks of nightly gates
NOISE = 0.03
FAMILIES = 400  # of benchmarks, each with PER_FAMILY budgets
PER_FAMILY = 20
ABBA = "ABBABAABABBA"


def _rate(count: int, n: int) -> str:
    low, high = clopper_pearson(count, n, 0.025)
    return f"{count / n:.1%} [{low:.1%}, {high:.1%}]"


def _trends(change: Callable[[Array, np.random.Generator], None]) -> list[Trend]:
    """Trends of seeded series of noise with heavy tails, changed as given."""
    found = []
    for seed in range(SERIES):
        random = np.random.default_rng(seed)
        logs = NOISE * random.standard_t(4, GATES)
        change(logs, random)
        found.append(trend(np.exp(logs).tolist()))
    return found


def quiet(folder: Path) -> Row:
    """Series in which nothing happened, and series with one spike: how often is a step or a drift seen?"""

    def spike(logs: Array, random: np.random.Generator) -> None:
        logs[random.integers(0, GATES)] += 0.5 * random.choice([-1, 1])

    calm = sum(bool(each.steps) or each.drift is not None for each in _trends(lambda logs, random: None))
    spiked = sum(bool(each.steps) for each in _trends(spike))
    return Row(
        name="trend-quiet",
        claim=f"steps or drift seen in {GATES} gates of mere noise ({NOISE:.0%}, heavy tails); steps where one spikes",
        value=f"{_rate(calm, SERIES)}; {_rate(spiked, SERIES)}",
        bar="<= 2 % and <= 1 %",
        met=calm <= 0.02 * SERIES and spiked <= 0.01 * SERIES,
    )


def step(folder: Path) -> Row:
    """A lasting step of 15 %, anywhere but within five gates of the ends: is it found, and where?"""
    places = [int(np.random.default_rng([9, seed]).integers(6, GATES - 6)) for seed in range(SERIES)]
    series = iter(places)

    def rise(logs: Array, random: np.random.Generator) -> None:
        logs[next(series) :] += np.log(1.15)

    found = _trends(rise)
    right = sum(
        len(each.steps) == 1 and abs(each.steps[0].index - at) <= 1 for each, at in zip(found, places, strict=True)
    )
    return Row(
        name="trend-step",
        claim=f"a step of 15 % in {GATES} gates with {NOISE:.0%} of noise is found, within one gate of its place",
        value=_rate(right, SERIES),
        bar=">= 95 %",
        met=right >= 0.95 * SERIES,
    )


def _sessions(random: np.random.Generator, factor: float, drift: float) -> tuple[list[Session], list[Session]]:
    """Runs in balanced turns of a family of benchmarks: 3 % between runs, a drift over the session, within each 1 %."""
    arms: dict[str, list[Session]] = {"A": [], "B": []}
    for index, arm in enumerate(ABBA):
        drifted = np.exp(drift * index / (len(ABBA) - 1))
        centres = 0.01 * random.lognormal(0, 0.03, PER_FAMILY) * drifted * (factor if arm == "B" else 1.0)
        made = {
            str(name): Rounds(data=tuple(centre * random.lognormal(0, 0.01, 5)), summary={})
            for name, centre in enumerate(centres)
        }
        at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=index)).isoformat()
        arms[arm].append(Session(at=at, machine={}, benchmarks=made, path=Path(f"{arm}{index}")))
    return arms["A"], arms["B"]


def budgets(folder: Path) -> Row:
    """Twenty budgets of 10 %: families that alarm although nothing changed, and regressions of the margin that pass."""
    rule = Rule(statistic="p50", rule="max_regression", margin=0.10)
    alarms, compared, passed = 0, 0, 0
    for seed in range(FAMILIES):
        random = np.random.default_rng(seed)
        base, other = _sessions(random, 1.0, 0.10)
        found = decide([judge_rounds(str(name), rule, base, other) for name in range(PER_FAMILY)])
        alarms += any(each.outcome == "FAIL" for each in found)
        one, two = base[0].benchmarks, other[0].benchmarks
        compared += any(two[name].number("p50") > 1.05 * one[name].number("p50") for name in one)  # type: ignore[operator]
        base, other = _sessions(random, 1.10, 0.10)
        passed += sum(judge_rounds(str(name), rule, base, other).outcome == "PASS" for name in range(PER_FAMILY))
    return Row(
        name="pytest-budgets",
        claim=f"budgets as tests, {PER_FAMILY} benchmarks, 6 runs each in turns, 10 % drift: families with a false "
        "FAIL; regressions of exactly the margin that pass",
        value=f"{_rate(alarms, FAMILIES)} (one run each compared at 5 %: {compared / FAMILIES:.0%}); "
        f"{_rate(passed, FAMILIES * PER_FAMILY)}",
        bar="<= 1 %; 5 % is the nominal rate at the margin itself, so the exact interval must reach down to it",
        met=alarms <= 0.01 * FAMILIES and clopper_pearson(passed, FAMILIES * PER_FAMILY, 0.025)[0] <= 0.05,
    )


ROWS: Rows = {"trend-quiet": quiet, "trend-step": step, "pytest-budgets": budgets}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows(__doc__ or "", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
