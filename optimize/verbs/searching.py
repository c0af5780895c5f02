"""The verb `search`: what a recipe marks, tried for the best trade-offs."""

from typing import Annotated

import typer

from ..recipe.recipe import load_recipe
from ..report import show as showing
from ..search import explore as exploring
from ..terminal import Device, Engine, Json, Recipe, emit, out, progress, store


def search(
    recipe: Recipe,
    trials: Annotated[int, typer.Option(min=1, help="Number of finished trials to reach, over all workers.")],
    storage: Annotated[
        str, typer.Option(help="Storage of the study: an Optuna URL or journal:FILE. Workers share it.")
    ] = "",
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    r"""Search the fields under \[search] in RECIPE for the best trade-offs; each trial is an ordinary cached build.

    Run it again to continue, or run it elsewhere on the same --storage to share the work. Every point of the Pareto
    front is written beside RECIPE as an ordinary recipe. --engine and --device stand in for the recipe's.
    """
    loaded = load_recipe(recipe).measured_in(engine, device)
    with progress() as report:
        found = exploring.explore(loaded, store(), storage or exploring.default_storage(loaded), trials, report)
    if json_:
        emit(found)
    else:
        out.print(showing.front_table(found))
        failed = sum(bool(candidate.failure) for candidate in found.candidates)
        below = sum(candidate.violation > 0 for candidate in found.candidates)
        out.print(
            f"{len(found.candidates)} trials: {len(found.front)} on the front, {below} below the quality floor, "
            f"{failed} failed; recipes written to {recipe.parent}"
        )
        for line in sorted({str(point.ran_on) for point in found.front if point.ran_on is not None}):
            out.print(f"measured in {line}", markup=False, highlight=False)
    if not found.front:
        raise typer.Exit(1)
