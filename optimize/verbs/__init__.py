"""Floor 0's verbs: thin skins over the library functions of the same names."""

import typer

from ..terminal import PANEL
from .artifacts import history, show
from .building import build, plan, reproduce
from .comparing import coverage, parity
from .drafting import init
from .searching import search
from .verifying import verify


def add_verbs(app: typer.Typer) -> None:
    """Add the verbs of this floor to the command."""
    for verb in (init, build, search, plan, show, history, verify, reproduce, parity, coverage):
        app.command(rich_help_panel=PANEL)(verb)
