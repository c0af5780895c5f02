"""Gathers floor 1's verbs (`bench.verbs`) into the command."""

import typer

from .verbs import baseline, capacity, gate, ledger, load, measure, quality, report, trend, trials

PANEL = "bench: measure and judge"


def add_verbs(app: typer.Typer, hosting: gate.Hosting) -> None:
    """Put floor 1's verbs into the command; `hosting` makes the fresh servers that a gate needs."""
    app.command(rich_help_panel=PANEL)(measure.measure)
    app.command(rich_help_panel=PANEL)(load.load)
    app.command(rich_help_panel=PANEL)(capacity.capacity)
    gate.add_verbs(app, PANEL, hosting)
    trials.add_verbs(app, PANEL, hosting)
    app.command(rich_help_panel=PANEL)(quality.quality)
    app.command(rich_help_panel=PANEL)(ledger.ledger)
    app.command(rich_help_panel=PANEL)(report.report)
    app.add_typer(baseline.app, name="baseline", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(trend.trend)
