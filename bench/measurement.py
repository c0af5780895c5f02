"""Measurements: raw values with unit, scenario and environment, never only a summary.

Computes nothing beyond the number of values: statistics are computed on reading, in `bench.stats`, so that a better
statistic can be applied to an old record. Which metrics there are is in `bench.metrics`.
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
