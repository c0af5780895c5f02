"""A metric of a slot, a task metric and a check of another package."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from seatrial.bench.checks import Check, Plot
from seatrial.bench.gating.pairs import SlotRecord
from seatrial.bench.metrics import SlotMetric
from seatrial.bench.quality.evidence import Evidence
from seatrial.bench.quality.metrics import MetricCheck, TaskMetric, predicted
from seatrial.bench.quality.quantities import Array, Scores


class P90(SlotMetric):
    """Latency that nine of ten requests keep."""

    name: ClassVar[str] = "p90"
    unit: ClassVar[str] = "s"
    summary: ClassVar[str] = "90th percentile of latency from the intended send time"
    advice: ClassVar[str] = "ask the package that counts to ninety"

    def value(self, slot: SlotRecord, usd_hour: float) -> float | None:
        return float(np.quantile(slot.latency, 0.9)) if slot.latency.size else None


class Balanced(TaskMetric):
    """Accuracy in which every class counts the same."""

    name: ClassVar[str] = "balanced"

    def scores(self, check: MetricCheck, output: Array, evidence: Evidence) -> Array:
        known = evidence.classes()
        counts = np.bincount(known)
        weight = len(known) / (np.count_nonzero(counts) * counts[known])
        return np.asarray((predicted(output) == known) * weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginCheck(Check):
    """Distance between the two highest outputs: where it shrinks, decisions are about to flip."""

    kind: str = "margin"
    output: str | None = None

    @property
    def label(self) -> str:
        return "margin"

    def quantity(self, evidence: Evidence, rule: str) -> Scores:
        base, candidate = evidence.outputs(self.output)
        before = None if base is None else margins(base)
        return Scores(name=self.label, base=before, candidate=margins(candidate))

    def note(self, evidence: Evidence) -> str:
        return " Seen from outside."

    def plot(self, evidence: Evidence) -> Plot:
        return Plot(title="Margins", lead="How sure it is.", data=[evidence.labels.size], draw=drawn)


def margins(output: Array) -> Array:
    """Return the distance of the two highest of each row; [n, classes] gives [n]."""
    best = np.sort(output, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def drawn(data: Sequence[Any]) -> str:
    """Return the picture."""
    return f"<p>{data[0]} margins</p>"
