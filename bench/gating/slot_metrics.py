"""The metrics of a slot that this project has, one class each: its rules, its number, its findings. Pure."""

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np

from seatrial.optimize.units import format_value

from .. import stats
from ..budget import Budget, Limit
from ..cost import usd_per_million
from ..load.run import CENSORED, OK
from ..measurement import Direction
from ..measuring import usage
from ..metrics import SlotMetric
from ..server_statistics import mean_compute, mean_queue
from ..verdict import Finding
from .findings import against_bound, complete_pairs, pooled_errors, quality_scores
from .leaks import leak_finding
from .pairs import GateRun, SlotRecord

_SLOWER = "check the page's waterfall: it shows whether client, network, queue or compute took the time"


class Quality(SlotMetric):
    """The recipe's metric over the evaluation set, which the pairs share."""

    name: ClassVar[str] = "quality"
    unit: ClassVar[str] = "score"
    direction: ClassVar[Direction] = "higher"
    summary: ClassVar[str] = "mean of the per-sample scores"
    rules: ClassVar[tuple[str, ...]] = ("max_drop", "at_least", "at_most")
    advice: ClassVar[str] = "find the layers that lose quality (seatrial parity), and keep them in a higher precision"

    def finding(self, run: GateRun, budget: Budget, limit: Limit, blank: Finding) -> Finding:
        scores = quality_scores(run)
        if scores is None or scores[0].size < 2:
            return replace(blank, reason="quality: the evaluation set was not answered exactly once by each arm.")
        base, candidate = float(scores[0].mean()), float(scores[1].mean())
        filled = replace(blank, base=base, candidate=candidate, n=scores[0].size)
        if blank.rule == "at_least":
            level = stats.level(scores[1], blank.margin, alpha=budget.alpha_pass)
            return against_bound(filled, "higher", level)
        drop = stats.paired_drop(*scores, blank.margin, alpha=budget.alpha_pass)
        passed = drop.upper < blank.margin
        reason = (
            f"quality {_moved(-drop.drop)} from {base:.4f} to {candidate:.4f} over {drop.n} samples; "
            f"upper bound of the drop {max(drop.upper, 0):.4f}, margin {blank.margin:.4f}."
        )
        certifiable = max(stats.detectable(drop.se, alpha=budget.alpha_pass), drop.upper - drop.drop)
        if not passed and certifiable > blank.margin > 0:
            needed = math.ceil(
                drop.n * (certifiable / blank.margin) ** 2
            )  # the standard error falls with the root of n
            reason += f" This set can certify {certifiable:.4f}; about {needed} samples are needed."
        return replace(
            filled,
            difference=0.0 - drop.drop,
            interval=(0.0 - drop.upper, 0.0 - drop.lower),
            bound=-blank.margin,
            p=drop.p_exceeds,
            outcome="PASS" if passed else "INCONCLUSIVE",
            reason=reason,
            sd=drop.se * math.sqrt(drop.n),
            certifiable=certifiable,
            blocking=blank.margin + stats.detectable(drop.se, alpha=budget.alpha_fail),
            method=drop.method,
        )


class _Latency(SlotMetric):
    """A quantile of latency.

    Over answered requests and those that were still unanswered at the end, with the time they had waited: leaving those
    out would reward a stall. Failed requests are counted by `Errors`.
    """

    unit: ClassVar[str] = "s"
    quantile: ClassVar[float]
    advice: ClassVar[str] = _SLOWER

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        counted = slot.latency[(slot.status == OK) | (slot.status == CENSORED)]
        return float(np.quantile(counted, self.quantile)) if counted.size else None


class P50(_Latency):
    """Median latency."""

    name: ClassVar[str] = "p50"
    summary: ClassVar[str] = "median latency from the intended send time"
    quantile: ClassVar[float] = 0.5
    assumed_noise: ClassVar[float | None] = 0.03


class P99(_Latency):
    """Tail latency."""

    name: ClassVar[str] = "p99"
    summary: ClassVar[str] = "99th percentile of that latency"
    quantile: ClassVar[float] = 0.99
    least_requests: ClassVar[int] = 100
    assumed_noise: ClassVar[float | None] = 0.08


class Throughput(SlotMetric):
    """Rate at saturation."""

    name: ClassVar[str] = "throughput"
    unit: ClassVar[str] = "1/s"
    direction: ClassVar[Direction] = "higher"
    summary: ClassVar[str] = "inferences per second at saturation"
    assumed_noise: ClassVar[float | None] = 0.03
    advice: ClassVar[str] = "compare the executed batch sizes of both arms on the page"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.throughput


class PeakMemory(SlotMetric):
    """Highest memory of the server."""

    name: ClassVar[str] = "peak_memory"
    unit: ClassVar[str] = "B"
    summary: ClassVar[str] = "highest memory of the server's process tree"
    resolution: ClassVar[float] = 2 << 20  # allocators and huge pages move in steps of this size
    assumed_noise: ClassVar[float | None] = 0.01
    advice: ClassVar[str] = "check the page's memory curves: they show whether loading or serving takes the memory"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.peak_memory


class Startup(SlotMetric):
    """Time of a start."""

    name: ClassVar[str] = "startup"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "time from starting the server to the first answer"
    assumed_noise: ClassVar[float | None] = 0.10
    advice: ClassVar[str] = (
        "time the load alone: look for a larger file, more graph optimization, or a first compilation"
    )

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.startup


class LoadTime(SlotMetric):
    """Time of a load."""

    name: ClassVar[str] = "load_time"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "time from the load request to a ready model"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.load_seconds


class FirstInference(SlotMetric):
    """Time of the first response."""

    name: ClassVar[str] = "first_inference"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "latency of the first request after loading"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.first_inference


class Queue(SlotMetric):
    """Wait in the server, by its own count."""

    name: ClassVar[str] = "queue"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "mean wait in the server's queue per request"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return mean_queue(slot.server)


class Compute(SlotMetric):
    """Work in the server, by its own count."""

    name: ClassVar[str] = "compute"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "mean input, inference and output time per request"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return mean_compute(slot.server)


class SteadyMemory(SlotMetric):
    """Memory that stays."""

    name: ClassVar[str] = "steady_memory"
    unit: ClassVar[str] = "B"
    summary: ClassVar[str] = "memory of the process tree after all work"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.memory.last if isinstance(slot.memory, usage.Memory) else None


class Leak(SlotMetric):
    """Memory that goes on growing."""

    name: ClassVar[str] = "leak"
    unit: ClassVar[str] = "B/1k"
    summary: ClassVar[str] = "continuing growth of memory per 1,000 requests"
    rules: ClassVar[tuple[str, ...]] = ("at_most", "at_least")

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        """Return the steepest growth of the run's later parts; at least a byte, since histories work on logarithms."""
        parts = usage.parts_of(slot.memory)
        return max(1.0, *(part.slope for part in parts)) if parts else None

    def finding(self, run: GateRun, budget: Budget, limit: Limit, blank: Finding) -> Finding:
        pairs = complete_pairs(run)
        return leak_finding(blank, [b for b, _ in pairs], [c for _, c in pairs], budget.alpha_pass)


class DeviceMemory(SlotMetric):
    """Highest memory of the GPU."""

    name: ClassVar[str] = "device_memory"
    unit: ClassVar[str] = "B"
    summary: ClassVar[str] = "highest GPU memory above an empty server's"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.device.peak if isinstance(slot.device, usage.DeviceUse) else None


class Energy(SlotMetric):
    """Energy of an inference."""

    name: ClassVar[str] = "energy"
    unit: ClassVar[str] = "J"
    summary: ClassVar[str] = "GPU energy per inference, net of idling"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return slot.energy.per_inference if isinstance(slot.energy, usage.EnergyUse) else None


class FileSize(SlotMetric):
    """Size of the artifact."""

    name: ClassVar[str] = "file_size"
    unit: ClassVar[str] = "B"
    summary: ClassVar[str] = "bytes of the artifact's files"
    advice: ClassVar[str] = "inspect what the last stage added (seatrial show)"

    def finding(self, run: GateRun, budget: Budget, limit: Limit, blank: Finding) -> Finding:
        """Bytes are exact: no statistics."""
        base, candidate = float(run.header.base.size), float(run.header.candidate.size)
        relative = blank.rule == "max_regression"
        bound = max(base * (1 + blank.margin), base + limit.floor) if relative else blank.margin
        passed = candidate <= bound
        return replace(
            blank,
            base=base,
            candidate=candidate,
            ratio=candidate / base if relative and base else None,
            bound=bound / base if relative and base else bound,
            outcome="PASS" if passed else "FAIL",
            reason=(
                f"file_size: {format_value(candidate, 'B')}, was {format_value(base, 'B')}; "
                f"{'within' if passed else 'beyond'} the allowed {format_value(bound, 'B')}."
            ),
            method="exact",
        )


class Cost(SlotMetric):
    """Price of an inference."""

    name: ClassVar[str] = "cost"
    unit: ClassVar[str] = "$/1M"
    summary: ClassVar[str] = "price of a million inferences at saturation"
    assumed_noise: ClassVar[float | None] = 0.03
    advice: ClassVar[str] = "raise the throughput; the cost follows from it"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return usd_per_million(slot.throughput, usd_hour) if slot.throughput else None


class Errors(SlotMetric):
    """Requests that failed."""

    name: ClassVar[str] = "errors"
    unit: ClassVar[str] = "share"
    summary: ClassVar[str] = "fraction of requests that failed"
    rules: ClassVar[tuple[str, ...]] = ("at_most", "at_least")
    advice: ClassVar[str] = "read what the server refused, in the slots table and in the load's reasons"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return float(np.mean(slot.status != OK)) if slot.status.size else None

    def finding(self, run: GateRun, budget: Budget, limit: Limit, blank: Finding) -> Finding:
        """Requests without a good answer: a hard rule, no statistics."""
        base, candidate = pooled_errors(run, "base"), pooled_errors(run, "candidate")
        if base is None or candidate is None:
            return blank
        filled = replace(blank, base=base, candidate=candidate, bound=blank.margin, method="exact")
        if base > blank.margin:
            return replace(
                filled,
                reason=(
                    f"errors: the base arm failed {base:.2%} of its own requests, so the candidate cannot be judged."
                ),
            )
        passed = candidate <= blank.margin
        return replace(
            filled,
            outcome="PASS" if passed else "FAIL",
            reason=f"errors: {candidate:.2%} of the candidate's requests failed; allowed {blank.margin:.2%}.",
        )


def _moved(change: float) -> str:
    return "rose" if change > 0 else "fell" if change < 0 else "stayed"
