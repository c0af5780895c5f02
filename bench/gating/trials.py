"""Trials of the gate itself: identical arms (`aa`) and a known slow-down (`drill`), through the real pipeline.

A gate with unmeasured false-alarm rate and power proves nothing. Runs real gates,
resamples their slots, and says how often each verdict came; keeps nothing (`.records` does) and knows no server.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment, now

from .. import stats
from ..budget import Budget
from ..targets import Endpoint, Host
from ..verdict import Verdict
from .gate import gate
from .gate_setup import GateSetup
from .noise import Trial, noise_of, slot_seconds
from .pairs import GateRun, read_run
from .resample import distinct, outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`count` of `n`, with the exact (Clopper-Pearson) 95 % interval of the share."""

    count: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, n: int) -> "Rate":
        """The rate with its interval; without a trial it could be anything."""
        low, high = stats.clopper_pearson(count, n, 0.025) if n else (0.0, 1.0)
        return cls(count=count, n=n, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.count} of {self.n} ({self.low:.1%} to {self.high:.1%})"


def rate(outcomes: Mapping[str, int], outcome: str) -> Rate:
    """Return the rate of an outcome among the gates with a verdict."""
    valid = sum(count for each, count in outcomes.items() if each != "INVALID")
    return Rate.of(outcomes.get(outcome, 0), valid)


def aa(
    artifact: Artifact, budget: Budget, means: GateSetup, *, gates: int = 1, pairs: int = 0, resample: int = 200
) -> Trial:
    """Gate an artifact against itself `gates` times, and `resample` pseudo-gates from their slots.

    Every FAIL is a false alarm. With `pairs` the real gates are that long instead of the budget's length, without an
    early stop: one long session gives more pseudo-gates, which keep the budget's length, than many short ones.
    """
    plan = _Plan(gates=gates, pairs=pairs, resample=resample)
    return _trial(artifact, artifact, budget, means, plan)


def drill(
    artifact: Artifact,
    budget: Budget,
    means: GateSetup,
    *,
    slowed: Host,
    slow: float,
    gates: int = 1,
    pairs: int = 0,
    resample: int = 0,
) -> Trial:
    """Gate an artifact against itself served by `slowed`, where each execution takes the share `slow` longer.

    Pseudo-gates keep the arms as they were, so they only deal the blocks anew.
    """
    candidate = replace(artifact, name=f"{artifact.name}-slower-{100 * slow:g}-percent")
    honest = means.host

    def host(arm: Artifact) -> AbstractContextManager[Endpoint]:
        return slowed(arm) if arm.name == candidate.name else honest(arm)

    plan = _Plan(gates=gates, pairs=pairs, resample=resample, injected=slow)
    return _trial(artifact, candidate, budget, replace(means, host=host), plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Plan of a trial: real gates, pairs (0: the budget's), pseudo-gates, injected slow-down."""

    gates: int
    pairs: int
    resample: int
    injected: float = 0.0


def _trial(base: Artifact, candidate: Artifact, budget: Budget, means: GateSetup, plan: _Plan) -> Trial:
    verdicts, runs, folders = [], [], []
    budget = replace(budget, checks=())  # the same artifact answers the same in both arms: only time is on trial
    longer = session(budget, plan.pairs) if plan.pairs else budget
    for number in range(plan.gates):
        folder = means.folder / f"gate-{number + 1}"
        design = replace(longer.design, seed=budget.design.seed + number)
        each = replace(budget, design=design, ledger=None)
        verdicts.append(_gate(base, candidate, each, means, folder, number, plan.gates))
        runs.append(read_run(folder))
        folders.append(str(folder))
    drawn = resampled(runs, budget, count=plan.resample, exchange=not plan.injected)
    return Trial(
        kind="drill" if plan.injected else "aa",
        model=base.name,
        format=base.format,
        rate=budget.design.rate,
        seconds=budget.design.seconds,
        pairs=longer.design.pairs,
        injected=plan.injected,
        outcomes=dict(Counter(verdict.outcome for verdict in verdicts)),
        resampled=drawn,
        ratios=_ratios(verdicts),
        noise=noise_of(runs),
        slot_seconds=slot_seconds(runs),
        machine={"cpu": environment().cpu, "cores": environment().cores, "gpus": environment().gpus},
        runs=tuple(folders),
        at=now(),
    )


def resampled(runs: Sequence[GateRun], budget: Budget, *, count: int, exchange: bool) -> dict[str, int]:
    """Judge pseudo-gates of these runs; empty if none is requested, or the runs are too short."""
    if not count or not distinct(runs, budget, exchange=exchange):
        return {}
    return dict(outcomes(runs, budget, count=count, seed=budget.design.seed, exchange=exchange))


def _gate(
    base: Artifact, candidate: Artifact, budget: Budget, means: GateSetup, folder: Path, number: int, gates: int
) -> Verdict:
    tell: Callable[[str, float], None] | None = None
    if (report := means.progress) is not None:

        def tell(what: str, share: float) -> None:
            report(f"gate {number + 1} of {gates}, {what}", (number + share) / gates)

    return gate(base, candidate, budget, replace(means, folder=folder, progress=tell))


def _ratios(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The geometric mean of each metric's ratio over the gates."""
    found: dict[str, list[float]] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            if finding.ratio and finding.method != "exact":
                found.setdefault(finding.metric, []).append(math.log(finding.ratio))
    return {metric: math.exp(sum(logs) / len(logs)) for metric, logs in found.items()}


def complaint(trial: Trial, budget: Budget) -> str:
    """Return the fault of the gate that a trial shows; empty if there is none.

    An A/A trial complains where false alarms are shown to be more frequent than `alpha_fail`; a drill where a slow-down
    beyond p50's margin passed. A single false alarm out of a few gates shows nothing yet.
    """
    failed, passed = rate(trial.outcomes, "FAIL"), rate(trial.outcomes, "PASS")
    if not failed.n:
        return "no gate was valid, so the trial shows nothing"
    limit = budget.limit("p50")
    margin = limit.max_regression if limit is not None and limit.gating else None
    if trial.injected and margin is not None and trial.injected > margin and passed.count:
        return f"{trial.injected:+.1%} passed {passed.count} of {passed.n} gates with a margin of {margin:.1%}"
    if not trial.injected and failed.low > budget.alpha_fail:
        return f"false alarms in {failed}, above the promised {budget.alpha_fail:.1%}"
    return ""


def exit_code(trial: Trial, budget: Budget) -> int:
    """0 nothing wrong, 1 the gate does not keep its promise, 4 no gate was valid."""
    if not rate(trial.outcomes, "FAIL").n:
        return 4
    return 1 if complaint(trial, budget) else 0


def session(budget: Budget, pairs: int) -> Budget:
    """The budget for one long recording: that many pairs, no early stop."""
    return replace(budget, design=replace(budget.design, pairs=pairs, looks=()))


def runs_of(trial: Trial) -> list[GateRun]:
    """The runs of a trial, read back from their folders."""
    return [read_run(Path(folder)) for folder in trial.runs]
