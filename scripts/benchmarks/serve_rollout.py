"""Simulated rollouts by the thousand: identical candidates stay, worse ones are rolled back, and the time to it.

Every run goes the way of a real one: blocks, evidence, decision and state table, with a look at the end of each minute.
What is simulated is the traffic alone (`rollout_traffic`).
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.benchmarks.rollout_traffic import Case, arms, tally
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from seatrial.bench.gating.trials import Rate
from seatrial.serve.fleet import Health
from seatrial.serve.traffic.rollout.decision import Observation, advance
from seatrial.serve.traffic.rollout.evidence import judge
from seatrial.serve.traffic.rollout.machine import Phase, Rollout
from seatrial.serve.traffic.rollout.plan import Plan, Step

LOOKS = 60  # one a minute
IDENTICAL, WORSE, RIVALS = 2000, 1000, 20  # runs of each weather
WEATHERS = {
    "autocorrelation 0.5": Case(memory=0.5),
    "autocorrelation 0.9": Case(memory=0.9),
    "autocorrelation 0.5 and a drift of 30 %": Case(memory=0.5, drift=0.3),
}
# The last comparing step of four, as in the usual plan, with so many requests to wait for that nothing passes early.
PLAN = Plan(schema=1, steps=tuple(Step(share=share, requests=10**6) for share in (0.01, 0.05, 0.25, 0.5)))
WELL = Health(ok=True)
BEGUN = Rollout(
    model="m", stable=1, candidate=2, digest="d", plan=PLAN, phase=Phase.STEP, step=3, restarts=0, routed=1.0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End of a run: the minute in which it was rolled back, infinite where it was not, and the reason."""

    minute: float
    reason: str = ""


def hour(random: np.random.Generator, case: Case) -> End:
    """One candidate at one step for an hour.

    E-values only grow (`tests/serve/traffic/test_sequential.py`): where none is enough after the last minute none
    was before, and the looks between need not be taken one by one.
    """
    made = tally(random, case, PLAN, minutes=LOOKS, step=BEGUN.step)
    last = judge(PLAN, BEGUN.step, made)
    rollout = BEGUN
    for minute in range(1 if any(each.evidence >= each.enough for each in last.findings) else LOOKS, LOOKS + 1):
        evidence = judge(PLAN, rollout.step, made.first(minute * round(60 / PLAN.block)))
        seen = Observation(at=60.0 * minute, in_force=True, candidate=WELL, stable=WELL, evidence=evidence)
        decision, rollout = advance(rollout, seen)
        if rollout.phase is Phase.ROLLING_BACK:
            return End(minute=minute, reason=decision.reason)
    return End(minute=math.inf)


def rivals(random: np.random.Generator, case: Case) -> tuple[bool, bool]:
    """Apply two usual rules to the same kind of run; return if each would have rolled it back.

    The rules: a rank test on all requests so far, each minute at 5 %; and three minutes, not in a row, whose p99 is
    10 % over the baseline's.
    """
    from scipy.stats import mannwhitneyu

    candidate, baseline = (np.exp(each) for each in arms(random, case, LOOKS))
    ends = range(case.rate, case.rate * LOOKS + 1, case.rate)
    ranked = any(mannwhitneyu(candidate[:end], baseline[:end]).pvalue < 0.05 for end in ends)
    p99 = [np.quantile(each.reshape(LOOKS, -1), 0.99, axis=1) for each in (candidate, baseline)]
    return ranked, int((p99[0] > 1.10 * p99[1]).sum()) >= 3


def false_rollback(folder: Path) -> Row:
    """Identical arms: whatever is rolled back is a false alarm."""
    told, rates, ranked, counted = [], [], 0, 0
    for seed, (name, case) in enumerate(WEATHERS.items()):
        random = np.random.default_rng(seed)
        rates.append(Rate.of(sum(hour(random, case).minute <= LOOKS for _ in range(IDENTICAL)), IDENTICAL))
        told.append(f"{name}: {rates[-1]}")
        for ranks, counts in (rivals(random, case) for _ in range(RIVALS)):
            ranked, counted = ranked + ranks, counted + counts
    of = RIVALS * len(WEATHERS)
    return Row(
        name="false-rollback",
        claim=f"false rollback of identical arms within {LOOKS} looks of a minute, 120 requests a minute per arm, "
        f"{IDENTICAL} simulated rollouts of each weather through blocks, evidence and state table",
        value=f"{'; '.join(told)}; on {of} such runs a Mann-Whitney test each minute {ranked / of:.0%}, three minutes "
        f"with a p99 10 % over the baseline's {counted / of:.0%}",
        bar="<= 2 % in each",
        met=all(each.count / each.n <= 0.02 for each in rates),
    )


def _found(name: str, words: str, case: Case, most: float) -> Row:
    random = np.random.default_rng(9)
    minutes = np.array([hour(random, case).minute for _ in range(WORSE)])
    found, median = Rate.of(int(np.isfinite(minutes).sum()), WORSE), float(np.median(minutes))
    slow = float(np.sort(minutes)[math.ceil(0.9 * WORSE) - 1])
    return Row(
        name=name,
        claim=f"a regression found within {LOOKS} looks of a minute: {words}; 120 requests a minute per arm, {WORSE} "
        "simulated rollouts",
        value=f"{found}, median {median:.0f} min, nine of ten by {slow:.0f} min",
        bar=f">= 99 %, median at most {most:.0f} min",
        met=found.count / found.n >= 0.99 and median <= most,
    )


def regression_mean(folder: Path) -> Row:
    """Every answer takes a fifth longer."""
    return _found("regression-mean", "every answer 20 % slower", Case(slower=1.2), 5)


def regression_tail(folder: Path) -> Row:
    """One answer in fifty takes four times as long."""
    return _found("regression-tail", "2 % of the answers 4 times slower", Case(rare=0.02), 20)


def regression_errors(folder: Path) -> Row:
    """Four times the errors, from a rate at which they are rare."""
    return _found("regression-errors", "errors 0.5 % -> 2 %", Case(errors=(0.02, 0.005)), 10)


ROWS: Rows = {
    "false-rollback": false_rollback,
    "regression-mean": regression_mean,
    "regression-tail": regression_tail,
    "regression-errors": regression_errors,
}


def main() -> int:
    """These rows alone."""
    return run_rows(__doc__ or "", ROWS)


if __name__ == "__main__":
    sys.exit(main())
