"""The ledger verb: the small losses that were accepted, and how much room they leave."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.terminal import Json, emit, out

from ..budget import load_budget
from ..records import accepted, show


def ledger(
    name: Annotated[str, typer.Argument(help="The ledger's name, as the budget's \\[ledger] table gives it.")],
    budget: Annotated[
        Path | None, typer.Option(help="Show its level against this budget's \\[ledger] table (TOML).")
    ] = None,
    json_: Json = False,
) -> None:
    """Show ledger NAME: significant regressions that were released because they were within their margin.

    A line is written when a release is registered whose gate passed although a metric is significantly worse. A gate
    fails if its candidate would raise the sum of a window above the limit.
    """
    found = accepted.entries(machine.home(), name)
    limits = load_budget(budget).ledger if budget is not None else None
    held = accepted.held(machine.home(), limits)
    if json_:
        emit({"name": name, "entries": [asdict(entry) for entry in found], "held": held})
        return
    if found:
        out.print(show.ledger_table(found))
    else:
        out.print(f"ledger {name} is empty", highlight=False)
    for line in show.ledger_lines(held, limits) if limits else ():
        out.print(line, highlight=False)
