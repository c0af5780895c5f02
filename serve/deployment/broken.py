"""One broken rule, wherever it was found: in a deployment, between it and an artifact, in a configuration on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigRuleError

Severity = Literal["error", "warning"]
Effect = Literal["refused", "loads", "hangs", "ends"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """One broken rule: the field as the file spells it, what is wrong, how to fix it.

    An error is what Triton refuses, or what gives wrong answers or no service; a warning is what it accepts and then
    does otherwise than the file lets one believe, or at a price. `effect` is
    what Triton does with the model for an error: refuses it, loads it all the same, lets its load hang, or ends, with
    every other model.
    """

    field: str
    rule: str
    mend: str
    severity: Severity = "error"
    effect: Effect = "refused"

    def error(self) -> ConfigRuleError:
        """The rule as an error to raise."""
        return ConfigRuleError(f"{self.field}: {self.rule}", where=self.field, next_step=self.mend)


def outside(field: str, value: float, low: int, high: int, mend: str) -> Iterator[Broken]:
    """Broken where a number is not from `low` to `high`."""
    if not low <= value <= high:
        yield Broken(field=field, rule=f"must be between {low} and {high}, got {value}", mend=mend)


def repeated(field: str, values: Sequence[object], mend: str = "list each once") -> Iterator[Broken]:
    """Broken where a value stands twice."""
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        yield Broken(field=field, rule=f"{', '.join(twice)} is listed twice", mend=mend)
