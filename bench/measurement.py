"""Measurements: raw values with unit, scenario and environment, never only a summary.

Owns the table of known metrics. Computes nothing beyond the number of values: statistics are computed on reading, in
`bench.stats`, so that a better statistic can be applied to an old record.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import decode

Direction = Literal["lower", "higher"]
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A quantity that can be compared: its unit, and which direction is better.

    `summary` says how one slot's raw values become the one number that enters the paired statistics.
    """

    name: str
    unit: str
    direction: Direction
    summary: str

    @property
    def sign(self) -> int:
        """+1 where lower is better, -1 where higher is: a log ratio times it is positive when things got worse."""
        return 1 if self.direction == "lower" else -1


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="quality", unit="score", direction="higher", summary="mean of the per-sample scores"),
        Metric(name="p50", unit="s", direction="lower", summary="median latency from the intended send time"),
        Metric(name="p99", unit="s", direction="lower", summary="99th percentile of that latency"),
        Metric(name="throughput", unit="1/s", direction="higher", summary="inferences per second at saturation"),
        Metric(name="peak_memory", unit="B", direction="lower", summary="highest memory of the server's process tree"),
        Metric(
            name="startup", unit="s", direction="lower", summary="time from starting the server to the first answer"
        ),
        Metric(name="load_time", unit="s", direction="lower", summary="time from the load request to a ready model"),
        Metric(
            name="first_inference", unit="s", direction="lower", summary="latency of the first request after loading"
        ),
        Metric(name="queue", unit="s", direction="lower", summary="mean wait in the server's queue per request"),
        Metric(
            name="compute", unit="s", direction="lower", summary="mean input, inference and output time per request"
        ),
        Metric(name="steady_memory", unit="B", direction="lower", summary="memory of the process tree after all work"),
        Metric(name="leak", unit="B/1k", direction="lower", summary="continuing growth of memory per 1,000 requests"),
        Metric(name="device_memory", unit="B", direction="lower", summary="highest GPU memory above an empty server's"),
        Metric(name="energy", unit="J", direction="lower", summary="GPU energy per inference, net of idling"),
        Metric(name="file_size", unit="B", direction="lower", summary="bytes of the artifact's files"),
        Metric(name="cost", unit="$/1M", direction="lower", summary="price of a million inferences at saturation"),
        Metric(name="errors", unit="share", direction="lower", summary="fraction of requests that failed"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Raw values of one metric on one artifact.

    `subject` is the artifact's digest, `scenario` says how the values were taken (``"poisson 120/s for 9 s"``),
    `environment` is the machine (`optimize.environment`), `at` an ISO-8601 UTC time.
    """

    subject: str
    metric: Metric
    scenario: str
    values: tuple[float, ...]
    environment: Mapping[str, Any]
    at: str

    def to_json(self) -> dict[str, Any]:
        """The measurement as JSON values (`from_json` reads it back)."""
        return {"schema": SCHEMA} | asdict(self) | {"values": list(self.values), "environment": dict(self.environment)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Measurement":
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: another schema, or fields that are missing or unknown.
        """
        if not isinstance(value, Mapping) or value.get("schema") != SCHEMA:
            value = value if isinstance(value, Mapping) else {}
            raise IntegrityError(
                f"the measurement has schema {value.get('schema')!r}; this version reads {SCHEMA}",
                next_step="use the version of seatrial that wrote it, or measure again",
            )
        found = decode(cls, {key: item for key, item in value.items() if key != "schema"}, where="")
        check_machine(found.environment)
        return found


def check_machine(environment: Mapping[str, Any]) -> None:
    """Check what is read of a machine's description (`optimize.environment`), as far as it is there.

    Raises:
        IntegrityError: a key holds something else.
    """
    decode(_Machine, {key: environment[key] for key in _KNOWN & environment.keys()}, where="")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """Typed fields that are read from an environment."""

    python: str = ""
    system: str = ""
    architecture: str = ""
    cpu: str = ""
    cpu_flags: tuple[str, ...] = ()
    cores: int = 0
    gpus: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""


_KNOWN = frozenset(each.name for each in fields(_Machine))
