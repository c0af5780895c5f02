"""Floor 1's verbs: thin skins over the library functions of the same names.

The gate needs fresh servers, which this floor cannot start; `add_verbs` is handed a function that makes them.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize import environment as machine
from optimize.cli import Json, emit, out, progress, store

if TYPE_CHECKING:
    from .targets import Host

PANEL = "bench: measure and judge"
Hosting = Callable[[Path | None, Path], tuple["Host", int | None]]
"""From a deployment file (None: the default) and a scratch folder to the gate's host and the batches that it takes."""

Run = Annotated[Path, typer.Argument(help="The folder that a gate wrote, for instance .seatrial/runs/gate-...")]


def run_folder(kind: str) -> Path:
    """A folder for a run that does not exist yet, named by kind and time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = machine.home() / "runs" / f"{kind}-{stamp}"
    number = 1
    while (folder := base.with_name(f"{base.name}-{number}" if number > 1 else base.name)).exists():
        number += 1
    return folder


def add_verbs(app: typer.Typer, hosting: Hosting) -> None:
    """Put floor 1's verbs into the command."""

    def gate(
        base: Annotated[str, typer.Argument(help="The artifact that is good today, for instance scenes-int8.fp32.")],
        candidate: Annotated[str, typer.Argument(help="The artifact that wants its place, for instance scenes-int8.")],
        budget: Annotated[Path, typer.Option(help="What the candidate may cost (TOML), bench/budgets/*.toml.")],
        recipe: Annotated[
            Path | None, typer.Option(help="Recipe with samples and metric; default: the one that the budget names.")
        ] = None,
        deployment: Annotated[
            Path | None, typer.Option(help="How both are served (TOML); default: the Python backend, batches to 32.")
        ] = None,
        out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for the raw results.")] = None,
        json_: Json = False,
    ) -> None:
        """Serve BASE and CANDIDATE in turn from fresh servers and judge the candidate against a budget.

        PASS (exit 0), FAIL (1), INCONCLUSIVE (3) or INVALID (4: the machine or the load spoiled the run). Everything
        raw is kept in the run's folder; seatrial report RUN judges it again, offline.
        """
        from optimize.data import Data
        from optimize.quality import metric
        from optimize.recipe import load_recipe

        from . import gate as gating
        from . import report as reporting
        from .budget import load_budget

        limits = load_budget(budget)
        loaded = load_recipe(recipe or limits.recipe_path(budget))
        kept, folder = store(), out_folder or run_folder("gate")
        samples = Data(loaded, kept, machine.environment()).samples("evaluation")
        host, max_batch = hosting(deployment, machine.home() / "work")
        with progress() as report:
            verdict = gating.gate(
                kept.get(base),
                kept.get(candidate),
                limits,
                host=host,
                max_batch=max_batch,
                samples=samples,
                metric=metric(loaded),
                folder=folder,
                progress=lambda what, share: report("gate", share, what),
            )
        if json_:
            emit(verdict.to_json() | {"run": str(folder)})
        else:
            reporting.print_verdict(verdict, out)
            out.print(f"run: {folder}", soft_wrap=True)
        raise typer.Exit(verdict.exit_code)

    for verb in (load, gate, report):
        app.command(rich_help_panel=PANEL)(verb)


def load(
    url: Annotated[str, typer.Argument(help="A KServe v2 server: http://127.0.0.1:8000, or .../v2/models/NAME.")],
    rate: Annotated[float, typer.Option(help="Mean arrivals per second (Poisson).")] = 50.0,
    seconds: Annotated[float, typer.Option(help="How long to send.")] = 10.0,
    model: Annotated[str | None, typer.Option(help="The model; may be left out where only one is ready.")] = None,
    version: Annotated[str, typer.Option(help="Its version; default: the highest that is ready.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the arrival times.")] = 1,
    batch: Annotated[int, typer.Option(help="Samples per request.")] = 1,
    recipe: Annotated[
        Path | None, typer.Option(help="Send this recipe's evaluation samples instead of random numbers.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Locust processes.")] = 1,
    own_target: Annotated[
        bool, typer.Option("--i-own-this-target", help="Allow a target that is not this machine.")
    ] = False,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for the raw latencies.")] = None,
    json_: Json = False,
) -> None:
    """Send an open-loop Poisson load and print the latencies from the intended send.

    The same seed sends at the same times. Says INVALID (exit 4) where the client could not keep its schedule: such a
    latency would be the client's. Exit 1 where the server refused requests.
    """
    from optimize.data import Data
    from optimize.recipe import load_recipe

    from .load import on_locust
    from .load.inputs import random_inputs
    from .load.payload import Payload
    from .load.show import summary_table
    from .load.summary import summarise
    from .schedule import poisson
    from .targets import endpoint_of

    endpoint = endpoint_of(url, model, version)
    if recipe is not None:
        inputs = dict(Data(load_recipe(recipe), store(), machine.environment()).samples("evaluation").inputs)
    else:
        inputs = random_inputs(endpoint, 64 * batch, seed)
    folder = out_folder or run_folder("load")
    with progress() as report:
        run = on_locust.load(
            endpoint,
            poisson(rate, seconds, seed),
            Payload.build(endpoint, inputs, batch=batch),
            folder=folder,
            workers=workers,
            own_target=own_target,
            progress=lambda share: report("load", share, f"{rate:g} requests/s for {seconds:g} s"),
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


def report(
    run: Run,
    html: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in the run.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    json_: Json = False,
) -> None:
    """Judge a gate's run again from its raw values, and write its report. Exit code as the gate's."""
    from . import gate as gating
    from . import report as reporting

    verdict = gating.rejudge(run)
    raw, verdict = gating.read_gate(run)
    page = html or run / "report.html"
    title = f"{raw.header.candidate['name']} against {raw.header.base['name']}"
    reporting.write_html(page, title=title, verdict=verdict, run=raw)
    if json_:
        emit(verdict.to_json() | {"run": str(run), "report": str(page)})
    elif markdown:
        typer.echo(reporting.to_markdown(verdict))
    else:
        reporting.print_verdict(verdict, out)
        out.print(f"report: {page}", soft_wrap=True)
    raise typer.Exit(verdict.exit_code)
