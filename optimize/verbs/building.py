"""The verbs `build`, `plan` and `reproduce`: a recipe made, foreseen, and made again."""

from pathlib import Path
from typing import Annotated

import typer

from ..building import build as building
from ..building import figures as figuring
from ..building import reproduce as reproducing
from ..building.gain import BATCH
from ..recipe.recipe import load_recipe
from ..report import show as showing
from ..report.show import links_table
from ..terminal import Device, Engine, Json, Recipe, Ref, emit, err, out, progress, store


def build(
    recipe: Recipe,
    report_: Annotated[
        Path | None, typer.Option("--report", help="Write the build report (HTML) to this file.")
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Also measure peak memory, some seconds per step.")] = False,
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    """Build RECIPE: run each stage once, store its artifact by content and compare it with its parent.

    A second run does no work and says so. A changed stage runs again, and so do the stages after it. The last artifact
    is tagged with the recipe's name, the float reference with NAME.fp32. --engine and --device stand in for the
    recipe's, in which figures and comparisons are taken. Not proven on real hardware yet: the stage
    compile (TensorRT) and training with device = "cuda" (experimental).
    """
    loaded = load_recipe(recipe).measured_in(engine, device)
    with progress() as report:
        made = building.build(loaded, store(), report)
        rows = figuring.figures(made, store(), report, memory=memory)
    broken = figuring.below_floor(made, rows)
    if report_ is not None:
        from ..building import coverage_cache as covering
        from ..report import build_page as reporting

        told = covering.coverages({step.label: step.artifact for step in made.all}, store())
        search_ = store().recall("searches", loaded.digest)
        reporting.write_html(report_, made, rows, search=search_, coverages=told)
        err.print(f"report: {report_}", highlight=False)
    if json_:
        emit(showing.build_json(made, rows) | {"below_floor": broken})
    else:
        out.print(showing.build_table(made, rows))
        for line in (*showing.gain_lines(made, rows), *showing.unmeasured_lines(made)):
            out.print(line, markup=False, highlight=False)
        first, last = made.reference.artifact, made.artifact
        if not made.worked:
            out.print("nothing to do: every step is in the store")
        batch = next((row.parent.batch for row in rows if row.parent is not None), BATCH)
        out.print(
            f"times: one thread, batch {batch}, interleaved pairs, 95 % interval; quality: {rows[0].samples} samples"
        )
        for line in showing.engine_lines(rows):
            out.print(line, markup=False, highlight=False)
        if memory:
            out.print(showing.memory_line(rows), highlight=False)
        if last.planned:
            out.print(
                "planned: TensorRT is not installed here, so nothing was compiled; plan.json holds the build plan"
            )
        same = "the source as it is" if last.digest == first.digest else f"the fp32 reference is {first.short}"
        out.print(f"{loaded.name} is {last.short}; {same}")
    if broken:
        err.print(broken, style="red")
        raise typer.Exit(1)


def plan(recipe: Recipe, json_: Json = False) -> None:
    """Check RECIPE without building it: print its stages, their formats and which steps are cached."""
    planned = building.plan(load_recipe(recipe), store())
    if json_:
        rows = [
            {
                "label": row.label,
                "takes": row.takes,
                "makes": row.makes,
                "digest": row.artifact and row.artifact.digest,
                "refused": row.refused,
            }
            for row in planned
        ]
        emit({"steps": rows})
    else:
        out.print(showing.plan_table(planned))
        out.print(
            f"{recipe}: formats fit, {sum(row.artifact is not None for row in planned)} of {len(planned)} steps cached"
        )


def reproduce(
    ref: Ref,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe to use instead of the one kept with the artifact.")
    ] = None,
    json_: Json = False,
) -> None:
    """Rebuild an artifact from its provenance in an empty store, and compare digests link by link.

    Exit code 0: equal. 1: it differs, and the first difference is named. 3: could not tell.
    """
    kept = store()
    with progress() as report:
        found = reproducing.reproduce(kept.get(ref), kept, recipe, report)
    if json_:
        emit(found)
    else:
        if found.links:
            out.print(links_table(found.links))
        out.print(f"{found.outcome}: {found.reason}", markup=False, highlight=False)
    raise typer.Exit(reproducing.EXIT_CODES[found.outcome])
