"""A broken rule, whatever it was broken by: a graph, a configuration, a repository, manifests, a running server.

The value and how people are shown several of it. Checks nothing: each room has its own rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .record import Record
from .tables import table
from .visible import visible

if TYPE_CHECKING:
    from rich.table import Table

Severity = Literal["error", "warning", "high", "medium", "low"]
_COLOURS = {"error": "red", "warning": "yellow", "high": "bold red", "medium": "yellow", "low": "dim"}


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


def breach_table(breaches: Iterable[Breach]) -> "Table":
    """Return broken rules as a table for a terminal: severity, rule, what was found and where, why, and the fix."""
    from rich.text import Text

    head = ("severity", "rule", "found", "fix")
    rows = (
        (
            (each.severity, _COLOURS[each.severity]),
            each.rule,
            Text(visible(each.found)).append(visible(f"\n{each.where}"), "dim"),
            f"{each.why}.\n→ {each.fix}" if each.why else each.fix,
        )
        for each in breaches
    )
    return table(head, rows, left=head, look="boxed", lines=True)
