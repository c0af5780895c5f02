"""Floor 0's verbs: thin skins over the library functions of the same names."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from . import environment as machine
from .store import Store

PANEL = "optimize: make artifacts"
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML), for instance optimize/recipes/scenes-int8.toml.")]
Ref = Annotated[str, typer.Argument(help="An artifact: a tag, a digest, or the first digits of one.")]

WIDE = 120  # where there is no terminal to ask, a table may be this wide
out = Console(width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True)


def store() -> Store:
    """The store of this SEATRIAL_HOME."""
    return Store(machine.home() / "store")


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=1, default=str, allow_nan=False))


@contextmanager
def progress() -> Iterator[Callable[[str, float, str], None]]:
    """A bar per step on stderr; nothing where stderr is not a terminal, but a line when a step is done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def report(label: str, share: float, text: str) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=1.0, text="")
            bars.update(tasks[label], completed=share, text=text)

        yield report


def add_verbs(app: typer.Typer) -> None:
    """Put floor 0's verbs into the command."""
    for verb in (build, plan, show, history, verify, parity, coverage):
        app.command(rich_help_panel=PANEL)(verb)


def build(recipe: Recipe, json_: Json = False) -> None:
    """Make what RECIPE says: each stage once, kept by content, compared with its parent.

    A second run does no work and says so; a changed stage redoes itself and what follows. The last artifact is tagged
    with the recipe's name, the float reference with NAME.fp32.
    """
    from . import build as building
    from . import figures as figuring
    from . import show as showing
    from .recipe import load_recipe

    loaded = load_recipe(recipe)
    with progress() as report:
        made = building.build(loaded, store(), report)
        rows = figuring.figures(made, store(), report)
    broken = figuring.below_floor(made, rows)
    if json_:
        emit(showing.build_json(made, rows) | {"below_floor": broken})
    else:
        out.print(showing.build_table(made, rows))
        first, last = made.reference.artifact, made.artifact
        if not made.worked:
            out.print("nothing to do: every step is in the store")
        batch = next(row.parent.batch for row in rows if row.parent is not None)
        out.print(
            f"times: one thread, batch {batch}, interleaved pairs, 95 % interval; quality: {rows[0].samples} samples"
        )
        out.print(f"{loaded.name} is {last.short}; the fp32 reference is {first.short}")
    if broken:
        err.print(f"[red]{broken}")
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
    out.print(f"[bold]{artifact.name}[/] {artifact.format} {artifact.digest}")
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


def verify(ref: Ref, json_: Json = False) -> None:
    """Check every stored byte of an artifact and of its ancestors against the digests."""
    kept = store()
    chain = kept.history(kept.get(ref))
    for artifact in chain:
        for file in artifact.files:
            kept.path(artifact, file.path)
    if json_:
        emit({"whole": [artifact.digest for artifact in chain]})
    else:
        out.print(f"whole: {chain[0].short} and {len(chain) - 1} ancestors, every byte as its digest says")


def parity(
    reference: Ref,
    candidate: Annotated[str, typer.Argument(help="The artifact to hold against REFERENCE.")],
    recipe: Annotated[Path, typer.Option(help="The recipe whose calibration samples to compare on.")],
    json_: Json = False,
) -> None:
    """Measure how far CANDIDATE's answers are from REFERENCE's on real samples, at batch 1, 2 and 32."""
    from dataclasses import asdict

    from . import parity as comparing
    from .data import Data
    from .recipe import load_recipe
    from .sessions.session import open_session
    from .show import parity_table

    kept = store()
    samples = Data(load_recipe(recipe), kept, machine.environment()).samples("calibration").take(256)
    one, other = (open_session(kept.get(name), kept) for name in (reference, candidate))
    agreements = comparing.compare(one, other, samples, {})
    if json_:
        emit({"agreements": [asdict(row) for row in agreements]})
    else:
        out.print(parity_table(agreements))


def coverage(
    ref: Ref,
    length: Annotated[int, typer.Option(min=1, help="Length of dynamic axes after the batch.")] = 8,
    json_: Json = False,
) -> None:
    """Show which arithmetic REF really runs in on this machine: share of MACs per precision, and unfused islands."""
    from . import coverage as covering
    from .errors import ConfigError
    from .sessions.on_ort_graph import example_inputs, executed
    from .show import coverage_json, islands_table, precision_table
    from .targets import check

    kept = store()
    artifact = kept.get(ref)
    if artifact.format != "onnx":
        raise ConfigError(
            f"{artifact.short} is {artifact.format}, and coverage reads what ONNX Runtime runs",
            next_step="name an onnx artifact; history lists them",
        )
    check(artifact.requires, machine.environment(), artifact.short)
    found = covering.coverage(
        executed(kept.path(artifact, "model.onnx"), example_inputs(artifact.inputs, length=length))
    )
    if json_:
        emit(coverage_json(found) | {"digest": artifact.digest})
        return
    out.print(precision_table(found))
    if found.islands:
        out.print(islands_table(found))
    out.print(f"{artifact.short}: {found.macs / 1e6:.2f} million MACs per sample, {len(found.islands)} islands")
    if found.unseen:
        out.print(f"not counted: {', '.join(found.unseen)}", markup=False)
