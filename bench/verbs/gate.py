"""The gate verb. It needs fresh servers, which this floor cannot start: the command's context has what makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Protocol

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.building.built import check_engines
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.terminal import Json, emit, err, led, named, out, progress, store

from .. import report as reporting
from ..budget import Budget, load_budget
from ..gating import gate as gating
from ..gating import show
from ..gating.forecast import forecast
from ..gating.gate_setup import GateSetup
from ..gating.preflight import preflight
from ..quality import adversarial
from ..records import accepted, archive, baseline, history
from ..runs import run_folder
from ..targets import Host
from ..verdict import Verdict


class Hosting(Protocol):
    """Maps a deployment file (None: the default), a scratch folder and a slow-down (0: none) to the gate's host and the
    batches that it accepts.
    """

    def __call__(
        self, deployment: Path | None, scratch: Path, slow: float, engine: str = "", otherwise: str = "", /
    ) -> tuple[Host, int | None]:
        """Return them; `engine` serves in place of the deployment's, `otherwise` where the deployment names none."""
        ...


def gate(
    context: typer.Context,
    base: Annotated[str, typer.Argument(help="The reference: an artifact (scenes-int8.fp32) or an ONNX file.")],
    candidate: Annotated[str, typer.Argument(help="The replacement: an artifact (scenes-int8) or an ONNX file.")],
    budget: Annotated[Path, typer.Option(help="Limits for the candidate (TOML), bench/budgets/*.toml.")],
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe with samples and metric; default: the one named in the budget.")
    ] = None,
    deployment: Annotated[
        Path | None, typer.Option(help="Deployment of both (TOML); default: the Python backend, batches to 32.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option("--engine", help="Engine that serves CANDIDATE. Default: the budget's, deployment's or recipe's."),
    ] = "",
    base_engine: Annotated[
        str, typer.Option("--base-engine", help="Engine that serves BASE. Default: the budget's or the deployment's.")
    ] = "",
    out_folder: Annotated[Path | None, typer.Option("--out", help="Folder for the raw results.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print what the gate could certify and how long it takes.")
    ] = False,
    on_inconclusive: Annotated[
        Literal["block", "warn"],
        typer.Option(help="Result of INCONCLUSIVE in CI: exit 3 (block), or 0 with a warning."),
    ] = "block",
    json_: Json = False,
) -> None:
    """Serve BASE and CANDIDATE in turn from fresh servers and judge the candidate against a budget.

    PASS (exit 0), FAIL (1), INCONCLUSIVE (3) or INVALID (4: the machine or the load spoiled the run). Everything
    raw is kept in the run's folder; seatrial report RUN judges it again, offline. Says beforehand what it can
    certify on this class of machine, from the archive that seatrial aa fills, or from stated assumptions. The verdict
    names the engines that served both.
    """
    limits, folder = load_budget(budget), out_folder or run_folder("gate")
    limits = replace(limits, engine=engine or limits.engine, base_engine=base_engine or limits.base_engine)
    if _forecast(base, limits, folder, plan=plan, json_=json_):
        return
    asked = load_recipe(recipe or limits.recipe_path(budget))
    verdict = _run(base, candidate, limits, asked, _hosts(context.obj["hosting"], deployment, limits, asked), folder)
    _tell(verdict, folder, json_=json_)
    if verdict.outcome == "INCONCLUSIVE" and on_inconclusive == "warn":
        err.print(led("yellow", "warning:", " INCONCLUSIVE does not block here (--on-inconclusive warn)"))
        raise typer.Exit(0)
    raise typer.Exit(verdict.exit_code)


def _hosts(
    hosting: Hosting, deployment: Path | None, budget: Budget, recipe: Recipe
) -> tuple[Host, Host | None, int | None]:
    """Return the host of the candidate, that of the base where it is another one, and the largest batch."""
    for engine in {budget.engine, budget.base_engine}:
        check_engines(recipe.measured_in(engine))
    scratch = machine.home() / "work"
    base, largest = hosting(deployment, scratch, 0.0, budget.base_engine)
    host, _ = hosting(deployment, scratch, 0.0, budget.engine, recipe.engine)
    return host, base, largest


def _run(
    base: str,
    candidate: str,
    budget: Budget,
    loaded: Recipe,
    hosts: tuple[Host, Host | None, int | None],
    folder: Path,
) -> Verdict:
    kept = store()
    samples = Data(loaded, kept, machine.environment()).samples("evaluation")
    one, other, score = named(base), named(candidate), metric(loaded)
    with progress() as report, kept_on_interrupt(folder):
        source = adversarial.source_of((one, other), kept)
        verdict = gating.gate(
            one,
            other,
            budget,
            GateSetup(
                host=hosts[0],
                base_host=hosts[1],
                max_batch=hosts[2],
                samples=samples,
                metric=score,
                folder=folder,
                progress=lambda what, share: report("gate", share, what),
            ),
            suite=adversarial.prepared(budget.checks, samples, score, source, kept),
            ledger=accepted.held(machine.home(), budget.ledger),
        )
    history.record(machine.home(), *gating.read_gate(folder), baseline.digest_of(folder))
    return verdict


@contextmanager
def kept_on_interrupt(folder: Path) -> Iterator[None]:
    """Add the folder of the measured slots to the message of an interruption."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(f"completed slots are kept in {folder}")
        raise


def _tell(verdict: Verdict, folder: Path, *, json_: bool) -> None:
    if json_:
        emit(verdict.to_json() | {"run": str(folder)})
        return
    reporting.print_verdict(verdict, out)
    out.print(f"run: {folder}", soft_wrap=True)


def _forecast(base: str, budget: Budget, folder: Path, *, plan: bool, json_: bool) -> bool:
    """Say what the gate will be able to say; True where that was all that was asked for."""
    known = archive.trials(machine.home(), machine.environment())
    artifact = named(base)
    made = forecast(budget, known, artifact.name, artifact.format)
    if plan and json_:
        emit(show.forecast_json(made) | {"preflight": list(preflight(budget, folder))})
    else:
        for line in (*show.forecast_lines(made), *preflight(budget, folder)):
            (out if plan else err).print(line, highlight=False, soft_wrap=True)
        if plan:
            out.print(show.forecast_table(made))
            if known:
                out.print(show.trial_table(known))
    return plan
