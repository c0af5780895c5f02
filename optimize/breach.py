"""A broken rule, whatever it was broken by: a graph, a configuration, a repository, manifests, a running server.

Only the value: each room has its own rules, and `tables.breach_table` shows several to people.
"""

from dataclasses import dataclass
from typing import Literal

from .record import Record

Severity = Literal["error", "warning", "high", "medium", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach(Record, keys={"found": "seen"}):
    """One broken rule: its name, where, what was found there, why that matters (empty: evident), and the fix.

    A checklist of rules about risks has the severities high, medium and low; other rules are errors or warnings.
    """

    rule: str
    severity: Severity = "error"
    where: str
    found: str
    why: str = ""
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.where}: {self.found}; fix: {self.fix}"
