"""The verb `search`: what a recipe marks or lists, tried for the best trade-offs."""

from typing import Annotated

import typer

from ..recipe.recipe import load_recipe
from ..report import show as showing
from ..search import explore as exploring
from ..search.found import Found
from ..terminal import Device, Engine, Json, Recipe, emit, out, progress, store


def search(
    recipe: Recipe,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Fields: number of finished trials to reach, over all workers."),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="Fields: storage of the study, an Optuna URL or journal:FILE. Workers share it.")
    ] = "",
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    r"""Search what RECIPE lists under \[search] for the best trade-offs; each trial is an ordinary cached build.

    Candidates (methods and engines, as seatrial init drafts them) are all built and timed against fp32 in ONNX Runtime;
    the fastest within the floors wins, and fp32 where none is faster. Fields are tried up to --trials: run it again to
    continue, or elsewhere on the same --storage to share the work. The winner and every point of the Pareto front are
    written beside RECIPE as ordinary recipes. --engine and --device stand in for the recipe's.
    """
    loaded = load_recipe(recipe).measured_in(engine, device)
    with progress() as report:
        found = exploring.explore(loaded, store(), storage, trials, report)
    if json_:
        emit(found)
    elif found.winner is not None:
        out.print(showing.candidates_table(found))
        for line in showing.winner_lines(found, loaded):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        _print(found, str(recipe.parent))
    if not found.front:
        raise typer.Exit(1)


def _print(found: Found, folder: str) -> None:
    out.print(showing.front_table(found))
    failed = sum(bool(candidate.failure) for candidate in found.candidates)
    below = sum(candidate.violation > 0 for candidate in found.candidates)
    out.print(
        f"{len(found.candidates)} trials: {len(found.front)} on the front, {below} below the quality floor, "
        f"{failed} failed; recipes written to {folder}"
    )
    for line in sorted({str(point.ran_on) for point in found.front if point.ran_on is not None}):
        out.print(f"measured in {line}", markup=False, highlight=False)
