"""An alert and a recorded series as values: the rule, the cases that prove it, and what its runbook says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..service import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Series that are fed to Prometheus, one value a minute, and what the rule makes of them after `minutes`.

    `fires` says whether the alert fires, with `labels` beside those of the rule; of a recorded series `value` is what
    it is then, None where it is not there.
    """

    name: str
    series: Mapping[str, str]
    minutes: int = 15
    fires: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert of a model: when it fires, how urgent it is, and what its runbook says.

    `expr` is PromQL, `wait` the seconds for which it must hold. `threshold` and `meaning` are sentences, `checks` steps
    with a command each (text, command), `rollback` says that a deployment may be the cause.
    """

    name: str
    expr: str
    tier: Tier
    summary: str
    threshold: str
    meaning: str
    checks: tuple[tuple[str, str], ...]
    cases: tuple[Case, ...]
    wait: int = 0
    rollback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A series that is computed at each evaluation, named as ``level:metric:operations``."""

    name: str
    expr: str
    cases: tuple[Case, ...]


def quoted(text: str) -> str:
    """Return a label's value as PromQL has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def linear(start: float, step: float, minutes: int) -> str:
    """Return a counter in promtool's notation."""
    return f"{start:g}+{step:.12g}x{minutes}"


def constant(value: float, minutes: int) -> str:
    """Return a gauge in promtool's notation."""
    return f"{value:g}x{minutes}"
