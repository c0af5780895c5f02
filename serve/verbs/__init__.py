"""Floor 2's verbs, one file per topic; `add_verbs` gathers them into the command."""

from pathlib import Path

import typer

from seatrial.optimize.inspection import Inspection
from seatrial.optimize.verbs.verifying import inspectors

from . import audit, edge, kubernetes, linting, operating, placing, rollout, shadow, tuning
from .placing import hosting as hosting

PANEL = "serve: place, run, ship"


def add_verbs(app: typer.Typer) -> None:
    """Add the verbs of floor 2 to the command, and its releases to the checks of `verify`."""
    inspectors["releases"] = _releases
    app.command(rich_help_panel=PANEL)(placing.register)
    app.command(rich_help_panel=PANEL)(placing.place)
    app.command(rich_help_panel=PANEL)(linting.lint)
    app.command(rich_help_panel=PANEL)(operating.up)
    app.command(rich_help_panel=PANEL)(operating.down)
    app.command(rich_help_panel=PANEL)(operating.switch)
    app.command(rich_help_panel=PANEL)(operating.supervise)
    app.command(rich_help_panel=PANEL)(placing.ship)
    app.command(rich_help_panel=PANEL)(tuning.tune)
    app.command(rich_help_panel=PANEL)(kubernetes.render)
    app.command(rich_help_panel=PANEL)(audit.audit)
    app.add_typer(shadow.app, name="shadow", rich_help_panel=PANEL)
    app.add_typer(edge.edge, name="edge", rich_help_panel=PANEL)
    app.add_typer(edge.routes, name="routes", rich_help_panel=PANEL)
    app.add_typer(rollout.app, name="rollout", rich_help_panel=PANEL)


def _releases(home: Path, repair: bool) -> Inspection:
    from ..release.registry_check import inspect_releases

    return inspect_releases(home, repair)
