"""The verb `ship`: the whole chain, and what it prints."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from seatrial.bench.budget import load_budget
from seatrial.bench.gating.continuing import pairs_for
from seatrial.bench.gating.pairs import read_run
from seatrial.bench.report import print_verdict
from seatrial.bench.runs import run_folder
from seatrial.bench.verdict import Verdict
from seatrial.optimize import config
from seatrial.optimize import environment as machine
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.report.show import build_json, build_table
from seatrial.optimize.terminal import Engine, Json, Recipe, emit, err, led, out, progress
from seatrial.optimize.units import format_milliseconds

from .. import ship as shipping
from ..deployment import Deployment
from ..release.guarded import check_unprotected
from ..ship import Shipment
from ..shipped import shipped
from .options import DEFAULT_REPOSITORY, DEFAULT_ROLES, Repository


def ship(
    recipe: Recipe,
    budget: Annotated[
        Path | None, typer.Option(help="Default: bench/budgets/MODEL.toml with the deployment's name.")
    ] = None,
    deployment: Annotated[
        Path | None, typer.Option(help="Default: serve/deployments/MODEL.toml, MODEL as in the recipe's name.")
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    keep_up: Annotated[bool, typer.Option("--keep-up", help="Keep the server running (see seatrial down).")] = False,
    going_on: Annotated[
        Path | None, typer.Option("--continue", help="Measure more pairs of this run's gate, and continue from there.")
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(help="With --continue: the total of pairs; default: the number in the verdict's advice."),
    ] = None,
    engine: Engine = "",
    json_: Json = False,
) -> None:
    """Run the whole chain: build, gate against fp32, register, place, serve, golden replies, load, report.

    The engine of the recipe or the budget serves it too, unless the deployment names one; --engine stands in for all.
    Ends with the table, the verdict and the path of one HTML page. Exit codes are the gate's. After INCONCLUSIVE (3) or
    INVALID (4), --continue RUN continues with the measured pairs.
    """
    if pairs is not None and going_on is None:
        raise ConfigError(
            "--pairs needs --continue", next_step="set design.pairs in the budget, or name a run with --continue"
        )
    check_unprotected(repository, DEFAULT_ROLES)
    loaded = load_recipe(recipe).measured_in(engine)
    model = loaded.name.partition("-")[0]
    folder = going_on or run_folder("ship")
    limits = load_budget(budget or shipped(Path("bench/budgets") / f"{model}.toml"))
    with progress() as report:
        shipment = shipping.ship(
            loaded,
            replace(limits, engine=engine or limits.engine),
            config.load(deployment or shipped(Path("serve/deployments") / f"{model}.toml"), Deployment),
            folders=shipping.ShipFolders(home=machine.home(), repository=repository, run=folder),
            keep_up=keep_up,
            going_on=going_on is not None,
            pairs=pairs,
            progress=report,
        )
    _print(shipment) if not json_ else emit(_json(shipment))
    if not json_ and shipment.verdict is not None and shipment.verdict.exit_code in (3, 4):
        options = {"--budget": budget, "--deployment": deployment, "--continue": folder}
        given = {name: path for name, path in options.items() if path}
        _say_how_to_go_on(recipe, given, shipment.verdict, engine)
    raise typer.Exit(shipment.exit_code)


def _say_how_to_go_on(recipe: Path, options: Mapping[str, Path], verdict: Verdict, engine: str) -> None:
    """Print the command that goes on with this run, where more pairs can settle it."""
    try:
        pairs = pairs_for(read_run(options["--continue"]), verdict)
    except ConfigError:
        return
    given = [f"{name} {quote(str(path))}" for name, path in options.items()]
    given += [f"--engine {quote(engine)}"] if engine else []
    command = " ".join(("seatrial ship", quote(str(recipe)), *given))
    said = f"next: on a quieter machine, continue to {pairs} pairs and the remaining steps: {command}"
    out.print(said, soft_wrap=True, markup=False)


def _print(shipment: Shipment) -> None:
    out.print(build_table(shipment.build, shipment.figures))
    if shipment.build.artifact.digest == shipment.build.reference.artifact.digest and not shipment.engine:
        out.print("no stage changed the source: the gate compares it with itself, so only absolute limits can fail")
    if shipment.below_floor:
        err.print(led("red", shipment.below_floor))
    if shipment.verdict is not None:
        print_verdict(shipment.verdict, out)
    if shipment.release is not None and shipment.placement is not None:
        placed = f"placed as version {shipment.placement.version} of {shipment.placement.name}"
        out.print(f"released as {shipment.release.label}, {placed}")
    if shipment.served is not None:
        served = shipment.served
        out.print(f"golden: {served.golden}", soft_wrap=True)
        out.print(
            f"load: p50 {format_milliseconds(served.load.p50)}, p95 {format_milliseconds(served.load.p95)}, "
            f"p99 {format_milliseconds(served.load.p99)} at {served.load.achieved_rate:.0f} requests/s, "
            f"{'valid' if served.load.valid else 'INVALID: ' + '; '.join(served.load.breaches)}",
            soft_wrap=True,
        )
        sizes = ", ".join(f"{size}: {count}" for size, count in sorted(served.statistics.batch_sizes.items()))
        out.print(
            f"saturation: {served.saturation.inferences_per_second:.0f} inferences/s; executed batches {{{sizes}}}"
        )
    if shipment.report is not None:
        out.print(f"report: {shipment.report}", soft_wrap=True)


def _json(shipment: Shipment) -> dict[str, object]:
    served = shipment.served
    return {
        "build": build_json(shipment.build, shipment.figures),
        "below_floor": shipment.below_floor,
        "verdict": shipment.verdict and shipment.verdict.to_json(),
        "release": shipment.release and shipment.release.label,
        "placement": shipment.placement and shipment.placement.to_json(),
        "golden": served and {"passed": served.golden.passed, "text": str(served.golden)},
        "load": served and served.load.to_json(),
        "throughput": served and served.saturation.inferences_per_second,
        "report": shipment.report and str(shipment.report),
    }
