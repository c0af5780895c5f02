"""The load verb: a running server under one of MLPerf's scenarios."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from optimize import environment as machine
from optimize.cli import Json, emit, err, out, progress, store
from optimize.errors import ConfigError

from ..load.wire import Wire
from ..runs import run_folder
from ..targets import Endpoint, endpoint_of

if TYPE_CHECKING:  # numpy, which is not worth a tenth of a second to whoever only asks for help
    from optimize.samples import Array

    from ..load.payload import Payload
    from ..load.run import LoadRun, Saturation
    from ..load.show import Reading
    from ..scenarios import Scenario

Name = Literal["server", "single-stream", "multi-stream", "offline"]

Url = Annotated[str, typer.Argument(help="A KServe v2 server: http://127.0.0.1:8000, or .../v2/models/NAME.")]
ScenarioName = Annotated[
    Name, typer.Option(help="Poisson arrivals; one user; one user with 8 samples a query; all samples back to back.")
]
Rate = Annotated[float, typer.Option(help="Mean arrivals per second (server).")]
Seconds = Annotated[float, typer.Option(help="How long to send.")]
Model = Annotated[str | None, typer.Option(help="The model; may be left out where only one is ready.")]
Version = Annotated[str, typer.Option(help="Its version; default: the highest that is ready.")]
Protocol = Annotated[
    Wire, typer.Option(help="Binary tensors over HTTP; JSON; gRPC; shared memory with a server on this machine.")
]
GrpcUrl = Annotated[str | None, typer.Option(help="The server's gRPC side, as grpc://127.0.0.1:8001.")]
Seed = Annotated[int, typer.Option(help="Seed of the arrival times.")]
Batch = Annotated[int | None, typer.Option(help="Samples per request; default 1, multi-stream and offline 8.")]
Concurrency = Annotated[int, typer.Option(help="Requests always in flight (offline).")]
Samples = Annotated[Path | None, typer.Option(help="Send this recipe's evaluation samples instead of random numbers.")]
Workers = Annotated[int, typer.Option(help="Locust workers; from 2 on under a Locust master (server).")]
Ui = Annotated[bool, typer.Option("--ui", help="Show the run in Locust's web UI, which stays 5 minutes after it.")]
Slo = Annotated[float | None, typer.Option(help="Latency that 99 % of the requests must keep, in milliseconds.")]
AbortP99 = Annotated[float, typer.Option(help="Stop early when p99 exceeds so many times --slo.")]
AbortErrors = Annotated[float, typer.Option(help="Stop early when a larger share of the requests fails.")]
Own = Annotated[bool, typer.Option("--i-own-this-target", help="Allow a target that is not this machine.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the raw latencies.")]

_UI = "Locust's web UI: {} (stays 5 minutes after the run; Ctrl-C closes it and prints the figures)"


def load(
    url: Url,
    scenario: ScenarioName = "server",
    rate: Rate = 50.0,
    seconds: Seconds = 10.0,
    model: Model = None,
    version: Version = "",
    protocol: Protocol = "http",
    grpc_url: GrpcUrl = None,
    seed: Seed = 1,
    batch: Batch = None,
    concurrency: Concurrency = 16,
    recipe: Samples = None,
    workers: Workers = 1,
    ui: Ui = False,
    slo: Slo = None,
    abort_p99: AbortP99 = 5.0,
    abort_errors: AbortErrors = 0.01,
    own_target: Own = False,
    out_folder: Out = None,
    json_: Json = False,
) -> None:
    """Put a server under load and print latencies from the intended send, with the scenario's own figure.

    The same seed sends at the same times. Says INVALID (exit 4) where the client could not keep its schedule (such a
    latency would be the client's), where the run was stopped early or a worker was lost. Exit 1 where the server
    refused requests.
    """
    from ..load.guard import AbortRules
    from ..load.payload import Payload
    from ..load.show import read

    chosen = _scenario(scenario, rate, batch, concurrency, workers, ui)
    endpoint = endpoint_of(url, model, version)
    endpoint = replace(endpoint, grpc_url=grpc_url or endpoint.grpc_url)
    payload = Payload.build(endpoint, _inputs(endpoint, recipe, chosen, seed), chosen.batch, protocol=protocol)
    folder = out_folder or run_folder("load")
    rules = AbortRules(errors=abort_errors, p99=None if slo is None else abort_p99 * slo / 1e3)
    with progress() as report:

        def told(share: float) -> None:
            report("load", share, f"{chosen.name} for {seconds:g} s")

        common = {"folder": folder, "own_target": own_target, "abort": rules, "progress": told}
        run = _run(endpoint, chosen, payload, seconds, seed, workers=workers, ui=ui, common=common)
    _print(read(chosen, run), folder, json_)


def _run(
    endpoint: Endpoint,
    scenario: "Scenario",
    payload: "Payload",
    seconds: float,
    seed: int,
    *,
    workers: int,
    ui: bool,
    common: dict[str, Any],
) -> "LoadRun | Saturation":
    from ..load import on_locust
    from ..scenarios import Server
    from ..schedule import poisson

    def announce(address: str) -> None:
        err.print(_UI.format(address), soft_wrap=True)

    if not isinstance(scenario, Server):
        return on_locust.saturate(endpoint, payload, seconds=seconds, concurrency=scenario.concurrency, **common)
    schedule = poisson(scenario.rate, seconds, seed)
    return on_locust.load(endpoint, schedule, payload, workers=workers, ui=announce if ui else None, **common)


def _print(reading: "Reading", folder: Path, as_json: bool) -> None:
    """The figures, and the exit code that they deserve."""
    from ..load.show import table

    if as_json:
        emit(reading.to_json() | {"run": str(folder)})
    else:
        out.print(table(reading.lines))
        for breach in reading.breaches:
            out.print(f"[bold red]INVALID[/] {breach}")
        out.print(f"run: {folder}", soft_wrap=True)
    raise typer.Exit(4 if reading.breaches else 1 if reading.failed else 0)


def _scenario(name: Name, rate: float, batch: int | None, concurrency: int, workers: int, ui: bool) -> "Scenario":
    from ..scenarios import MultiStream, Offline, Server, SingleStream

    if name != "server" and (workers > 1 or ui):
        raise ConfigError(
            f"{name} is a closed loop, which one process runs without a web UI",
            next_step="leave --workers and --ui out, or choose --scenario server",
        )
    match name:
        case "single-stream":
            return SingleStream(batch=batch or 1)
        case "multi-stream":
            return MultiStream(batch=batch or 8)
        case "offline":
            return Offline(batch=batch or 8, concurrency=concurrency)
        case "server":
            return Server(rate=rate, batch=batch or 1)


def _inputs(endpoint: Endpoint, recipe: Path | None, scenario: "Scenario", seed: int) -> "dict[str, Array]":
    """The recipe's evaluation samples, or random ones."""
    from optimize.data import Data
    from optimize.recipe import load_recipe

    from ..load.inputs import random_inputs

    if recipe is None:
        return random_inputs(endpoint, 64 * scenario.batch, seed)
    return dict(Data(load_recipe(recipe), store(), machine.environment()).samples("evaluation").inputs)
