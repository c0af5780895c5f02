"""The gate verb. It needs fresh servers, which this floor cannot start: `add_verbs` is handed what makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize import environment as machine
from optimize.cli import Json, emit, out, progress, store

from ..runs import run_folder

if TYPE_CHECKING:
    from ..targets import Host

Hosting = Callable[[Path | None, Path], tuple["Host", int | None]]
"""From a deployment file (None: the default) and a scratch folder to the gate's host and the batches that it takes."""


def add_verbs(app: typer.Typer, panel: str, hosting: Hosting) -> None:
    """Put the verbs that start servers into the command."""

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

        from .. import gate as gating
        from .. import report as reporting
        from ..budget import load_budget
        from ..quality import adversarial

        limits = load_budget(budget)
        loaded = load_recipe(recipe or limits.recipe_path(budget))
        kept, folder = store(), out_folder or run_folder("gate")
        samples = Data(loaded, kept, machine.environment()).samples("evaluation")
        host, max_batch = hosting(deployment, machine.home() / "work")
        one, other, score = kept.get(base), kept.get(candidate), metric(loaded)
        with progress() as report:
            source = adversarial.source_of((one, other), kept)
            verdict = gating.gate(
                one,
                other,
                limits,
                host=host,
                max_batch=max_batch,
                samples=samples,
                metric=score,
                suite=adversarial.prepared(limits.checks, samples, score, source, kept),
                folder=folder,
                progress=lambda what, share: report("gate", share, what),
            )
        if json_:
            emit(verdict.to_json() | {"run": str(folder)})
        else:
            reporting.print_verdict(verdict, out)
            out.print(f"run: {folder}", soft_wrap=True)
        raise typer.Exit(verdict.exit_code)

    app.command(rich_help_panel=panel)(gate)
