"""Rates of the gate, measured: false alarms, power, and the duration of a gate.

Simulated rows judge thousands of gates with the real judge; real rows start servers, a few minutes each.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scripts.benchmarks import gate_simulation as simulation
from scripts.benchmarks.gate_real import bench
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.bench.budget import Budget
from seatrial.bench.gating import trials
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.noise import Trial, noise_of
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.gating.trials import Rate, rate
from seatrial.optimize.units import format_duration

GATES = 10_000
REAL_SECONDS = 210.0  # that a row with real servers may record
DRIFT = 0.10


def _outcomes(runs: Iterable[GateRun], budget: Budget) -> Counter[str]:
    return Counter(judge(run, budget).outcome for run in runs)


def aa_simulated(folder: Path) -> Row:
    """False FAILs of a whole family of metrics, without and with a drift; and what simpler rules do."""
    slots, budget = simulation.recorded(), simulation.typical_budget()
    told, failed = [], []
    for drift in (0.0, DRIFT):
        case = simulation.Case(drift=drift)
        found = _outcomes(simulation.from_slots(slots, budget, case, count=GATES, seed=1), budget)
        failed.append(Rate.of(found["FAIL"], found.total() - found["INVALID"]))
        told.append(f"{failed[-1]} FAIL with {drift:.0%} drift")
    few = list(simulation.from_slots(slots, budget, simulation.Case(), count=1000, seed=2))
    random = np.random.default_rng(3)
    compared = Rate.of(sum(simulation.compare_fails(run, budget, 0.05) for run in few), len(few))
    ranked = Rate.of(sum(simulation.rank_test_fails(run, random) for run in few), len(few))
    family = sum(limit.gating for limit in budget.limits)
    return Row(
        name="aa-simulated",
        claim=f"false FAIL per family of {family} limits, {GATES} simulated A/A gates of {len(slots)} recorded slots",
        value=f"{'; '.join(told)}; comparing one run at a fixed 5 %: {compared.count / compared.n:.0%} false alarms, "
        f"rank test on requests: {ranked.count / ranked.n:.0%}",
        bar="<= 1 %, with and without drift",
        met=all(each.n == GATES and each.count / each.n <= 0.01 for each in failed),
    )


def power(folder: Path) -> Row:
    """Twice the margin must fail, the margin itself may hardly pass: pair noise 3 %, 10 pairs, margin 5 %.

    A test of level 5 % may pass the margin in just 5 %, so that is simulated five times as often, and the bar is that
    no more than 5 % is shown.
    """
    budget = simulation.one_limit(0.05, 10)
    found = {}
    for worse, count in ((1.10, GATES), (1.05, 5 * GATES)):
        case = simulation.Case(worse=worse)
        found[worse] = _outcomes(simulation.from_noise(budget, case, 0.03, count=count, seed=4), budget)
    twice, exactly = rate(found[1.10], "FAIL"), rate(found[1.05], "PASS")
    return Row(
        name="power",
        claim="margin 5 %, noise of a pair 3 %, 10 pairs, simulated gates: +10 % fails; exactly +5 % passes",
        value=f"{twice}; {exactly}",
        bar=">= 95 %; <= 5 % within the simulation's error",
        met=twice.count / twice.n >= 0.95 and exactly.low <= 0.05,
    )


def _turns(least: int) -> Iterator[int]:
    """Numbers for as long as another turn, as long as the last one, fits into the row's time; `least` in any case."""
    began = started = time.monotonic()
    for number in itertools.count():
        now = time.monotonic()
        if number >= least and (now - began) + (now - started) > REAL_SECONDS:
            return
        started = now
        yield number


def _seeded(budget: Budget, number: int) -> Budget:
    return replace(budget, design=replace(budget.design, seed=budget.design.seed + number))


def aa_real(folder: Path) -> Row:
    """Real A/A gates until the time is over, and pseudo-gates of their slots."""
    with bench(folder) as each:
        made = [
            trials.aa(each.artifact, _seeded(each.budget, number), each.means(f"aa-{number}"), resample=0)
            for number in _turns(least=2)
        ]
        runs = [run for trial in made for run in trials.runs_of(trial)]
        drawn = trials.resampled(runs, each.budget, count=400, exchange=True)
    real, pseudo, noise = rate(_added(made), "FAIL"), rate(drawn, "FAIL"), noise_of(runs).get("p50")
    return Row(
        name="aa-real",
        claim="false FAIL on this machine's Triton: real A/A gates of 6 pairs, and pseudo-gates from their slots",
        value=f"real {real}; resampled {pseudo}; noise of a pair in p50 {noise.sd if noise else math.nan:.1%}",
        bar="0 or 1 FAIL of at least 40",
        met=real.n > 0 and real.count == 0 and pseudo.n >= 40 and pseudo.count <= 1,
    )


def _added(found: Sequence[Trial]) -> Counter[str]:
    return sum((Counter(each.outcomes) for each in found), Counter())


def _one_gating(budget: Budget, metric: str) -> Budget:
    return replace(budget, limits=tuple(replace(each, gating=each.metric == metric) for each in budget.limits))


def drill_real(folder: Path) -> Row:
    """+20 % and +10 % of the service time, at a margin of 5 %: real gates in turn until the time is over."""
    made: dict[float, list[Trial]] = {0.20: [], 0.10: []}
    with bench(folder) as each:
        budget = _one_gating(each.budget, "p50")  # what is drilled is one metric; more would share its error rate
        budget = replace(budget, design=replace(budget.design, saturation_seconds=0.3))
        for number in _turns(least=4):
            slow = (0.20, 0.10)[number % 2]
            made[slow].append(
                trials.drill(
                    each.artifact,
                    _seeded(budget, number),
                    each.means(f"drill-{number}"),
                    slowed=each.slowed(slow),
                    slow=slow,
                )
            )
    twenty, ten = rate(_added(made[0.20]), "FAIL"), rate(_added(made[0.10]), "PASS")
    told = "; ".join(
        f"{slow:+.0%} (p50 {np.mean([trial.ratios.get('p50', math.nan) for trial in found]) - 1:+.1%}): "
        + ", ".join(f"{count} {outcome}" for outcome, count in sorted(_added(found).items()))
        for slow, found in made.items()
    )
    return Row(
        name="drill-real",
        claim="real drill on this machine's Triton, 5 ms model, margin 5 %, 6 pairs",
        value=told,
        bar="+20 % always FAIL, +10 % never PASS",
        met=twenty.n > 0 and twenty.count == twenty.n and ten.n > 0 and ten.count == 0,
    )


def gate_time(folder: Path) -> Row:
    """A gate of six pairs, start to verdict."""
    with bench(folder) as each:
        began = time.monotonic()
        trial = trials.aa(each.artifact, each.budget, each.means("gate"), resample=0)
        seconds = time.monotonic() - began
    outcome = next(iter(trial.outcomes))
    return Row(
        name="gate-time",
        claim="a gate of a 5 ms model, 6 pairs, start to verdict",
        value=f"{format_duration(seconds)}, {trial.slot_seconds:.1f} s a slot ({outcome})",
        bar="<= 5 min",
        met=seconds <= 300 and outcome != "INVALID",
    )


ROWS: Rows = {
    "aa-simulated": aa_simulated,
    "power": power,
    "aa-real": aa_real,
    "drill-real": drill_real,
    "gate-time": gate_time,
}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Measure the error rates of the gate.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
