"""The ledger verb: the small losses that were accepted, and how much room they leave."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from optimize import environment as machine
from optimize.cli import Json, emit, out


def ledger(
    name: Annotated[str, typer.Argument(help="The ledger's name, as the budget's \\[ledger] table gives it.")],
    budget: Annotated[
        Path | None, typer.Option(help="Show how full it is by this budget's \\[ledger] table (TOML).")
    ] = None,
    json_: Json = False,
) -> None:
    """Show what ledger NAME holds: regressions that were real, within their margin, and released all the same.

    A line is written when a release is registered whose gate passed although a metric is really worse. A gate whose
    candidate would bring the sum of a window over its limit fails.
    """
    from ..budget import load_budget
    from ..gating import show
    from ..records import accepted

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
