"""Planted faults: what a run did not exercise, and the one class or segment that lost what the mean hides."""

from itertools import pairwise
from typing import Any

import numpy as np

from scripts.benchmarks.faults import Fault
from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.exercised import exercised
from seatrial.bench.gating.pairs import (
    ARMS,
    Deployable,
    DeployedTensor,
    GateRun,
    PinnedPrice,
    RunHeader,
    SampledTensor,
    SaturationUse,
    SlotRecord,
    plan,
)
from seatrial.bench.measurement import NOTHING
from seatrial.bench.quality.evidence import CLEAN, Asked, Share, packed
from seatrial.bench.server_statistics import ServerCounts
from seatrial.bench.verdict import EvaluationSet, Judged

PAIRS = 4
BUDGET = Budget(design=Design(rate=1.0, seconds=1.0, pairs=PAIRS), limits=(Limit(metric="file_size", at_most=1.0),))


def _run(most: int, sizes: dict[int, int], at_saturation: dict[int, int], shares: list[Any] | None) -> GateRun:
    """A run whose servers executed these batch sizes, and answered these shares of the evaluation set."""
    about = Deployable(
        max_batch=most,
        inputs=(SampledTensor(name="x", shape=("batch", 4), sampled=(4,)),),
        outputs=(DeployedTensor(name="y", shape=("batch", 10)),),
    )
    header = RunHeader(
        base=Judged(name="", digest=""),
        candidate=Judged(name="", digest=""),
        budget=BUDGET,
        samples=EvaluationSet(count=0, digest=""),
        price=PinnedPrice(),
        environment={},
        at="2026-11-01T00:00:00+00:00",
        deployable=about,
    )
    records = []
    for slot in plan(PAIRS, 0):
        asked = shares[slot.pair][slot.arm] if shares else NOTHING
        records.append(
            SlotRecord(
                slot=slot,
                attempt=0,
                server=_counts(sizes),
                saturation=SaturationUse(batch=1, client_cpu=0.1, errors=0, completed=1, server=_counts(at_saturation)),
                checks=asked,
                quality=np.zeros(1),
            )
        )
    return GateRun(header=header, records=tuple(records))


def _counts(sizes: dict[int, int]) -> ServerCounts:
    """Return the counts of a server that executed these batch sizes."""
    return ServerCounts(
        requests=1,
        failures=0,
        inferences=1,
        executions=1,
        queue=0.0,
        compute_input=0.0,
        compute_infer=0.0,
        compute_output=0.0,
        batch_sizes=sizes,
    )


def _silent_on(random: np.random.Generator, *, slow_unseen: bool) -> bool:
    """Return whether the notes name a batch size that was never executed: the first that the candidate is slow at."""
    most = int(random.choice([4, 8, 16, 32, 64, 128]))
    slow_from = int(random.integers(2, most + 1))
    seen = [size for size in range(1, slow_from) if random.random() < 0.7] or [1]
    if not slow_unseen:
        seen = list(range(1, most + 1))
    cut = int(random.integers(0, len(seen) + 1))
    sizes = [{size: int(random.integers(1, 50)) for size in part} for part in (seen[:cut], seen[cut:])]
    notes = exercised(_run(most, sizes[0], sizes[1], None), quality_batch=32)
    said = next((note.partition("the speed at ")[2] for note in notes if "the speed at " in note), "")
    named = set[int]()
    for part in said.partition(" is unknown")[0].split(", "):
        first, _, last = part.partition(" to ")
        named |= set(range(int(first), int(last or first) + 1)) if first else set()
    return slow_from in named if slow_unseen else bool(named)


def _said(random: np.random.Generator, kind: str, *, loses: bool) -> bool:
    """Return whether a loss is reported: the class or group that lost, or, where none did, any."""
    classes, n = int(random.integers(2, 21)), int(random.integers(2000, 8000))
    labels = random.integers(0, classes, n)
    groups = random.integers(0, 4, n)
    base = (random.random(n) < random.uniform(0.8, 0.98)).astype(float)
    moved = random.random(n) < 0.01  # answers that change by chance, for better and for worse
    candidate = np.where(moved, (random.random(n) < base.mean()).astype(float), base)
    chosen = int(random.integers(classes if kind == "class" else 4))
    member = (labels if kind == "class" else groups) == chosen
    if loses:
        candidate = np.where(member & (random.random(n) < random.uniform(0.15, 0.5)), 0.0, candidate)
    edges = np.linspace(0, n, PAIRS + 1).astype(int)
    shares = [
        {arm: _share(slice(start, stop), labels, groups, {"base": base, "candidate": candidate}[arm]) for arm in ARMS}
        for start, stop in pairwise(edges.tolist())
    ]
    notes = exercised(_run(8, {1: 1}, {8: 1}, shares), quality_batch=8)
    wanted = "class" if kind == "class" else "segment"
    told = [note for note in notes if note.startswith(f"worst {wanted}") and "significantly worse" in note]
    if not loses:
        return bool(told)
    name = f": class {chosen}," if kind == "class" else f"group = {chosen}"
    return any(name in note for note in told)


def _share(part: slice, labels: Any, groups: Any, scores: Any) -> Share:
    asked = Asked(
        start=part.start,
        labels=packed(labels[part]),
        columns={"group": packed(groups[part])},
        derived={},
        rows={CLEAN: packed(np.arange(len(labels[part])))},
        digests={},
    )
    return Share(asked=asked, outputs={}, scores={CLEAN: packed(scores[part])})


FAULTS = (
    Fault(
        name="batch-unseen",
        claim="the first batch size at which a candidate is slow was never executed: the verdict says so",
        planted=lambda random: _silent_on(random, slow_unseen=True),
        sound=lambda random: _silent_on(random, slow_unseen=False),
    ),
    Fault(
        name="class-lost",
        claim="one class lost 15 to 50 % of its answers: the verdict names it; none lost: it shows none",
        planted=lambda random: _said(random, "class", loses=True),
        sound=lambda random: _said(random, "class", loses=False),
    ),
    Fault(
        name="segment-lost",
        claim="one group lost 15 to 50 % of its answers: the verdict names it; none lost: it shows none",
        planted=lambda random: _said(random, "segment", loses=True),
        sound=lambda random: _said(random, "segment", loses=False),
    ),
)
