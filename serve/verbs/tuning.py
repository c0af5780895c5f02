"""The tune verb: plan batch, delay, instances and threads for a rate, search around the plan, verify, write it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from seatrial.bench.capacity.slo import Slo
from seatrial.bench.runs import run_folder
from seatrial.bench.verbs import samples
from seatrial.optimize import config
from seatrial.optimize import environment as machine
from seatrial.optimize.errors import MissingError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.terminal import Json, emit, led, named, out, progress, store

from ..deployment import Deployment
from ..plan import show, writing
from ..plan.observe import Bench
from ..plan.profile import engine_profiles, warning
from ..plan.run import Planned, TuneRequest, run
from ..plan.setting import Setting
from ..plan.verify import caveats
from ..release.registry import Registry
from ..shipped import shipped
from ..triton.engines import deployed_as_built

Which = Annotated[str, typer.Argument(help="A deployment file, or NAME for serve/deployments/NAME.toml.")]
Rate = Annotated[float, typer.Option(help="Requests per second to plan for, one row each.")]
Objective = Annotated[str, typer.Option("--slo", help='The objective, such as "p99<=30ms".')]
Trials = Annotated[int, typer.Option(help="Most settings to measure; 0 stops at the plan.")]
Pairs = Annotated[int, typer.Option(help="Most measurements of each setting beside the best so far.")]
Seconds = Annotated[float, typer.Option(help="Seconds of load per measurement.")]
VerifySeconds = Annotated[float, typer.Option(help="Seconds of load for the winner at the rate; 0: none.")]
Largest = Annotated[int, typer.Option(help="The largest batch to consider; default: the deployment's.")]
Write = Annotated[bool, typer.Option("--write", help="Write the winner into the deployment file.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run's folder; an interrupted run is continued.")]
Rounds = Annotated[int, typer.Option(help="Number of visits to every layout for the latency curve.")]
Engine = Annotated[str, typer.Option(help="A compiled artifact: warn if its profiles would not accept the batches.")]
ArtifactRef = Annotated[str, typer.Option(help="An artifact of the store; default: the deployment's newest release.")]


def tune(
    deployment: Which,
    rate: Rate,
    slo: Objective,
    trials: Trials = 6,
    pairs: Pairs = 4,
    seconds: Seconds = 5.0,
    verify_seconds: VerifySeconds = 10.0,
    largest: Largest = 0,
    artifact: ArtifactRef = "",
    recipe: samples.Recipe = None,
    rounds: Rounds = 2,
    engine: Engine = "",
    seed: Annotated[int, typer.Option(help="Seed of arrivals and of the search.")] = 1,
    write: Write = False,
    out_folder: Out = None,
    json_: Json = False,
) -> None:
    """Choose batch, delay, instances and threads together, for a rate and an objective, and verify the choice.

    Measures the latency of every batch size on fresh servers, plans with a queue model, and tries settings around the
    plan beside the best so far. It stops when no better setting is credible, and loads the winner at the rate. Exit
    codes: 0 the objective held, 1 it did not or no setting can hold it, 3 nothing was verified and the model is not
    certain, 4 the load was invalid.
    """
    from ..plan.on_optuna import OptunaProposer

    path = _path(deployment)
    chosen = config.load(path, Deployment)
    asked = TuneRequest(
        rate=rate,
        slo=Slo.parse(slo),
        largest=largest or max(chosen.max_batch_size, 1),
        rounds=rounds,
        trials=trials,
        pairs=pairs,
        climb_seconds=seconds,
        verify_seconds=verify_seconds,
        seed=seed,
    )
    bench = _bench(chosen, artifact, recipe, seed)
    profiles = engine_profiles(store().get(engine), store()) if engine else None
    if write:
        writing.edit(path, Setting.of(chosen))  # before anything is measured
    folder, proposing = out_folder or run_folder("tune"), partial(OptunaProposer, seed=seed)
    with progress() as report, _told(folder):
        planned = run(bench, asked, folder=folder, proposing=proposing, progress=report)
    if written := write and planned.exit_code == 0:
        writing.write(path, planned.final.setting)
    missed = warning(planned.sizes, profiles) if profiles is not None else ""
    _print(planned, path, missed, write=write, written=written, json_=json_)
    raise typer.Exit(planned.exit_code)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Add the way to continue to the message of an interruption."""
    try:
        yield
    except KeyboardInterrupt as error:
        told = KeyboardInterrupt()
        told.add_note(f"stopped; --out {folder} continues after the last completed trial")
        raise told from error


def _path(named: str) -> Path:
    path = Path(named)
    if path.suffix == ".toml" or path.exists():
        return path
    known = shipped(Path("serve/deployments") / f"{named}.toml")
    if not known.exists():
        there = ", ".join(sorted(each.stem for each in known.parent.glob("*.toml")))
        raise MissingError(
            f"there is no deployment {named!r}",
            where=str(known.parent),
            next_step=f"name a file, or one of: {there or 'none'}",
        )
    return known


def _bench(deployment: Deployment, ref: str, recipe: Path | None, seed: int) -> Bench:
    digest = ref or Registry(machine.home() / "releases").get(deployment.release).digest
    artifact = named(digest)
    told = load_recipe(recipe) if recipe is not None else None
    return Bench(
        artifact=artifact,
        deployment=deployed_as_built(deployment, artifact, store(), told),
        store=store(),
        inputs=lambda endpoint: samples.inputs_for(endpoint, recipe, batch=16, seed=seed),
        scratch=machine.home() / "work",
    )


def _print(found: Planned, path: Path, missed: str, *, write: bool, written: bool, json_: bool) -> None:
    if json_:
        emit(found.to_json() | {"written": str(path) if written else None, "profile_warning": missed})
        return
    out.print(show.curve_table(found))
    if found.tuned:
        out.print(show.trials_table(found.tuned))
    out.print(show.plan_table(found.final, found.verified))
    doubts = caveats(found.final, found.verified) if found.verified else ()
    for note in (*found.final.notes, *doubts, *([missed] if missed else [])):
        out.print(led("yellow", "note", f" {note}"))
    for breach in found.verified.breaches if found.verified else ():
        out.print(led("red", "spoiled", f" {breach}"))
    if written:
        out.print(f"wrote {path}", soft_wrap=True)
    elif write:
        rest = f": the objective was not shown to hold; {path} was not changed"
        out.print(led("yellow", "not written", rest), soft_wrap=True)
    out.print(f"run: {found.folder}", soft_wrap=True)
