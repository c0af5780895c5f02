"""What a load verb sends: a recipe's evaluation samples, or seeded random numbers where there is no recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize import environment as machine
from optimize.cli import store

if TYPE_CHECKING:
    from optimize.samples import Array

    from ..targets import Endpoint

Recipe = Annotated[Path | None, typer.Option(help="Send this recipe's evaluation samples instead of random numbers.")]
OwnTarget = Annotated[bool, typer.Option("--i-own-this-target", help="Allow a target that is not this machine.")]


def inputs_for(endpoint: "Endpoint", recipe: Path | None, *, batch: int, seed: int) -> "dict[str, Array]":
    """Inputs for the endpoint, with enough distinct samples for 64 requests where they are random."""
    from optimize.data import Data
    from optimize.recipe import load_recipe

    from ..load.inputs import random_inputs

    if recipe is None:
        return random_inputs(endpoint, 64 * batch, seed)
    return dict(Data(load_recipe(recipe), store(), machine.environment()).samples("evaluation").inputs)
