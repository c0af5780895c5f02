"""The capacity verb: how much traffic a running server bears within an objective, and what that costs."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.terminal import Json, emit, led, out, progress

from .. import cost
from ..capacity import show
from ..capacity.result import Capacity
from ..capacity.run import CapacitySetup
from ..capacity.run import capacity as measure
from ..capacity.search import Plan
from ..capacity.show import write_html
from ..capacity.slo import Slo
from ..cost import Bill, Price
from ..load.payload import Payload
from ..runs import run_folder
from ..targets import endpoint_of
from . import samples

Url = Annotated[str, typer.Argument(help="A KServe v2 server: http://127.0.0.1:8000, or .../v2/models/NAME.")]
ObjectiveText = Annotated[str, typer.Option("--slo", help='The objective, such as "p99<=20ms".')]
MaxRate = Annotated[float, typer.Option(help="The highest rate to offer, in requests per second.")]
Seconds = Annotated[float, typer.Option(help="Total seconds of load.")]
ProbeSeconds = Annotated[float, typer.Option(help="Most seconds at one rate before its estimate is used.")]
Concurrency = Annotated[int, typer.Option(help="Requests in flight during saturation, which gives the starting rate.")]
PriceName = Annotated[str | None, typer.Option(help="A pinned price (bench/prices.toml): print $ per million.")]
Traffic = Annotated[float | None, typer.Option(help="Peak traffic in inferences per second: print fleet and month.")]
Headroom = Annotated[float, typer.Option(help="Fraction of every machine's capacity to keep free.")]


def capacity(
    url: Url,
    slo: ObjectiveText,
    model: Annotated[str | None, typer.Option(help="The model; optional if only one is ready.")] = None,
    version: Annotated[str, typer.Option(help="Its version; default: the highest ready one.")] = "",
    max_rate: MaxRate = 20_000.0,
    seconds: Seconds = 600.0,
    probe_seconds: ProbeSeconds = 60.0,
    concurrency: Concurrency = 16,
    seed: Annotated[int, typer.Option(help="Seed of arrivals and of the order of probes.")] = 1,
    batch: Annotated[int, typer.Option(help="Samples per request.")] = 1,
    recipe: samples.Recipe = None,
    price: PriceName = None,
    traffic: Traffic = None,
    headroom: Headroom = 0.3,
    own_target: samples.OwnTarget = False,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the raw latencies of every probe.")
    ] = None,
    json_: Json = False,
) -> None:
    """Find the largest Poisson rate within the objective, with an interval, the cliff, and the latencies below it.

    Probes each rate until 99 % confidence or the end of the time budget. Exit codes: 0 found, 1 no rate meets the
    objective, 3 the probes are not sufficient, 4 the client could not offer the load. The page is in the run's folder.
    """
    objective, folder = Slo.parse(slo), out_folder or run_folder("capacity")
    plan = Plan(seconds=seconds, probe_seconds=probe_seconds, max_rate=max_rate)
    pinned = _pinned(price, traffic, headroom)
    endpoint = endpoint_of(url, model, version)
    payload = Payload.build(endpoint, samples.inputs_for(endpoint, recipe, batch=batch, seed=seed), batch=batch)
    with progress() as report:
        found = measure(
            endpoint,
            payload,
            objective,
            folder=folder,
            plan=plan,
            setup=CapacitySetup(seed=seed, concurrency=concurrency, own_target=own_target),
            progress=lambda what, share: report("capacity", share, what),
        )
    bill = None
    if pinned is not None and found.rate is not None:
        bounds = found.interval and (found.interval[0] * batch, found.interval[1] * batch)
        rate, spent = found.rate * batch, found.load_seconds
        bill = cost.bill(pinned, rate, interval=bounds, traffic=traffic, headroom=headroom, seconds=spent)
    write_html(folder / "report.html", found, bill)
    _print(found, bill, folder, json_=json_)
    raise typer.Exit(found.exit_code)


def _pinned(name: str | None, traffic: float | None, headroom: float) -> Price | None:
    if (traffic is not None and (name is None or traffic <= 0)) or not 0 <= headroom < 1:
        raise ConfigError(
            f"cannot size a fleet for {traffic}/s at price {name!r} with {headroom} headroom",
            next_step="use a positive --traffic with --price NAME, and --headroom between 0 and 1",
        )
    return None if name is None else cost.price_list().of(name)


def _print(found: Capacity, bill: Bill | None, folder: Path, *, json_: bool) -> None:
    if json_:
        emit(found.to_json() | {"cost": bill.to_json() if bill else None, "run": str(folder)})
        return
    out.print(led(show.STYLES[found.outcome], found.outcome, f"  {show.headline(found)}"))
    out.print(show.table(found, bill))
    for note in found.notes:
        out.print(led("yellow", "note", f" {note}"))
    out.print(f"run: {folder}", soft_wrap=True)
