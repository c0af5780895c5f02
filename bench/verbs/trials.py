"""The trials' verbs: `aa` and `drill` try the gate itself on this machine, and keep what they found."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.building.built import check_engines
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.terminal import Json, Ref, emit, err, led, named, out, progress, store

from ..budget import load_budget
from ..gating import show, trials
from ..gating.gate_setup import GateSetup
from ..gating.noise import Trial
from ..records import archive
from ..runs import run_folder
from .gate import Hosting, kept_on_interrupt

Budgeted = Annotated[Path, typer.Option(help="The budget whose design and limits are tested (TOML).")]
Recipe = Annotated[
    Path | None, typer.Option(help="Recipe with samples and metric; default: the one named in the budget.")
]
Deployed = Annotated[Path | None, typer.Option(help="Its deployment (TOML); default: Python backend, batches to 32.")]
Gates = Annotated[int, typer.Option(min=1, help="Number of real gates, run in sequence, each as long as the budget's.")]
Pairs = Annotated[int, typer.Option(min=0, help="Pairs per gate; 0 uses the budget's. More make longer sessions.")]
Resample = Annotated[
    int, typer.Option(min=0, help="Number of pseudo-gates from the recorded slots, judged like real ones.")
]

Engine = Annotated[
    str, typer.Option("--engine", help="Engine that serves REF. Default: the budget's, deployment's or recipe's.")
]


def aa(
    context: typer.Context,
    ref: Ref,
    budget: Budgeted,
    gates: Gates = 1,
    pairs: Pairs = 0,
    resample: Resample = 200,
    recipe: Recipe = None,
    deployment: Deployed = None,
    engine: Engine = "",
    json_: Json = False,
) -> None:
    """Gate REF against itself: every FAIL is a false alarm, and the spread says what can be certified here.

    Runs real gates, makes pseudo-gates of their slots, publishes the rates with exact intervals, and appends all
    that to the archive of this class of machine, from which seatrial gate --plan forecasts. Exit code 1 where real
    gates cry wolf more often than the budget allows, 4 where none was valid.
    """
    _run(
        context.obj["hosting"], ref, budget, 0.0, gates, pairs, resample, recipe, deployment, engine=engine, json_=json_
    )


def drill(
    context: typer.Context,
    ref: Ref,
    budget: Budgeted,
    slow: Annotated[float, typer.Option(min=0.001, help="Slow-down of each execution; 0.10 is 10 %.")],
    gates: Gates = 1,
    pairs: Pairs = 0,
    resample: Resample = 0,
    recipe: Recipe = None,
    deployment: Deployed = None,
    engine: Engine = "",
    json_: Json = False,
) -> None:
    """Gate REF against itself, slowed down by a known share: does this gate notice?

    The slow-down happens inside the server, after each execution. Exit code 1 where a gate passed although the
    slow-down is beyond the budget's margin for p50, 4 where none was valid.
    """
    _run(
        context.obj["hosting"],
        ref,
        budget,
        slow,
        gates,
        pairs,
        resample,
        recipe,
        deployment,
        engine=engine,
        json_=json_,
    )


def _run(
    hosting: Hosting,
    ref: str,
    budget: Path,
    slow: float,
    gates: int,
    pairs: int,
    resample: int,
    recipe: Path | None,
    deployment: Path | None,
    *,
    engine: str,
    json_: bool,
) -> None:
    """Run the common part of both verbs."""
    limits = load_budget(budget)
    loaded = load_recipe(recipe or limits.recipe_path(budget))
    engine = engine or limits.engine
    check_engines(loaded.measured_in(engine))
    counts = {"gates": gates, "pairs": pairs, "resample": resample}
    home, kept, work = machine.home(), store(), machine.home() / "work"
    artifact, folder = named(ref), run_folder("drill" if slow else "aa")
    host, max_batch = hosting(deployment, work, 0.0, engine, loaded.engine)
    with progress() as report, kept_on_interrupt(folder):
        means = GateSetup(
            host=host,
            samples=Data(loaded, kept, machine.environment()).samples("evaluation"),
            metric=metric(loaded),
            folder=folder,
            max_batch=max_batch,
            progress=lambda what, share: report("drill" if slow else "aa", share, what),
        )
        if slow:
            slowed, _ = hosting(deployment, work, slow, engine, loaded.engine)
            trial = trials.drill(artifact, limits, means, slowed=slowed, slow=slow, **counts)
        else:
            trial = trials.aa(artifact, limits, means, **counts)
    archive.append(home, machine.environment(), trial)
    if json_:
        emit(show.trial_json(trial) | {"archive": str(archive.path_of(home, machine.environment()))})
    else:
        _print(trial, archive.path_of(home, machine.environment()), resample=resample)
    if complaint := trials.complaint(trial, limits):
        err.print(led("red", complaint))
    raise typer.Exit(trials.exit_code(trial, limits))


def _print(trial: Trial, path: Path, *, resample: int) -> None:
    """Print how the gates ended, the noise of the machine and where that is kept."""
    out.print(show.trial_table([trial]))
    out.print(show.noise_table(trial))
    if trial.resampled:
        out.print("resampled: pseudo-gates from the same slots; they do not cover other days", highlight=False)
    elif resample:
        out.print(
            "not resampled: too few consecutive usable slots; record a longer session with --pairs", highlight=False
        )
    out.print(f"archive: {path}", soft_wrap=True, highlight=False)
