"""The load verb: a running server under one of MLPerf's scenarios."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Array
from seatrial.optimize.terminal import Json, emit, err, led, out, progress

from ..load import folder as kept
from ..load.guard import AbortRules
from ..load.load_setup import ClientSetup
from ..load.payload import Payload
from ..load.run import LoadRun, Saturation
from ..load.show import Reading, read, table
from ..load.wire import Wire
from ..runs import run_folder
from ..scenarios import MultiStream, Offline, Scenario, Server, SingleStream
from ..schedule import Schedule
from ..server_statistics import Counted, lines, window
from ..targets import Endpoint, endpoint_of
from . import samples, schedules

Name = Literal["server", "single-stream", "multi-stream", "offline"]

Url = Annotated[str, typer.Argument(help="A KServe v2 server: http://127.0.0.1:8000, or .../v2/models/NAME.")]
ScenarioName = Annotated[
    Name, typer.Option(help="Poisson arrivals; one user; one user with 8 samples per query; all samples back to back.")
]
Model = Annotated[str | None, typer.Option(help="The model; optional if only one is ready.")]
Version = Annotated[str, typer.Option(help="Its version; default: the highest ready one.")]
Protocol = Annotated[
    Wire, typer.Option(help="Binary tensors over HTTP; JSON; gRPC; shared memory with a server on this machine.")
]
GrpcUrl = Annotated[str | None, typer.Option(help="The server's gRPC endpoint, as grpc://127.0.0.1:8001.")]
Seed = Annotated[int, typer.Option(help="Seed of the arrival times.")]
Batch = Annotated[int | None, typer.Option(help="Samples per request; default: 1, multi-stream and offline 8.")]
Concurrency = Annotated[int, typer.Option(help="Requests always in flight (offline).")]
Workers = Annotated[int, typer.Option(help="Locust workers; with 2 or more under a Locust master (server).")]
Ui = Annotated[bool, typer.Option("--ui", help="Show the run in Locust's web UI, which stays up 5 minutes afterwards.")]
Slo = Annotated[float | None, typer.Option(help="Latency limit for 99 % of the requests, in milliseconds.")]
AbortP99 = Annotated[float, typer.Option(help="Stop early when p99 exceeds this multiple of --slo.")]
AbortErrors = Annotated[float, typer.Option(help="Stop early when a larger fraction of the requests fails.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder for the raw latencies.")]

_UI = "Locust's web UI: {} (stays 5 minutes after the run; Ctrl-C closes it and prints the results)"


def load(
    url: Url,
    scenario: ScenarioName = "server",
    rate: schedules.Rate = None,
    seconds: schedules.Seconds = None,
    law: schedules.Laws = None,
    burstiness: schedules.Burstiness = None,
    to_rate: schedules.ToRate = None,
    recorded: schedules.Recorded = None,
    spread: schedules.Spread = None,
    model: Model = None,
    version: Version = "",
    protocol: Protocol = "http",
    grpc_url: GrpcUrl = None,
    seed: Seed = 1,
    batch: Batch = None,
    concurrency: Concurrency = 16,
    recipe: samples.Recipe = None,
    workers: Workers = 1,
    ui: Ui = False,
    slo: Slo = None,
    abort_p99: AbortP99 = 5.0,
    abort_errors: AbortErrors = 0.01,
    own_target: samples.OwnTarget = False,
    out_folder: Out = None,
    json_: Json = False,
) -> None:
    """Put a server under load and print latencies from the intended send time, with the scenario's own metric.

    The same seed gives the same send times. The run is INVALID (exit 4) if the client could not keep its schedule, if
    the run was stopped early, or if a worker was lost. Exit 1 if the server refused requests.
    """
    schedule = schedules.schedule_of(
        law,
        rate=rate,
        seconds=seconds,
        seed=seed,
        burstiness=burstiness,
        to_rate=to_rate,
        recorded=recorded,
        spread=spread,
    )
    chosen = _scenario(scenario, schedule.rate, batch, concurrency, workers, ui)
    endpoint = endpoint_of(url, model, version)
    endpoint = replace(endpoint, grpc_url=grpc_url or endpoint.grpc_url)
    inputs = samples.inputs_for(endpoint, recipe, batch=chosen.batch, seed=seed, protocol=protocol)
    _offer(
        endpoint,
        chosen,
        schedule,
        inputs,
        protocol=protocol,
        workers=workers,
        ui=ui,
        folder=out_folder or run_folder("load"),
        own_target=own_target,
        abort={"errors": abort_errors, "p99": None if slo is None else abort_p99 * slo / 1e3},
        json_=json_,
    )


def _offer(
    endpoint: Endpoint,
    scenario: Scenario,
    schedule: Schedule,
    inputs: dict[str, Array],
    *,
    protocol: Wire,
    workers: int,
    ui: bool,
    folder: Path,
    own_target: bool,
    abort: dict[str, float | None],
    json_: bool,
) -> None:
    """Make the requests from inputs [samples, ...], send them, keep what came of it, and print it."""
    payload = Payload.build(endpoint, inputs, scenario.batch, protocol=protocol)
    rules = AbortRules(**abort)  # type: ignore[arg-type]
    what = f"{scenario.name}, {schedule}" if scenario.name == "server" else scenario.name
    with progress() as report, window(endpoint) as counting:

        def told(share: float) -> None:
            counting.begin()
            report("load", share, what)

        client = ClientSetup(own_target=own_target, abort=rules)
        common = {"folder": folder, "client": client, "progress": told}
        run = _run(endpoint, scenario, payload, schedule, workers=workers, ui=ui, common=common)
    kept.keep(folder, scenario, counting.counted)
    _print(read(scenario, run), counting.counted, folder, json_)


def _run(
    endpoint: Endpoint,
    scenario: Scenario,
    payload: Payload,
    schedule: Schedule,
    *,
    workers: int,
    ui: bool,
    common: dict[str, Any],
) -> LoadRun | Saturation:
    from ..load import on_locust

    def announce(address: str) -> None:
        err.print(_UI.format(address), soft_wrap=True)

    if not isinstance(scenario, Server):
        return on_locust.saturate(
            endpoint, payload, seconds=schedule.seconds, concurrency=scenario.concurrency, **common
        )
    loop, shown = on_locust.OpenLoopSetup(workers=workers), on_locust.WebUi(announce=announce) if ui else None
    return on_locust.load(endpoint, schedule, payload, loop=loop, ui=shown, **common)


def _print(reading: Reading, counted: Counted, folder: Path, as_json: bool) -> None:
    """The figures with what the server counted, and the exit code that they deserve."""
    if as_json:
        emit(reading.to_json() | {"server": counted.to_json(), "run": str(folder)})
    else:
        out.print(table((*reading.lines, *lines(counted))))
        for breach in reading.breaches:
            out.print(led("bold red", "INVALID", f" {breach}"))
        out.print(f"run: {folder}", soft_wrap=True)
    raise typer.Exit(4 if reading.breaches else 1 if reading.failed else 0)


def _scenario(name: Name, rate: float, batch: int | None, concurrency: int, workers: int, ui: bool) -> Scenario:
    if name != "server" and (workers > 1 or ui):
        raise ConfigError(
            f"{name} is a closed loop, which runs in one process without a web UI",
            next_step="omit --workers and --ui, or choose --scenario server",
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
