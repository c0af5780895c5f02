"""Floor 2's verbs, one file per topic; `add_verbs` gathers them into the command."""

import typer

from . import operating, placing
from .placing import hosting as hosting

PANEL = "serve: place, run, ship"


def add_verbs(app: typer.Typer) -> None:
    """Put floor 2's verbs into the command."""
    app.command(rich_help_panel=PANEL)(placing.register)
    app.command(rich_help_panel=PANEL)(placing.place)
    app.command(rich_help_panel=PANEL)(operating.up)
    app.command(rich_help_panel=PANEL)(operating.down)
    app.command(rich_help_panel=PANEL)(operating.switch)
    app.command(rich_help_panel=PANEL)(operating.supervise)
    app.command(rich_help_panel=PANEL)(placing.ship)
