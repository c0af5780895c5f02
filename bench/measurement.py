"""Measurements: raw values with unit, scenario and environment, never only a summary.

Computes nothing beyond the number of values: statistics are computed on reading, in `bench.stats`, so that a better
statistic can be applied to an old record. Which metrics there are is in `bench.metrics`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from seatrial.optimize.reading import decode
from seatrial.optimize.record import Record

Direction = Literal["lower", "higher"]


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
class Measurement(Record, schema=1, what="the measurement", next_step="restore it from a copy, or measure again"):
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

    def check(self) -> None:
        """Check what is read of the environment."""
        check_machine(self.environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable(Record, sparse=("unavailable",)):
    """Stands where nothing was measured: the reason, or none where nothing was asked. Never a 0."""

    unavailable: str = ""


NOTHING = Unavailable()
"""Nothing was asked, so nothing was measured."""


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
