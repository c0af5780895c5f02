"""The verdict in a terminal: outcome first, reasons, findings as a table, what to do next. Decides nothing."""

from typing import TYPE_CHECKING

from seatrial.optimize.tables import table

from ..outcomes import MEANINGS, STYLES
from ..verdict import Verdict
from .advice import next_steps
from .rows import interval_name, rows, title

if TYPE_CHECKING:
    from rich.console import Console


def print_verdict(verdict: Verdict, console: "Console") -> None:
    """The verdict, its reasons and the findings as a table in the terminal."""
    from rich.text import Text

    console.print(
        Text.assemble(
            (verdict.outcome, STYLES[verdict.outcome]),
            f"  {title(verdict)}  ",
            (f"{verdict.pairs} pairs, {verdict.scope}", "dim"),
        )
    )
    for reason in verdict.reasons or (MEANINGS[verdict.outcome],):
        console.print(Text(f"  {reason}"))
    head = ("", "metric", "base", "candidate", "change", interval_name(verdict), "allowed")
    cells: list[list[str | tuple[str, str]]] = [
        [(row.outcome, STYLES[row.outcome] if row.gating else "dim"), *row.cells] for row in rows(verdict)
    ]
    console.print(table(head, cells, left=head[:2]))
    if verdict.outcome != "PASS":
        for reason in verdict.summary[len(verdict.reasons) :]:
            console.print(Text(f"  {reason}"))
    for note in verdict.notes:
        console.print(Text(f"  note: {note}", "dim"))
    for step in next_steps(verdict):
        console.print(Text(f"  next: {step}"))
