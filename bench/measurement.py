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


def spell(value: float, unit: str) -> str:
    """A value for people: ``2.31 ms``, ``312 MiB``, ``410/s``, ``$0.061``, ``0.912``."""
    match unit:
        case "s":
            return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "B":
            for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
                if abs(value) >= size:
                    return f"{value / size:.1f} {name}"
            return f"{value:.0f} B"
        case "B/1k":
            return f"{spell(value, 'B')} per 1,000 requests"
        case "J":
            return f"{value * 1e3:.3g} mJ" if abs(value) < 1 else f"{value:.3g} J"
        case "1/s":
            return f"{value:.0f}/s" if abs(value) >= 100 else f"{value:.3g}/s"
        case "$/1M":
            return f"${value:.3g}"
        case "share":
            return f"{value:.2%}"
    return f"{value:.4f}"


def spell_minutes(seconds: float) -> str:
    """A duration for people: ``40 s``, ``2.5 min``, ``1.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
