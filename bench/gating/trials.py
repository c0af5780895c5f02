"""Trials of the gate itself: identical arms (`aa`) and a known slow-down (`drill`), through the real pipeline.

A gate that nobody has seen fail, or that nobody has seen leave an innocent alone, proves nothing. Runs real gates,
resamples their slots, and says how often each verdict came; keeps nothing (`.records` does) and knows no server.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from optimize.artifact import Artifact
from optimize.environment import environment, now
from optimize.samples import Samples

from .. import stats
from ..budget import Budget
from ..quality.served import Metric
from ..records.archive import Trial, noise_of, slot_seconds
from ..targets import Endpoint, Host
from ..verdict import Verdict
from .gate import Generator, Progress, gate
from .pairs import GateRun, read_run
from .resample import distinct, outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every gate of a trial needs besides its arms; as `bench.gating.gate.gate` takes it."""

    host: Host
    samples: Samples
    metric: Metric
    folder: Path
    max_batch: int | None = None
    progress: Progress | None = None
    generator: Generator | None = None


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
    """How often an outcome came among the gates that carried a verdict."""
    valid = sum(count for each, count in outcomes.items() if each != "INVALID")
    return Rate.of(outcomes.get(outcome, 0), valid)


def aa(
    artifact: Artifact, budget: Budget, means: Means, *, gates: int = 1, pairs: int = 0, resample: int = 200
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
    means: Means,
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
    """How many real gates, how long (0: as the budget says), how many pseudo-gates, what is injected."""

    gates: int
    pairs: int
    resample: int
    injected: float = 0.0


def _trial(base: Artifact, candidate: Artifact, budget: Budget, means: Means, plan: _Plan) -> Trial:
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
        machine={"cpu": environment().cpu, "cores": environment().cores, "gpus": list(environment().gpus)},
        runs=tuple(folders),
        at=now(),
    )


def resampled(runs: Sequence[GateRun], budget: Budget, *, count: int, exchange: bool) -> dict[str, int]:
    """How pseudo-gates of these runs end; empty where none is asked for, or the runs are too short."""
    if not count or not distinct(runs, budget, exchange=exchange):
        return {}
    return dict(outcomes(runs, budget, count=count, seed=budget.design.seed, exchange=exchange))


def _gate(
    base: Artifact, candidate: Artifact, budget: Budget, means: Means, folder: Path, number: int, gates: int
) -> Verdict:
    tell: Callable[[str, float], None] | None = None
    if (report := means.progress) is not None:

        def tell(what: str, share: float) -> None:
            report(f"gate {number + 1} of {gates}, {what}", (number + share) / gates)

    return gate(
        base,
        candidate,
        budget,
        host=means.host,
        samples=means.samples,
        metric=means.metric,
        folder=folder,
        max_batch=means.max_batch,
        progress=tell,
        generator=means.generator,
    )


def _ratios(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The geometric mean of each metric's ratio over the gates."""
    found: dict[str, list[float]] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            if finding.ratio and finding.method != "exact":
                found.setdefault(finding.metric, []).append(math.log(finding.ratio))
    return {metric: math.exp(sum(logs) / len(logs)) for metric, logs in found.items()}


def complaint(trial: Trial, budget: Budget) -> str:
    """What a trial shows to be wrong with the gate; empty where it shows nothing.

    An A/A trial complains where false alarms are shown to be more frequent than `alpha_fail`; a drill where a slow-down
    beyond p50's margin passed. A single false alarm out of a few gates shows nothing yet.
    """
    failed, passed = rate(trial.outcomes, "FAIL"), rate(trial.outcomes, "PASS")
    if not failed.n:
        return "no gate was valid, so nothing was shown"
    limit = budget.limit("p50")
    margin = limit.max_regression if limit is not None and limit.gating else None
    if trial.injected and margin is not None and trial.injected > margin and passed.count:
        return f"{trial.injected:+.1%} passed {passed.count} of {passed.n} gates with a margin of {margin:.1%}"
    if not trial.injected and failed.low > budget.alpha_fail:
        return f"false alarms in {failed}, where {budget.alpha_fail:.1%} are promised"
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
