"""Result of an audit: findings, what was examined, and what could not be.

Values only; looks at nothing itself. A rule has two severities, because an open door matters less where only this
machine's own users can reach it: one for what others can reach, one for loopback.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from seatrial.optimize.breach import Breach
from seatrial.optimize.record import Record

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One item of the checklist: what breaking it means and how to fix it. `private` is its severity on loopback."""

    exposed: Severity
    private: Severity | None = None
    why: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit(Record, schema=1, computed=("passed", "counts")):
    """An audit of `target`: worst findings first. `looked` says what was examined, `unseen` what could not be and why.

    No finding about something unseen is no statement about it.
    """

    target: str
    findings: tuple[Breach, ...]
    looked: tuple[str, ...]
    unseen: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Return whether nothing of high severity was found."""
        return not any(finding.severity == "high" for finding in self.findings)

    @property
    def counts(self) -> dict[Severity, int]:
        """Return the number of findings of each severity."""
        counted = Counter(finding.severity for finding in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}


def ordered(findings: list[Breach]) -> tuple[Breach, ...]:
    """Worst first, then by rule and place; each once."""
    unique = {(each.rule, each.where, each.found): each for each in findings}
    return tuple(sorted(unique.values(), key=lambda each: (SEVERITIES.index(each.severity), each.rule, each.where)))
