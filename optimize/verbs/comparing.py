"""The verbs `parity` and `coverage`: how far an artifact is from another one, and which arithmetic it runs in."""

from pathlib import Path
from typing import Annotated

import typer

from ..building import comparison as comparing
from ..building import coverage_cache as covering
from ..building.built import choice_of
from ..errors import ConfigError
from ..recipe.recipe import load_recipe
from ..recipe.recorded import recorded_recipe
from ..report import show_parity as showing
from ..report.show import coverage_json, islands_table, precision_table
from ..sessions.choice import EngineChoice
from ..terminal import Device, Engine, Json, Ref, emit, err, named, out, progress, store


def parity(
    reference: Ref,
    candidate: Annotated[
        str,
        typer.Argument(help="Artifact to compare with REFERENCE. Default: compare REFERENCE with its parent."),
    ] = "",
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose calibration samples to use. Default: the candidate's own.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Beyond tolerance, find the first node whose output disagrees (ONNX).")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison report (HTML) to this file.")] = None,
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    """Compare CANDIDATE's outputs with REFERENCE's on real samples, over batch sizes and dynamic lengths.

    Where REFERENCE is CANDIDATE's parent, the stage's own tolerances apply. Otherwise tolerances follow from number
    formats and depth; a pruned or distilled artifact computes another function than its source and exceeds them.
    Batch sizes are 1, 2, the expected one and the greatest. Exit code 1: beyond tolerance. Both run in --engine where
    it opens their format.
    """
    kept = store()
    other = named(candidate or reference)
    if not candidate and other.made_by.parent is None:
        raise ConfigError(f"{other.short} is a source and has no parent", next_step="name a second artifact")
    one = named(reference if candidate else str(other.made_by.parent))
    told = load_recipe(recipe) if recipe is not None else recorded_recipe(other, kept)
    with progress() as report:
        choice = choice_of(told.measured_in(engine, device))
        found = comparing.hold(one, other, told, kept, bisect=bisect, choice=choice, progress=report)
    if html is not None:
        showing.write_html(html, found)
        err.print(f"page: {html}", highlight=False)
    if json_:
        emit(found)
    else:
        out.print(showing.parity_table(found))
        sources = " and ".join(sorted({point.source for point in found.points}))
        out.print(f"contract: {found.basis}; sizes of: {sources}", highlight=False, markup=False)
        out.print(f"run in: {showing.engines_of(found)}", highlight=False, markup=False)
        if found.left_out:
            out.print(f"left out, the reference cannot run it: {showing.left_out(found.left_out)}", highlight=False)
        out.print(showing.verdict(found), highlight=False, markup=False)
        for line in showing.lines(found.divergence) if found.divergence is not None else ():
            out.print(line, highlight=False, markup=False)
    if found.broken:
        raise typer.Exit(1)


def coverage(
    ref: Ref,
    length: Annotated[
        int | None, typer.Option(min=1, help="Length of dynamic axes after the batch. Default: that of the samples.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe whose samples to run. Default: the one that made REF.")
    ] = None,
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    """Show the share of MACs that REF runs in each precision, and unfused islands with the reason.

    Sizes are those of the calibration samples. An ONNX file is counted as ONNX Runtime runs it on this machine, an
    engine as TensorRT's inspector reported it when it was built (experimental). A file in fp8 is counted as it is
    written, whose products TensorRT runs in fp8 and a CPU in float.
    """
    kept = store()
    artifact = named(ref)
    told = load_recipe(recipe) if recipe is not None else None
    choice = EngineChoice(engine=engine, device=device)
    found = covering.measured(artifact, kept, length=length, recipe=told, choice=choice)
    if json_:
        emit(coverage_json(found) | {"digest": artifact.digest})
        return
    out.print(precision_table(found))
    if found.islands:
        out.print(islands_table(found))
    out.print(f"{artifact.short}: {found.macs / 1e6:.2f} million MACs per sample, {len(found.islands)} islands")
    at = ", ".join(f"{name} {list(shape)}" for name, shape in found.shapes.items())
    on = f" ({found.device})" if found.device else ""
    out.print(f"run by {found.where}{on}{f' on {at}' if at else ''}", markup=False, highlight=False)
    if found.asked:
        out.print(f"{', '.join(found.asked)}: as the file asks for it; this engine computes it in float")
    if found.unseen:
        out.print(f"not counted: {', '.join(found.unseen)}", markup=False)
