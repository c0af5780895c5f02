"""Samples for a load verb: a recipe's evaluation samples, or seeded random numbers without a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.terminal import store

from ..load.inputs import distinct_inputs
from ..load.wire import Wire
from ..targets import Endpoint

Recipe = Annotated[Path | None, typer.Option(help="Send this recipe's evaluation samples instead of random numbers.")]
OwnTarget = Annotated[bool, typer.Option("--i-own-this-target", help="Allow a target on another machine.")]


def inputs_for(
    endpoint: Endpoint, recipe: Path | None, *, batch: int, seed: int, protocol: Wire = "http"
) -> dict[str, Array]:
    """Return the inputs for the endpoint, [samples, ...]: distinct ones for a load's requests where they are random."""
    if recipe is None:
        return distinct_inputs(endpoint, batch, seed, protocol=protocol)
    return dict(Data(load_recipe(recipe), store(), machine.environment()).samples("evaluation").inputs)
