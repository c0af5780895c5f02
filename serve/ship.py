"""The whole walk: build, gate, register, place, serve, golden replies, load, report; readable on one screen.

Only joins what the rooms offer; stops where the verdict says so, and leaves every step that was taken undoable: a
version is placed beside the others, a release is a record, the server goes down again unless it is to stay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from seatrial.bench.budget import Budget
from seatrial.bench.gating import gate as gating
from seatrial.bench.gating.continuing import continued, pairs_for
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.gating.pairs import GateRun, read_run
from seatrial.bench.load import on_locust
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import Saturation
from seatrial.bench.load.summary import LoadSummary, summarise
from seatrial.bench.quality.adversarial import prepared
from seatrial.bench.records import accepted, baseline, history
from seatrial.bench.report import StageRow, write_html
from seatrial.bench.schedule import poisson
from seatrial.bench.targets import endpoint_of
from seatrial.bench.verdict import Verdict
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build, check_engines
from seatrial.optimize.building.figures import StepMetrics, below_floor, figures
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import Recipe
from seatrial.optimize.store import Store

from .deployment import Deployment
from .errors import ServerError
from .release.entering import enter, entered
from .release.registry import Registry, Release
from .triton import engines
from .triton.control import Control, ModelStatistics
from .triton.proof.golden import GoldenReport, ServedModel, replay
from .triton.repository.placement import Placement
from .triton.repository.placing import choose, place
from .triton.repository.vouching import check
from .triton.running import on_pytriton
from .triton.running.host import check_machine, host
from .triton.supervision import lasting

Progress = Callable[[str, float, str], None]
_CONCURRENCY = 16  # clients of the saturation run: enough for the dynamic batcher to have something to join


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Results of the placed model in the running server."""

    golden: GoldenReport
    load: LoadSummary
    saturation: Saturation
    statistics: ModelStatistics
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """Result of the walk; the later fields are None if the verdict ended it. `engine`: named by recipe or budget."""

    build: Build
    figures: tuple[StepMetrics, ...]
    below_floor: str
    verdict: Verdict | None = None
    release: Release | None = None
    placement: Placement | None = None
    served: Served | None = None
    report: Path | None = None
    engine: str = ""

    @property
    def exit_code(self) -> int:
        """0 shipped; otherwise the code of the step that ended the walk."""
        if self.below_floor or self.verdict is None:
            return 1
        if self.verdict.exit_code or self.served is None:
            return self.verdict.exit_code or 1
        if not self.served.golden.passed or self.served.load.failures:
            return 1
        return 0 if self.served.load.valid else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipFolders:
    """Folders of a shipment: records in `home`, what Triton mounts in `repository`, raw results in `run`."""

    home: Path
    repository: Path
    run: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workspace:
    """Inputs of every step of the walk: recipe and deployment, their data and store, its folders and progress.

    `deployment` has the engine that serves what was built, `given` the one that was written.
    """

    recipe: Recipe
    deployment: Deployment
    given: Deployment
    folders: ShipFolders
    store: Store
    data: Data
    progress: Progress


def ship(
    recipe: Recipe,
    budget: Budget,
    deployment: Deployment,
    *,
    folders: ShipFolders,
    keep_up: bool = False,
    going_on: bool = False,
    pairs: int | None = None,
    progress: Progress = lambda label, share, text: None,
) -> Shipment:
    """Take a recipe from its source to a served, loaded and reported release.

    The engine that serves it is the budget's, the deployment's or the recipe's, the first that is named; the
    fp32 that it is gated against runs in the budget's `base_engine`, else as the deployment says.

    `going_on`: the gate in the run's folder could not tell, so more of its pairs are measured (`pairs` in all, or as
    many as its verdict asks for), and the walk goes on from there.

    Raises:
        SeatrialError: a step could not do its work; what was done before it stays and is found again.
    """
    if keep_up and on_pytriton.status() is not None:
        raise ServerError("a server is already running", next_step="stop it first: seatrial down")
    gating.check_batch(budget, deployment.max_batch_size or None)
    check_machine(deployment)
    engine = _engine(recipe, budget, deployment)
    home, repository, run = folders.home, folders.repository, folders.run
    store = Store(home / "store")
    made = build(recipe, store, progress)
    work = _Workspace(
        recipe=recipe,
        deployment=engines.deployed_in(deployment, made.artifact, engine) if engine else deployment,
        given=deployment,
        folders=folders,
        store=store,
        data=made.data,
        progress=progress,
    )
    rows = figures(made, store, progress)
    begun = Shipment(build=made, figures=rows, below_floor=below_floor(made, rows), engine=engine)
    if begun.below_floor:
        return begun

    before, judging = _more_pairs(made, budget, run, pairs) if going_on else (None, budget)
    verdict = _judged(work, made, judging, before)
    report = run / "report.html"
    if verdict.outcome != "PASS":
        _report(report, recipe, made, rows, verdict, run, None)
        return replace(begun, verdict=verdict, report=report)

    release = Registry(home / "releases").register(deployment.release, made.artifact, verdict, run=run)
    accepted.accept(home, *gating.read_gate(run))
    entered(release)
    placement = _placed(work, made, release)
    with _server(repository, deployment.name, keep_up=keep_up) as server:
        served = _sail(work, server, made, placement, budget)
    _report(report, recipe, made, rows, verdict, run, served.load)
    return replace(begun, verdict=verdict, release=release, placement=placement, served=served, report=report)


def _engine(recipe: Recipe, budget: Budget, deployment: Deployment) -> str:
    """Return the engine that budget or recipe name for serving, where this machine has it; empty: the deployment's."""
    name = budget.engine or engines.of_recipe(recipe.engine, deployment)
    if name:
        check_engines(recipe.measured_in(name))
        engines.named(name)
    return name


def _more_pairs(made: Build, budget: Budget, run: Path, pairs: int | None) -> tuple[GateRun, Budget]:
    """The gate's run as it lies there, and its budget with more pairs."""
    measured = read_run(run)
    verdict = gating.rejudge(run)
    wanted = pairs_for(measured, verdict) if pairs is None else pairs
    arms = {"base": made.reference.artifact, "candidate": made.artifact}
    return measured, continued(measured, verdict, budget, wanted, arms, made.data.samples("evaluation"))


def _placed(work: _Workspace, made: Build, release: Release) -> Placement:
    """Place the release as the one version that is served.

    Unproven: no server has it yet, and its golden replies follow at once in the very server that will.
    """
    name, repository = work.deployment.name, work.folders.repository
    placement = place(made.artifact, work.deployment, store=work.store, repository=repository)
    choose(repository, name, (placement.version,))
    check(repository, (name,), work.store)
    details = {"version": placement.version, "digest": placement.digest}
    enter("placed", model=placement.name, subject=release.label, details=details)
    return placement


def _judged(work: _Workspace, made: Build, budget: Budget, going_on: GateRun | None) -> Verdict:
    """The gate's verdict on what was built, against the reference of the same build."""
    samples, score = work.data.samples("evaluation"), metric(work.recipe)
    verdict = gating.gate(
        made.reference.artifact,
        made.artifact,
        budget,
        GateSetup(
            host=host(work.store, work.deployment, scratch=work.folders.home / "work"),
            base_host=host(work.store, work.given, scratch=work.folders.home / "work", engine=budget.base_engine),
            max_batch=work.deployment.max_batch_size or None,
            samples=samples,
            metric=score,
            folder=work.folders.run,
            progress=lambda what, share: work.progress("gate", share, what),
        ),
        suite=prepared(budget.checks, samples, score, made.source.artifact, work.store),
        ledger=accepted.held(work.folders.home, budget.ledger),
        going_on=going_on,
    )
    history.record(work.folders.home, *gating.read_gate(work.folders.run), baseline.digest_of(work.folders.run))
    return verdict


@contextmanager
def _server(repository: Path, name: str, *, keep_up: bool) -> Iterator[on_pytriton.Server]:
    """The server with the model loaded, for the block; or one that stays."""
    if keep_up:
        yield lasting.up(repository, (name,))
        return
    with on_pytriton.serving(repository, (name,), foreign=()) as server:
        yield server


def _sail(work: _Workspace, server: on_pytriton.Server, made: Build, placement: Placement, budget: Budget) -> Served:
    """Golden replies, then an open-loop load at the budget's rate, then saturation; Triton's own statistics last."""
    design, deployment, progress, version = budget.design, work.deployment, work.progress, str(placement.version)
    with Control(server.url) as control:
        progress("golden", 0.0, "replaying golden samples")
        golden = replay(
            control,
            made.artifact,
            work.data.samples("golden"),
            store=work.store,
            model=ServedModel(
                name=deployment.name,
                version=version,
                max_batch_size=deployment.max_batch_size,
                engine=placement.engine,
            ),
            threads=deployment.threads,
        )
        progress("golden", 1.0, "done")
        endpoint = endpoint_of(f"http://{server.url}", deployment.name, version)
        payload = Payload.build(endpoint, work.data.samples("evaluation").inputs)
        loaded = on_locust.load(
            endpoint,
            poisson(design.rate, design.seconds, design.seed),
            payload,
            folder=work.folders.run / "served",
            progress=lambda share: progress("load", share, f"{design.rate:g} requests/s for {design.seconds:g} s"),
        )
        progress("saturation", 0.0, f"{_CONCURRENCY} clients back to back")
        saturated = on_locust.saturate(
            endpoint,
            payload,
            seconds=design.saturation_seconds,
            concurrency=_CONCURRENCY,
            folder=work.folders.run / "saturated",
        )
        progress("saturation", 1.0, "done")
        return Served(
            golden=golden,
            load=summarise(loaded, budget.load),
            saturation=saturated,
            statistics=control.statistics(deployment.name, version),
            url=server.url,
        )


def _report(
    path: Path,
    recipe: Recipe,
    made: Build,
    rows: tuple[StepMetrics, ...],
    verdict: Verdict,
    run: Path,
    load: LoadSummary | None,
) -> None:
    raw, _ = gating.read_gate(run)
    stages = [
        StageRow(
            name=step.label,
            format=step.artifact.format,
            quality=row.quality,
            size_bytes=row.size,
            speedup=None if row.reference is None else 1 / row.reference.ratio,
            latency_ratio=None if row.parent is None else row.parent.ratio,
            interval=None if row.parent is None else (row.parent.low, row.parent.high),
            digest=step.artifact.digest,
            cached=step.cached,
        )
        for step, row in zip(made.all, rows, strict=True)
    ]
    write_html(path, title=f"seatrial: {recipe.name}", verdict=verdict, run=raw, stages=stages, load=load)
