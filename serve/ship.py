"""The whole walk: build, gate, register, place, serve, golden replies, load, report; readable on one screen.

Only joins what the rooms offer; stops where the verdict says so, and leaves every step that was taken undoable: a
version is placed beside the others, a release is a record, the server goes down again unless it is to stay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.budget import Budget
from bench.gating import gate as gating
from bench.load import on_locust
from bench.load.payload import Payload
from bench.load.run import Saturation
from bench.load.summary import LoadSummary, summarise
from bench.quality.adversarial import prepared
from bench.records import accepted, baseline, history
from bench.report import StageRow, write_html
from bench.schedule import poisson
from bench.targets import Host, endpoint_of
from bench.verdict import Verdict
from optimize.build import Build, build
from optimize.data import Data
from optimize.environment import environment
from optimize.figures import Figures, below_floor, figures
from optimize.quality import metric
from optimize.recipe import Recipe
from optimize.store import Store

from .deployment import Deployment
from .errors import ServerError
from .release.registry import Registry, Release
from .triton.control import Control, ModelStatistics
from .triton.proof.golden import GoldenReport, replay
from .triton.repository.placement import Placement
from .triton.repository.placing import choose, place
from .triton.repository.vouching import check
from .triton.running import on_pytriton
from .triton.running.host import host

Progress = Callable[[str, float, str], None]
_CONCURRENCY = 16  # clients of the saturation run: enough for the dynamic batcher to have something to join


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the placed model did in the running server."""

    golden: GoldenReport
    load: LoadSummary
    saturation: Saturation
    statistics: ModelStatistics
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What the walk came to; the later fields are None where the verdict ended it."""

    build: Build
    figures: tuple[Figures, ...]
    below_floor: str
    verdict: Verdict | None = None
    release: Release | None = None
    placement: Placement | None = None
    served: Served | None = None
    report: Path | None = None

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


def ship(
    recipe: Recipe,
    budget: Budget,
    deployment: Deployment,
    *,
    home: Path,
    repository: Path,
    run: Path,
    keep_up: bool = False,
    progress: Progress = lambda label, share, text: None,
) -> Shipment:
    """Take a recipe from its source to a served, loaded and reported release.

    Raises:
        SeatrialError: a step could not do its work; what was done before it stays and is found again.
    """
    if keep_up and on_pytriton.status() is not None:
        raise ServerError("a server is up already", next_step="take it down first: seatrial down")
    gating.check_batch(budget, deployment.max_batch_size or None)
    store = Store(home / "store")
    data = Data(recipe, store, environment())
    made = build(recipe, store, progress)
    rows = figures(made, store, progress)
    if broken := below_floor(made, rows):
        return Shipment(build=made, figures=rows, below_floor=broken)

    fresh = host(store, deployment, scratch=home / "work")
    verdict = _judged(made, recipe, budget, (fresh, deployment.max_batch_size), data, store, home, run, progress)
    report = run / "report.html"
    if verdict.outcome != "PASS":
        _report(report, recipe, made, rows, verdict, run, None)
        return Shipment(build=made, figures=rows, below_floor="", verdict=verdict, report=report)

    release = Registry(home / "releases").register(deployment.release, made.artifact, verdict, run=run)
    accepted.accept(home, *gating.read_gate(run))
    # Placed unproven: nobody serves it yet, and its golden replies follow at once in the very server that will.
    placement = place(made.artifact, deployment, store=store, repository=repository)
    choose(repository, deployment.name, (placement.version,))
    check(repository, (deployment.name,), store)
    with _server(repository, deployment.name, keep_up=keep_up) as server:
        served = _sail(server, made, deployment, placement, data, store, budget, run, progress)
    _report(report, recipe, made, rows, verdict, run, served.load)
    return Shipment(
        build=made,
        figures=rows,
        below_floor="",
        verdict=verdict,
        release=release,
        placement=placement,
        served=served,
        report=report,
    )


def _judged(
    made: Build,
    recipe: Recipe,
    budget: Budget,
    served: tuple[Host, int],
    data: Data,
    store: Store,
    home: Path,
    run: Path,
    progress: Progress,
) -> Verdict:
    """The gate's verdict on what was built, against the reference of the same build."""
    samples, score = data.samples("evaluation"), metric(recipe)
    verdict = gating.gate(
        made.reference.artifact,
        made.artifact,
        budget,
        host=served[0],
        max_batch=served[1] or None,
        samples=samples,
        metric=score,
        suite=prepared(budget.checks, samples, score, made.source.artifact, store),
        folder=run,
        progress=lambda what, share: progress("gate", share, what),
        ledger=accepted.held(home, budget.ledger),
    )
    history.record(home, *gating.read_gate(run), baseline.digest_of(run))
    return verdict


@contextmanager
def _server(repository: Path, name: str, *, keep_up: bool) -> Iterator[on_pytriton.Server]:
    """The server with the model loaded, for the block; or one that stays."""
    if keep_up:
        yield on_pytriton.up(repository, (name,))
        return
    with on_pytriton.serving(repository, (name,), foreign=()) as server:
        yield server


def _sail(
    server: on_pytriton.Server,
    made: Build,
    deployment: Deployment,
    placement: Placement,
    data: Data,
    store: Store,
    budget: Budget,
    run: Path,
    progress: Progress,
) -> Served:
    """Golden replies, then an open-loop load at the budget's rate, then saturation; Triton's own statistics last."""
    design, version = budget.design, str(placement.version)
    with Control(server.url) as control:
        progress("golden", 0.0, "replaying golden samples")
        golden = replay(
            control,
            made.artifact,
            data.samples("golden"),
            store=store,
            model=deployment.name,
            version=version,
            max_batch_size=deployment.max_batch_size,
            threads=deployment.threads,
        )
        progress("golden", 1.0, "done")
        endpoint = endpoint_of(f"http://{server.url}", deployment.name, version)
        payload = Payload.build(endpoint, data.samples("evaluation").inputs)
        loaded = on_locust.load(
            endpoint,
            poisson(design.rate, design.seconds, design.seed),
            payload,
            folder=run / "served",
            progress=lambda share: progress("load", share, f"{design.rate:g} requests/s for {design.seconds:g} s"),
        )
        progress("saturation", 0.0, f"{_CONCURRENCY} clients back to back")
        saturated = on_locust.saturate(
            endpoint, payload, seconds=design.saturation_seconds, concurrency=_CONCURRENCY, folder=run / "saturated"
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
    rows: tuple[Figures, ...],
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
