"""Gates simulated from recorded slots, judged by the real judge, beside what simpler rules make of the same slots.

Recorded are whole slots of an A/A session on a real Triton, one figure per metric (`gate_slots.json`). A simulated gate
draws as many of them as it needs, each at most once and in any order, deals them to the arms as a real gate does, and
may lay a drift over the session. So every slot's metrics stay together and heavy tails stay heavy.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seatrial.bench.budget import Budget, Limit, load_budget
from seatrial.bench.gating.findings import slot_value
from seatrial.bench.gating.pairs import ARMS, GateRun, PinnedPrice, RunHeader, Slot, SlotRecord, plan
from seatrial.bench.metrics import metric_of
from seatrial.bench.verdict import EvaluationSet, Judged
from seatrial.optimize.errors import MissingError

HERE = Path(__file__).parent
SLOTS = HERE / "gate_slots.json"
RECORDED = ("p50", "p99", "throughput", "peak_memory", "startup")
_TIMES = ("p50", "p99", "startup")
_LATENCIES = 101  # so few that the median and the 99th percentile are two of them, and all else follows

Values = Mapping[str, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Effects that a simulation adds to the noise: the candidate's factor of slow-down, and the session's drift."""

    worse: float = 1.0
    drift: float = 0.0


def typical_budget() -> Budget:
    """The demo's budget with every one of its limits gating: what a family of metrics looks like."""
    budget = load_budget(HERE.parent.parent / "bench" / "budgets" / "scenes.toml")
    limits = tuple(replace(limit, gating=True) for limit in budget.limits if limit.metric != "quality")
    return replace(budget, limits=limits)


def one_limit(margin: float, pairs: int) -> Budget:
    """p50 alone."""
    budget = typical_budget()
    limits = (Limit(metric="p50", max_regression=margin),)
    return replace(budget, limits=limits, design=replace(budget.design, pairs=pairs))


def recorded() -> list[Values]:
    """The recorded slots.

    Raises:
        MissingError: nothing was recorded.
    """
    if not SLOTS.is_file():
        raise MissingError("no recorded slots", where=str(SLOTS), next_step="python -m scripts.benchmarks.record_slots")
    slots: list[Values] = json.loads(SLOTS.read_text())["slots"]
    return slots


def write(runs: Sequence[GateRun], about: Mapping[str, object]) -> int:
    """Keep the usable slots of A/A runs as the recorded ones; how many there are."""
    from seatrial.bench.gating.resample import blocks_of

    slots = [
        {name: slot_value(record, name, 1.0) for name in RECORDED}
        for run in runs
        for block in blocks_of(run)
        for record in block
    ]
    lines = ",\n  ".join(json.dumps(slot) for slot in slots)
    SLOTS.write_text(f'{{"about": {json.dumps(about)},\n "slots": [\n  {lines}\n]}}\n')
    return len(slots)


def from_slots(slots: Sequence[Values], budget: Budget, case: Case, *, count: int, seed: int) -> Iterator[GateRun]:
    """Simulated gates of recorded noise."""
    random, head = np.random.default_rng(seed), header(budget)
    for _ in range(count):
        order = plan(budget.design.pairs, int(random.integers(1 << 30)))
        drawn = random.choice(len(slots), size=len(order), replace=False)
        yield made(head, [slots[each] for each in drawn], [slot.arm for slot in order], case)


def from_noise(budget: Budget, case: Case, sd: float, *, count: int, seed: int) -> Iterator[GateRun]:
    """Simulated gates whose pair differences are normal with standard deviation `sd`."""
    random, slots = np.random.default_rng(seed), plan(budget.design.pairs, seed)
    head, arms = header(budget), [slot.arm for slot in slots]
    for _ in range(count):
        factors = np.exp(random.normal(0, sd / np.sqrt(2), len(slots)))
        values = [
            {"p50": 0.005 * f, "p99": 0.01 * f, "throughput": 200.0, "peak_memory": 2e8, "startup": 1.0}
            for f in factors
        ]
        yield made(head, values, arms, case)


def header(budget: Budget) -> RunHeader:
    """A run of two equal artifacts."""
    artifact = Judged(name="same", digest="sha256:" + "a" * 64, format="onnx", size=1_000_000)
    return RunHeader(
        base=artifact,
        candidate=artifact,
        budget=budget,
        samples=EvaluationSet(count=0, digest=""),
        price=PinnedPrice(usd_hour=0.1, machine="simulated"),
        environment={},
        at="",
    )


def made(head: RunHeader, slots: Sequence[Values], arms: Sequence[str], case: Case) -> GateRun:
    """A run of these slots, dealt to these arms."""
    records = []
    for index, (values, arm) in enumerate(zip(slots, arms, strict=True)):
        factor = (1 + case.drift * index / (len(slots) - 1)) * (case.worse if arm == "candidate" else 1.0)
        slot = Slot(index=index, pair=index // 2, arm=arm, position=index % 2, seed=0)  # type: ignore[arg-type]
        records.append(
            SlotRecord(
                slot=slot,
                attempt=0,
                latency=_latencies(values["p50"] * factor, values["p99"] * factor),
                status=_STATUS,
                throughput=values["throughput"] / factor,
                peak_memory=values["peak_memory"] * factor,
                startup=values["startup"] * factor,
            )
        )
    return GateRun(header=head, records=tuple(records))


_STATUS = np.full(_LATENCIES, 200)


def _latencies(p50: float, p99: float) -> Floats:
    """Latencies with exactly that median and 99th percentile."""
    made = np.full(_LATENCIES, p50)
    made[99:] = max(p50, p99)
    return made


# What simpler rules say about the same slots


def compare_fails(run: GateRun, budget: Budget, threshold: float) -> bool:
    """One run of each arm held together at a fixed percentage, metric by metric: any one beyond it fails."""
    first = {record.slot.arm: record for record in run.records[:2]}
    for limit in budget.limits:
        values = [slot_value(first[arm], limit.metric, 1.0) for arm in ARMS]
        if limit.max_regression is None or values[0] is None or values[1] is None:
            continue
        if metric_of(limit.metric).sign * np.log(values[1] / values[0]) > np.log1p(threshold):
            return True
    return False


def rank_test_fails(run: GateRun, random: np.random.Generator, alpha: float = 0.05, requests: int = 500) -> bool:
    """Mann and Whitney's test on the requests of one slot of each arm, as if they were independent runs.

    Requests are gamma distributed around the slot's median, with a tail as long as the recorded one.
    """
    from scipy.stats import mannwhitneyu

    arms = {record.slot.arm: record for record in run.records[:2]}
    drawn = []
    for arm in ARMS:
        p50 = slot_value(arms[arm], "p50", 1.0) or 0.0
        drawn.append(p50 * random.gamma(20, 1 / 20, requests))
    return bool(mannwhitneyu(drawn[1], drawn[0], alternative="greater").pvalue < alpha)
