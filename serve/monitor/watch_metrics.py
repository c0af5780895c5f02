"""Metrics of a watch, as Prometheus reads them: how things stand, from the state on disk, and how the looks went."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .alarms import Watched
from .service import TIERS

Failure = Literal["input", "damaged", "disk", "busy", "fault"]
FAILURES: tuple[Failure, ...] = ("input", "damaged", "disk", "busy", "fault")
"""Why a look failed: plan or tables, a stored record, a write refused, another process at work, a fault of ours."""
ALARM, SILENT = "seatrial_monitor_alarm", "seatrial_monitor_silent"
LAST_LOOK, EVERY = "seatrial_monitor_last_look_timestamp_seconds", "seatrial_monitor_every_seconds"
FAILING, ERRORS = "seatrial_monitor_failing", "seatrial_monitor_look_errors"
EVIDENCE, WINDOWS, ROWS = "seatrial_monitor_evidence_ratio", "seatrial_monitor_windows", "seatrial_monitor_rows"
UNTIL, LATE, ALARMS = (
    "seatrial_monitor_judged_until_timestamp_seconds",
    "seatrial_monitor_late_intervals",
    "seatrial_monitor_alarms",
)
LOOKS, STEPS = "seatrial_monitor_looks", "seatrial_monitor_clock_steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a watch stands: the state of the traffic, and of the looks of this process.

    `last_look` is when a look was last complete, its result on disk (the start before the first). `evidence` is that of
    the last window over the threshold. `failing` says why the last look failed.
    """

    last_look: float
    watched: Watched | None = None
    evidence: float | None = None
    looks: int = 0
    errors: Mapping[Failure, int] = field(default_factory=dict)
    failing: Failure | None = None
    steps: int = 0

    def failed(self, why: Failure) -> "Standing":
        """Return it after a look that failed."""
        return replace(self, failing=why, errors={**self.errors, why: self.errors.get(why, 0) + 1})


class WatchMetrics(Collector):
    """What a registry reads: the standing that was set last, of one model that is looked at `every` so many seconds."""

    def __init__(self, model: str, *, every: float, standing: Standing) -> None:
        self._model, self._every = model, every
        self.standing = standing  # replaced as a whole, so that a reader in another thread sees one of them

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        now = self.standing
        watched = now.watched or Watched()
        tier = watched.alarm.tier if watched.alarm is not None else None
        yield self._gauge(
            ALARM, "1 for the tier of the alarm that holds.", {str(each): each == tier for each in TIERS}, "tier"
        )
        yield self._gauge(SILENT, "1 while usual traffic is missing.", watched.silent_since is not None)
        if now.evidence is not None:
            yield self._gauge(EVIDENCE, "Evidence of the last window over the threshold.", now.evidence)
        if watched.until is not None:
            yield self._gauge(UNTIL, "The end of the traffic that was judged.", watched.until)
        yield self._gauge(LAST_LOOK, "When a look was last complete: the heartbeat.", now.last_look)
        yield self._gauge(EVERY, "Seconds between two looks.", self._every)
        failing = {str(each): each == now.failing for each in FAILURES}
        yield self._gauge(FAILING, "1 for the reason why the last look failed.", failing, "kind")
        yield self._counter(WINDOWS, "Windows that were judged.", watched.windows)
        yield self._counter(ROWS, "Rows of traffic that were seen.", watched.rows)
        yield self._counter(LATE, "Intervals that came after they had been passed over.", watched.late)
        yield self._counter(ALARMS, "Alarms that began.", len(watched.alarms))
        yield self._counter(LOOKS, "Looks that were complete.", now.looks)
        errors = {str(each): now.errors.get(each, 0) for each in FAILURES}
        yield self._counter(ERRORS, "Looks that failed, by reason.", errors, "kind")
        yield self._counter(STEPS, "Steps of the clock, back and ahead.", now.steps)

    def _gauge(self, name: str, help_: str, value: float | Mapping[str, float], label: str = "") -> Metric:
        made = GaugeMetricFamily(name, help_, labels=["model", label] if label else ["model"])
        for key, each in value.items() if isinstance(value, Mapping) else [("", value)]:
            made.add_metric([self._model, key] if label else [self._model], float(each))
        return made

    def _counter(self, name: str, help_: str, value: float | Mapping[str, float], label: str = "") -> Metric:
        made = CounterMetricFamily(name, help_, labels=["model", label] if label else ["model"])
        for key, each in value.items() if isinstance(value, Mapping) else [("", value)]:
            made.add_metric([self._model, key] if label else [self._model], float(each))
        return made
