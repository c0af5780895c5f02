"""Gathers floor 1's verbs (`bench.verbs`) into the command."""

import typer

from .verbs import capacity, gate, load, report

PANEL = "bench: measure and judge"


def add_verbs(app: typer.Typer, hosting: gate.Hosting) -> None:
    """Put floor 1's verbs into the command; `hosting` makes the fresh servers that a gate needs."""
    app.command(rich_help_panel=PANEL)(load.load)
    app.command(rich_help_panel=PANEL)(capacity.capacity)
    gate.add_verbs(app, PANEL, hosting)
    app.command(rich_help_panel=PANEL)(report.report)
