"""Metrics of a slot: what a budget can limit, one class each, and the registry of all.

A metric says its unit and direction, which rules make sense for it, and how a slot's raw values become the one number
that enters the paired statistics. One of another package is an entry point of the group ``seatrial.metrics``. The
metrics of this project are `gating.slot_metrics`; nothing is imported before a budget names it.
"""

from typing import Any, ClassVar

from seatrial.optimize.registry import Registry, instance_of

from .measurement import Direction, Metric
from .verdict import Finding

GROUP = "seatrial.metrics"
_OURS = "seatrial.bench.gating.slot_metrics"


class SlotMetric:
    """Base of all metrics of a slot.

    `rules` may be used in a limit; a metric near 0 leaves out ``max_regression``, since a ratio of two of them says
    nothing. `resolution` is the step in which its values move, in its unit. `least_requests` is what a slot must send.
    `assumed_noise` is the standard deviation of a pair's log ratio on a machine without trials (None: not forecast).
    `advice` is the next step after a failure.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Direction] = "lower"
    summary: ClassVar[str]
    rules: ClassVar[tuple[str, ...]] = ("max_regression", "at_least", "at_most")
    resolution: ClassVar[float] = 0.0
    least_requests: ClassVar[int] = 0
    assumed_noise: ClassVar[float | None] = None
    advice: ClassVar[str] = "see the pairs on the page"

    def value(self, slot: Any, usd_hour: float) -> float | None:
        """Return the number that a slot (`gating.pairs.SlotRecord`) contributes; None where it has none, never 0."""
        return None

    def finding(self, run: Any, budget: Any, limit: Any, blank: Finding) -> Finding | None:
        """Return the finding of one rule of `limit` where the usual statistics on `value` do not fit; else None."""
        return None

    @property
    def described(self) -> Metric:
        """The metric as it is stored with measurements."""
        return Metric(name=self.name, unit=self.unit, direction=self.direction, summary=self.summary)

    @property
    def sign(self) -> int:
        """As `Metric.sign`."""
        return self.described.sign


METRICS: Registry[SlotMetric] = Registry(
    "metric",
    GROUP,
    {
        "quality": f"{_OURS}:Quality",
        "p50": f"{_OURS}:P50",
        "p99": f"{_OURS}:P99",
        "throughput": f"{_OURS}:Throughput",
        "peak_memory": f"{_OURS}:PeakMemory",
        "startup": f"{_OURS}:Startup",
        "load_time": f"{_OURS}:LoadTime",
        "first_inference": f"{_OURS}:FirstInference",
        "queue": f"{_OURS}:Queue",
        "compute": f"{_OURS}:Compute",
        "steady_memory": f"{_OURS}:SteadyMemory",
        "leak": f"{_OURS}:Leak",
        "device_memory": f"{_OURS}:DeviceMemory",
        "energy": f"{_OURS}:Energy",
        "file_size": f"{_OURS}:FileSize",
        "cost": f"{_OURS}:Cost",
        "errors": f"{_OURS}:Errors",
    },
    instance_of(SlotMetric),
)


def metric_of(name: str) -> Metric:
    """Return the metric of that name as it is stored.

    Raises:
        ConfigError: no such metric.
    """
    return METRICS.get(name).described
