"""The verb `init`: a first recipe for a model that somebody brings."""

from pathlib import Path
from typing import Annotated

import typer

from ..draft import draft as drafting
from ..draft.model import Input
from ..terminal import Json, emit, led, out


def init(
    model: Annotated[str, typer.Argument(help="MODEL.onnx, package.module:factory, or file.py:factory.")],
    into: Annotated[Path | None, typer.Option(help="Folder for the recipe. Default: one named for the model.")] = None,
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="Shape of an input per sample, NAME=SHAPE[:DTYPE].")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a first recipe for MODEL, and a sample loader to replace, into a folder; nothing is overwritten.

    The recipe builds at once, on random samples, and lists what seatrial search compares: the methods and engines that
    this model and machine can run. Load your own data in samples.py before you rely on any figure.
    """
    stem = Path(model).stem if model.endswith(".onnx") else model.rpartition(":")[2]
    folder = into or Path(drafting.slug(stem))
    inputs = [Input.parse(text) for text in input_ or ()]
    recipe, samples, kind = drafting.draft(model, folder, inputs=inputs)
    deployment = recipe.with_name(drafting.DEPLOYMENT)
    if json_:
        emit({"recipe": str(recipe), "samples": str(samples), "deployment": str(deployment), "family": kind})
    else:
        out.print(f"wrote {recipe} for a {kind}, {samples} and {deployment}", highlight=False)
        out.print(led("yellow", f"{samples} makes random numbers", f": put your data in, then seatrial build {recipe}"))
        out.print(f"for the fastest method and engine on this machine: seatrial search {recipe}", highlight=False)
