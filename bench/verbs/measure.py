"""The measure verb: one artifact in process, or one endpoint under load."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.building.built import choice_of
from seatrial.optimize.draft.finished import tried_on
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.choice import EngineChoice
from seatrial.optimize.terminal import Device, Engine, Json, emit, led, named, out, progress, store

from ..load.inputs import distinct_inputs, random_inputs
from ..measuring import in_process, measured
from ..measuring import measure as measuring
from ..measuring.measure import Progress
from ..measuring.measured import Summary
from ..runs import run_folder
from ..schedule import poisson
from ..targets import Endpoint, endpoint_of

_HOST_AND_PORT = re.compile(r"(?!sha256:)(\[[\da-fA-F:]+\]|[\w.-]+):\d+(/.*)?")


def measure(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="REF|FILE|URL",
            help="An artifact (tag or digest), an ONNX file, or http://127.0.0.1:8000/v2/models/NAME.",
        ),
    ],
    recipe: Annotated[
        Path | None, typer.Option(help="Measure on this recipe's evaluation samples instead of random numbers.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds per scenario.")] = 5.0,
    batch: Annotated[
        int, typer.Option(min=0, help="Samples per batch. 0: batches of 32 in process, one per request to a server.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="In process: threads of the engine, one core each.")] = 1,
    engine: Engine = "",
    device: Device = "",
    rate: Annotated[float, typer.Option(help="For a server: mean arrivals per second (Poisson).")] = 50.0,
    seed: Annotated[int, typer.Option(help="Seed of random samples and arrival times.")] = 1,
    metrics_url: Annotated[
        str | None, typer.Option(help="For a server: URL of its Prometheus counters, http://127.0.0.1:8002/metrics.")
    ] = None,
    own_target: Annotated[bool, typer.Option("--i-own-this-target", help="Allow a server on another machine.")] = False,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for the raw values.")] = None,
    json_: Json = False,
) -> None:
    """Measure latency, throughput and memory of an artifact in a fresh pinned process, or of a running server.

    REF runs MLPerf's SingleStream and Offline without a server; URL uses an open-loop load. Every raw value is stored
    in the run's folder with the environment; p99 has an upper bound with 99 % confidence. Memory,
    clocks and energy of a GPU are read through NVML (experimental). Exit codes: 1 requests
    failed, 4 the load broke a validity rule.
    """
    folder = out_folder or run_folder("measure")
    plan = in_process.Plan(seconds=seconds, batch=batch or 32, threads=threads, engine=engine, device=device)
    with progress() as report:

        def tell(share: float) -> None:
            report("measure", share, subject)

        if is_url(subject):
            EngineChoice(engine=engine, device=device).refuse_for_server(subject)
            given = replace(endpoint_of(subject), metrics_url=metrics_url)
            summary = _endpoint(given, recipe, (rate, seconds, seed), batch or 1, own_target, folder, tell)
        else:
            summary = _artifact(subject, recipe, seed, plan, folder, tell)
    if json_:
        emit(summary.to_json() | {"run": str(folder)})
    else:
        out.print(measured.table(summary))
        for note in summary.notes:
            out.print(note, style="dim", highlight=False, markup=False)
        for breach in summary.breaches:
            out.print(led("bold red", "INVALID", f" {breach}"))
        out.print(f"run: {folder}", soft_wrap=True)
    raise typer.Exit(summary.exit_code)


def is_url(subject: str) -> bool:
    """Return whether the text names a server rather than an artifact: a scheme, or a host with a port."""
    return "://" in subject or _HOST_AND_PORT.fullmatch(subject) is not None


def _artifact(
    ref: str,
    recipe: Path | None,
    seed: int,
    plan: in_process.Plan,
    folder: Path,
    tell: Progress,
) -> Summary:
    kept = store()
    artifact = named(ref)
    measuring.check_inputs(artifact)
    if recipe is not None:
        samples, own = _evaluation(recipe), choice_of(load_recipe(recipe)).of(artifact.format)
        plan = replace(plan, engine=own.engine, device=own.device) if not plan.engine and not plan.device else plan
    else:
        shapes = Endpoint(url="", model=artifact.name, version="", inputs=artifact.inputs, outputs=artifact.outputs)
        samples = tried_on(artifact, 2 * plan.batch, seed) or random_inputs(shapes, 2 * plan.batch, seed)
    return measuring.measure_artifact(artifact, kept, samples, plan, folder=folder, progress=tell)


def _endpoint(
    endpoint: Endpoint,
    recipe: Path | None,
    arrivals: tuple[float, float, int],
    batch: int,
    own_target: bool,
    folder: Path,
    tell: Progress,
) -> Summary:
    samples = _evaluation(recipe) if recipe is not None else distinct_inputs(endpoint, batch, arrivals[2])
    return measuring.measure_endpoint(
        endpoint, poisson(*arrivals), samples, folder=folder, batch=batch, own_target=own_target, progress=tell
    )


def _evaluation(recipe: Path) -> dict[str, Array]:
    """Return the recipe's evaluation samples by input, [n, ...]."""
    return dict(Data(load_recipe(recipe), store(), machine.environment()).samples("evaluation").inputs)
