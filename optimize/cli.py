"""Floor 0's verbs: thin skins over the library functions of the same names."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from . import environment as machine
from .store import Store
from .terminal import Terminal, drop_output, led

PANEL = "optimize: make artifacts"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML), for instance optimize/recipes/scenes-int8.toml.")]
Ref = Annotated[str, typer.Argument(help="An artifact: a tag, a digest, or the first digits of one.")]

WIDE = 120  # where there is no terminal to ask, a table may be this wide
out = Terminal(width=None if sys.stdout.isatty() else WIDE)
err = Terminal(stderr=True)


def store() -> Store:
    """The store of this SEATRIAL_HOME."""
    return Store(machine.home() / "store")


def emit(value: Any) -> None:
    """Print one JSON document on stdout."""
    echo(json.dumps(value, indent=1, default=str, allow_nan=False))


def echo(text: str) -> None:
    """Print exactly that text on stdout; where its reader is gone, go on in silence."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        drop_output()


@contextmanager
def progress() -> Iterator[Callable[[str, float, str], None]]:
    """A bar per step on stderr, nothing where that is not a terminal; what libraries print meanwhile goes there too.

    Stdout is for the result alone: a calibrator that talks would break the JSON document.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars, redirect_stdout(sys.stderr):
        tasks: dict[str, Any] = {}

        def report(label: str, share: float, text: str) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=1.0, text="")
            bars.update(tasks[label], completed=share, text=text)

        yield report


def add_verbs(app: typer.Typer) -> None:
    """Put floor 0's verbs into the command."""
    from .verify_verb import verify

    for verb in (init, build, search, plan, show, history, verify, reproduce, parity, coverage):
        app.command(rich_help_panel=PANEL)(verb)


def init(
    model: Annotated[str, typer.Argument(help="MODEL.onnx, package.module:factory, or file.py:factory.")],
    into: Annotated[
        Path | None, typer.Option(help="Folder for the recipe; by default one named for the model.")
    ] = None,
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="NAME=SHAPE[:DTYPE] per sample, where it cannot be guessed.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a first recipe for MODEL, and a sample loader to replace, into a folder; nothing is overwritten.

    What it writes builds at once, on random samples: load your own data in samples.py before you believe a figure.
    """
    from . import draft as drafting

    stem = Path(model).stem if model.endswith(".onnx") else model.rpartition(":")[2]
    folder = into or Path(drafting.slug(stem))
    inputs = [drafting.Input.parse(text) for text in input_ or ()]
    recipe, samples, kind = drafting.draft(model, folder, inputs=inputs)
    if json_:
        emit({"recipe": str(recipe), "samples": str(samples), "family": kind})
    else:
        out.print(f"wrote {recipe} for a {kind} and {samples}", highlight=False)
        out.print(led("yellow", f"{samples} makes random numbers", f": put your data in, then seatrial build {recipe}"))


def build(
    recipe: Recipe,
    report_: Annotated[Path | None, typer.Option("--report", help="Write the build's page (HTML) there.")] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure peak memory of each step too: some seconds more per step.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make what RECIPE says: each stage once, kept by content, compared with its parent.

    A second run does no work and says so; a changed stage redoes itself and what follows. The last artifact is tagged
    with the recipe's name, the float reference with NAME.fp32.
    """
    from . import build as building
    from . import figures as figuring
    from . import show as showing
    from .gain import BATCH
    from .recipe import load_recipe

    loaded = load_recipe(recipe)
    with progress() as report:
        made = building.build(loaded, store(), report)
        rows = figuring.figures(made, store(), report, memory=memory)
    broken = figuring.below_floor(made, rows)
    if report_ is not None:
        from . import covered as covering
        from . import report as reporting

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
        if memory:
            out.print(showing.memory_line(rows), highlight=False)
        if last.planned:
            out.print("planned: TensorRT is not installed here, so nothing was compiled; plan.json says how")
        out.print(f"{loaded.name} is {last.short}; the fp32 reference is {first.short}")
    if broken:
        err.print(broken, style="red")
        raise typer.Exit(1)


def search(
    recipe: Recipe,
    trials: Annotated[int, typer.Option(min=1, help="Ended trials that the study shall hold, all workers' together.")],
    storage: Annotated[
        str, typer.Option(help="Where the study is kept: a URL that Optuna takes, or journal:FILE. Workers share it.")
    ] = "",
    json_: Json = False,
) -> None:
    """Search what RECIPE marks under \\[search] for the best trade-offs, each tried by an ordinary cached build.

    Run it again to go on, or at the same time elsewhere on the same --storage to share the work. Every point of the
    Pareto front is written beside RECIPE as an ordinary recipe.
    """
    from . import explore as exploring
    from . import show as showing
    from .recipe import load_recipe

    loaded = load_recipe(recipe)
    with progress() as report:
        found = exploring.explore(loaded, store(), storage or exploring.default_storage(loaded), trials, report)
    if json_:
        emit(found.to_json())
    else:
        out.print(showing.front_table(found))
        failed = sum(bool(candidate.failure) for candidate in found.candidates)
        below = sum(candidate.violation > 0 for candidate in found.candidates)
        out.print(
            f"{len(found.candidates)} trials: {len(found.front)} on the front, {below} below the quality floor, "
            f"{failed} failed; recipes written to {recipe.parent}"
        )
    if not found.front:
        raise typer.Exit(1)


def plan(recipe: Recipe, json_: Json = False) -> None:
    """Check RECIPE and print its stages, their formats and what is cached, without doing work."""
    from . import build as building
    from . import show as showing
    from .recipe import load_recipe

    planned = building.plan(load_recipe(recipe), store())
    if json_:
        rows = [
            {"label": row.label, "takes": row.takes, "makes": row.makes, "digest": row.artifact and row.artifact.digest}
            for row in planned
        ]
        emit({"steps": rows})
    else:
        out.print(showing.plan_table(planned))
        out.print(
            f"{recipe}: formats fit, {sum(row.artifact is not None for row in planned)} of {len(planned)} steps cached"
        )


def show(ref: Ref, json_: Json = False) -> None:
    """Show an artifact: files, tensors, hardware contract, provenance."""
    artifact = store().get(ref)
    if json_:
        emit(artifact.to_json() | {"digest": artifact.digest})
        return
    out.print(led("bold", artifact.name, f" {artifact.format} {artifact.digest}"))
    for spec in (*artifact.inputs, *artifact.outputs):
        side = "in " if spec in artifact.inputs else "out"
        out.print(f"  {side} {spec.name}: {spec.dtype} {list(spec.shape)}", highlight=False, markup=False)
    for file in artifact.files:
        out.print(f"  file {file.path}: {file.size} bytes, {file.digest}", highlight=False)
    out.print(f"  requires: {dict(artifact.requires) or 'nothing'}", highlight=False)
    made = artifact.made_by
    out.print(f"  made by {made.stage} at {made.at}, seed {made.seed}, recipe {made.recipe[:19]}", highlight=False)


def history(ref: Ref, json_: Json = False) -> None:
    """Show how an artifact came to be: the chain of stages back to its source."""
    from .show import history_table

    chain = store().history(store().get(ref))
    if json_:
        emit({"chain": [artifact.to_json() | {"digest": artifact.digest} for artifact in chain]})
    else:
        out.print(history_table(chain))


def reproduce(
    ref: Ref,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe, where the one kept with the artifact is not to be used.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make an artifact again from its provenance in an empty store, and compare digests link by link.

    Exit code 0: equal. 1: it differs, and the first difference is named. 3: could not tell.
    """
    from dataclasses import asdict

    from . import reproduce as reproducing
    from .show import links_table

    kept = store()
    with progress() as report:
        found = reproducing.reproduce(kept.get(ref), kept, recipe, report)
    if json_:
        emit(asdict(found))
    else:
        if found.links:
            out.print(links_table(found.links))
        out.print(f"{found.outcome}: {found.reason}", markup=False, highlight=False)
    raise typer.Exit(reproducing.EXIT_CODES[found.outcome])


def parity(
    reference: Ref,
    candidate: Annotated[
        str,
        typer.Argument(help="The artifact to hold against REFERENCE; else REFERENCE against its parent."),
    ] = "",
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe whose calibration samples to compare on; else the candidate's own.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Beyond tolerance, look for the first node whose output disagrees (ONNX).")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write the comparison's page there.")] = None,
    json_: Json = False,
) -> None:
    """Measure how far CANDIDATE's answers are from REFERENCE's on real samples, over batch sizes and dynamic lengths.

    The contract is the stage's own where REFERENCE is CANDIDATE's parent, else what number formats and depth explain:
    an artifact that was pruned or distilled is another function than its source. Sizes are 1, 2, what is expected and
    the greatest. Exit code 1: beyond tolerance.
    """
    from . import comparison as comparing
    from . import show_parity as showing
    from .errors import ConfigError
    from .recipe import load_recipe
    from .reproduce import recorded_recipe

    kept = store()
    other = kept.get(candidate or reference)
    if not candidate and other.made_by.parent is None:
        raise ConfigError(f"{other.short} is a source and has no parent", next_step="name a second artifact")
    one = kept.get(reference if candidate else str(other.made_by.parent))
    told = load_recipe(recipe) if recipe is not None else recorded_recipe(other, kept)
    with progress() as report:
        found = comparing.hold(one, other, told, kept, bisect=bisect, progress=report)
    if html is not None:
        showing.write_html(html, found)
        err.print(f"page: {html}", highlight=False)
    if json_:
        emit(found.to_json())
    else:
        out.print(showing.parity_table(found))
        sources = " and ".join(sorted({point.source for point in found.points}))
        out.print(f"contract: {found.basis}; sizes of: {sources}", highlight=False, markup=False)
        if found.left_out:
            out.print(f"left out, the reference refuses it: {showing.left_out(found.left_out)}", highlight=False)
        out.print(showing.verdict(found), highlight=False, markup=False)
        for line in showing.lines(found.divergence) if found.divergence is not None else ():
            out.print(line, highlight=False, markup=False)
    if found.broken:
        raise typer.Exit(1)


def coverage(
    ref: Ref,
    length: Annotated[int, typer.Option(min=1, help="Length of dynamic axes after the batch.")] = 8,
    json_: Json = False,
) -> None:
    """Show which arithmetic REF really runs in: share of MACs per precision, and unfused islands with the reason.

    Of an ONNX file what ONNX Runtime runs on this machine, of an engine what TensorRT's inspector said at its building.
    """
    from . import covered as covering
    from .show import coverage_json, islands_table, precision_table

    kept = store()
    artifact = kept.get(ref)
    found = covering.measured(artifact, kept, length=length)
    if json_:
        emit(coverage_json(found) | {"digest": artifact.digest})
        return
    out.print(precision_table(found))
    if found.islands:
        out.print(islands_table(found))
    out.print(f"{artifact.short}: {found.macs / 1e6:.2f} million MACs per sample, {len(found.islands)} islands")
    out.print(f"run by {found.where}", markup=False, highlight=False)
    if found.unseen:
        out.print(f"not counted: {', '.join(found.unseen)}", markup=False)
