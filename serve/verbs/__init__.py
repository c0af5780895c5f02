"""Floor 2's verbs, one file per topic; `add_verbs` gathers them into the command."""

import typer

from . import placing, rollout
from .placing import hosting as hosting

PANEL = "serve: place, run, ship"


def add_verbs(app: typer.Typer) -> None:
    """Put floor 2's verbs into the command."""
    app.command(rich_help_panel=PANEL)(placing.register)
    app.command(rich_help_panel=PANEL)(placing.place)
    app.command(rich_help_panel=PANEL)(placing.up)
    app.command(rich_help_panel=PANEL)(placing.down)
    app.command(rich_help_panel=PANEL)(placing.ship)
    app.add_typer(rollout.app, name="rollout", rich_help_panel=PANEL)
