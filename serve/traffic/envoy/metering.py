"""The edge's own metrics: requests and refusals by reason, deaths, quarantined bodies, restarts, and Envoy's upkeep.

`EdgeMeter` counts nothing and is the meter of a watch without readers; `MeteredEdge` counts for Prometheus.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .objectives import FAILED, GOOD, LATENCY, REQUESTS, SECONDS, served
from .quarantine import is_cut

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

REASONS = {
    400: "malformed HTTP",
    401: "no key",
    403: "forbidden",
    404: "no such path",
    408: "slow body",
    413: "body too large",
    422: "quarantine",
    429: "rate",
    431: "headers too large",
}
_FLAGS = {
    "UO": "breaker",
    "UF": "server unreachable",
    "UH": "server unreachable",
    "UT": "timeout",
    "DC": "client gone",
    "OM": "memory",
}


def reason(line: Mapping[str, Any]) -> str:
    """Return why no server answered that request, in a few fixed words; empty where one did."""
    if line.get("details") == "via_upstream":
        return ""
    if line.get("refused"):
        return str(line["refused"])
    words = str(line.get("flags", "")).split(",")
    if is_cut(line):
        return "server died"
    for flag, why in _FLAGS.items():
        if flag in words:
            return why
    return REASONS.get(int(line.get("status", 0)), "other")


class EdgeMeter:
    """Takes what happened and keeps nothing of it."""

    def offers(self, models: Iterable[str]) -> None:
        """Take which models there are, before their first request."""

    def request(self, line: Mapping[str, Any]) -> None:
        """Count one line of the access log."""

    def death(self) -> None:
        """Count a death of a server under requests."""

    def quarantined(self, bodies: int) -> None:
        """Take how many bodies are in quarantine."""

    def restarted(self) -> None:
        """Count a start of a killed Envoy."""

    def process(self, pid: int, seconds: float | None) -> None:
        """Take Envoy's process number, and how long its admin interface took to answer (None: not at all)."""


class MeteredEdge(EdgeMeter):
    """The same, for a registry of ``serve.metrics``."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def named(what: str) -> str:
            return f"seatrial_edge_{what}"

        self._answered = Counter(
            named("answered"), "Requests answered by a version.", ("model", "version", "status"), registry=registry
        )
        self._refused = Counter(
            named("refused"), "Requests not answered by any version, by reason.", ("reason",), registry=registry
        )
        self._requests = Counter(
            REQUESTS, "Requests that count for a model's objectives.", ("model", "outcome"), registry=registry
        )
        self._seconds = Histogram(
            LATENCY,
            "Response time of a version in seconds, of good requests.",
            ("model",),
            buckets=SECONDS,
            registry=registry,
        )
        self._moved = Counter(
            named("moved"),
            "Requests kept off a version on trial because their client exceeded its fraction.",
            registry=registry,
        )
        self._deaths = Counter(named("server_deaths"), "Crashes of a server during requests.", registry=registry)
        self._bodies = Gauge(
            named("quarantined_bodies"), "Bodies refused because they crashed a server.", registry=registry
        )
        self._restarts = Counter(named("restarts"), "Restarts of a killed Envoy.", registry=registry)
        self._descriptors = Gauge(named("envoy_open_fds"), "Open file descriptors of Envoy.", registry=registry)
        self._memory = Gauge(named("envoy_resident_memory_bytes"), "Memory of Envoy in bytes.", registry=registry)
        self._probes = Histogram(
            named("probe_seconds"),
            "Response time of Envoy's admin interface in seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
            registry=registry,
        )
        self._unanswered = Counter(named("probes_failed"), "Probes without an answer from Envoy.", registry=registry)

    def offers(self, models: Iterable[str]) -> None:
        """Show each model from the start: a counter that begins with its first failure would hide it from a rate."""
        for model in models:
            self._seconds.labels(model)
            for outcome in (GOOD, FAILED):
                self._requests.labels(model, outcome)

    def request(self, line: Mapping[str, Any]) -> None:
        """Count one line of the access log."""
        if line.get("moved"):
            self._moved.inc()
        if why := reason(line):
            self._refused.labels(why).inc()
        elif "version" in line:
            labels = (str(line.get("model", "")), str(line["version"]), str(line.get("grpc", line.get("status", ""))))
            self._answered.labels(*labels).inc()
        if (found := served(line)) is not None:
            self._requests.labels(found.model, FAILED if found.failed else GOOD).inc()
            if not found.failed:
                self._seconds.labels(found.model).observe(found.seconds)

    def death(self) -> None:
        """Count a death of a server under requests."""
        self._deaths.inc()

    def quarantined(self, bodies: int) -> None:
        """Take how many bodies are in quarantine."""
        self._bodies.set(bodies)

    def restarted(self) -> None:
        """Count a start of a killed Envoy."""
        self._restarts.inc()

    def process(self, pid: int, seconds: float | None) -> None:
        """Take Envoy's process number, and how long its admin interface took to answer (None: not at all)."""
        import psutil

        if seconds is None:
            self._unanswered.inc()
        else:
            self._probes.observe(seconds)
        try:
            process = psutil.Process(pid)
            self._descriptors.set(process.num_fds())
            self._memory.set(process.memory_info().rss)
        except psutil.Error:
            return  # ended meanwhile: the watch brings it back
