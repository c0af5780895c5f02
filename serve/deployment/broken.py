"""One broken rule, wherever it was found: in a deployment, between it and an artifact, in a configuration on disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from seatrial.optimize.breach import Breach
from seatrial.optimize.record import Record

from ..errors import ConfigRuleError

Severity = Literal["error", "warning"]
Effect = Literal["refused", "loads", "hangs", "ends"]
_EFFECTS = {"hangs": "Its load hangs", "ends": "It ends the server"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Record):
    """One broken rule: the field as the file spells it, what is wrong, how to fix it.

    `file` is relative to the repository where the rule was found in one, and `line` 0 where none is known. An error is
    what Triton refuses, or what gives wrong answers or no service; a warning is what it accepts and then does otherwise
    than the file lets one believe, or at a price. `effect` is what Triton does with the model: for an error, it refuses
    it, loads it all the same, lets its load hang, or ends with every other model.
    """

    severity: Severity = "error"
    file: str = ""
    field: str = ""
    rule: str
    fix: str
    line: int = 0
    effect: Effect = "refused"

    def __post_init__(self) -> None:
        if self.severity == "warning":
            object.__setattr__(self, "effect", "loads")

    def at(self, file: str) -> "Broken":
        """Return the rule as broken in that file."""
        return replace(self, file=file)

    @property
    def breach(self) -> Breach:
        """The rule as people are shown it, beside those of other rooms."""
        where = f"{self.file}:{self.line}" if self.line else self.file
        return Breach(
            rule=self.field,
            severity=self.severity,
            where=where,
            found=self.rule,
            why=_EFFECTS.get(self.effect, ""),
            fix=self.fix,
        )

    def error(self) -> ConfigRuleError:
        """The rule as an error to raise."""
        return ConfigRuleError(f"{self.field}: {self.rule}", where=self.field, next_step=self.fix)


def outside(
    field: str, value: float, low: int, high: int, fix: str, *, high_is: str = "", note: str = ""
) -> Iterator[Broken]:
    """Broken where a number is not from `low` to `high`, which is another field's value where `high_is` names one."""
    if not low <= value <= high:
        most = f"{high_is} = {high}" if high_is else high
        yield Broken(field=field, rule=f"must be between {low} and {most}, got {value}{note}", fix=fix)


def repeated(field: str, values: Sequence[object], fix: str = "list each once") -> Iterator[Broken]:
    """Broken where a value stands twice."""
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        yield Broken(field=field, rule=f"{', '.join(twice)} is listed twice", fix=fix)
