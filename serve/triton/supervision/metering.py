"""The supervisor's own metrics: what it found, what it did, and whether it can still look.

`Meter` counts nothing and is the meter of a supervisor without readers; `Metered` counts for Prometheus.
"""

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from .healing import STATES, Watch

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meter:
    """Takes what happened and keeps nothing of it."""

    def event(self, event: str, subject: str) -> None:
        """Count an event."""

    def probed(self, subject: str, state: str, seconds: float) -> None:
        """Count a golden request: what it came to, and the seconds that it took."""

    def stands(self, watches: Mapping[str, Watch]) -> None:
        """Take how things stand."""

    def looked(self) -> None:
        """Note that a look was complete just now."""

    def blind(self, reason: str) -> None:
        """Count a look that could not be made for want of something of our own."""

    def unwritten(self, what: str) -> None:
        """Count a line or file that the disk refused."""


UNMETERED = Meter()


class Metered(Meter):
    """The same, for a registry of ``serve.metrics``."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def named(what: str) -> str:
            return f"seatrial_supervisor_{what}"

        self._events = Counter(named("events"), "Events by kind and subject.", ("event", "subject"), registry=registry)
        self._probes = Counter(
            named("probes"), "Golden requests by outcome.", ("subject", "outcome"), registry=registry
        )
        self._latency = Histogram(
            named("probe_seconds"), "Seconds of a golden request.", ("subject",), buckets=_LATENCIES, registry=registry
        )
        self._states = Gauge(
            named("state"), "1 for the state that each subject is in.", ("subject", "state"), registry=registry
        )
        self._restarts = Gauge(
            named("restarts"), "Total attempts to restore a subject.", ("subject",), registry=registry
        )
        self._attempts = Gauge(
            named("attempts_in_a_row"),
            "Consecutive attempts without a calm period between.",
            ("subject",),
            registry=registry,
        )
        self._blind = Counter(named("cannot_look"), "Checks that failed.", ("reason",), registry=registry)
        self._unwritten = Counter(named("unwritten"), "Writes refused by the disk.", ("what",), registry=registry)
        self._looked, self._known = monotonic(), set[str]()
        Gauge(
            named("seconds_since_complete_look"), "Seconds since the last complete check.", registry=registry
        ).set_function(lambda: monotonic() - self._looked)

    def event(self, event: str, subject: str) -> None:
        """Count an event."""
        self._events.labels(event, subject).inc()

    def probed(self, subject: str, state: str, seconds: float) -> None:
        """Count a golden request and its seconds."""
        self._probes.labels(subject, state).inc()
        self._latency.labels(subject).observe(seconds)

    def stands(self, watches: Mapping[str, Watch]) -> None:
        """Set state and restarts of each subject."""
        for gone in self._known - watches.keys():
            for metric in (self._restarts, self._attempts):
                metric.remove(gone)
            for state in STATES:
                self._states.remove(gone, state)
        self._known = set(watches)
        for name, watch in watches.items():
            for state in STATES:
                self._states.labels(name, state).set(state == watch.state)
            self._restarts.labels(name).set(watch.restarts)
            self._attempts.labels(name).set(len(watch.attempts))

    def looked(self) -> None:
        """Set the time of the last complete look."""
        self._looked = monotonic()

    def blind(self, reason: str) -> None:
        """Count a look that could not be made."""
        self._blind.labels(reason[:80]).inc()

    def unwritten(self, what: str) -> None:
        """Count a refused write."""
        self._unwritten.labels(what).inc()
