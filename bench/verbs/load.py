"""The load verb: an open-loop load against a running server."""

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli import Json, emit, out, progress

from ..runs import run_folder
from . import samples, schedules


def load(
    url: Annotated[str, typer.Argument(help="A KServe v2 server: http://127.0.0.1:8000, or .../v2/models/NAME.")],
    rate: schedules.Rate = None,
    seconds: schedules.Seconds = None,
    law: schedules.Laws = schedules.Law.POISSON,
    burstiness: schedules.Burstiness = None,
    to_rate: schedules.ToRate = None,
    recorded: schedules.Recorded = None,
    model: Annotated[str | None, typer.Option(help="The model; may be left out where only one is ready.")] = None,
    version: Annotated[str, typer.Option(help="Its version; default: the highest that is ready.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the arrival times.")] = 1,
    batch: Annotated[int, typer.Option(help="Samples per request.")] = 1,
    recipe: samples.Recipe = None,
    workers: Annotated[int, typer.Option(help="Locust processes.")] = 1,
    own_target: samples.OwnTarget = False,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for the raw latencies.")] = None,
    json_: Json = False,
) -> None:
    """Send an open-loop load and print the latencies from the intended send.

    The same law and seed send at the same times. Says INVALID (exit 4) where the client could not keep its schedule:
    such a latency would be the client's. Exit 1 where the server refused requests.
    """
    from ..load import on_locust
    from ..load.payload import Payload
    from ..load.show import summary_table
    from ..load.summary import summarise
    from ..targets import endpoint_of

    schedule = schedules.schedule_of(
        law, rate=rate, seconds=seconds, seed=seed, burstiness=burstiness, to_rate=to_rate, recorded=recorded
    )
    endpoint = endpoint_of(url, model, version)
    inputs = samples.inputs_for(endpoint, recipe, batch=batch, seed=seed)
    folder = out_folder or run_folder("load")
    with progress() as report:
        run = on_locust.load(
            endpoint,
            schedule,
            Payload.build(endpoint, inputs, batch=batch),
            folder=folder,
            workers=workers,
            own_target=own_target,
            progress=lambda share: report("load", share, str(schedule)),
        )
    summary = summarise(run)
    if json_:
        emit(summary.to_json() | {"run": str(folder)})
    else:
        out.print(summary_table(summary))
        for breach in summary.breaches:
            out.print(f"[bold red]INVALID[/] {breach}")
        out.print(f"run: {folder}", soft_wrap=True)
    raise typer.Exit(4 if not summary.valid else 1 if summary.failures else 0)
