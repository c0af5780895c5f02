"""Verbs that place, run and ship: thin skins over the library functions of the same names."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked
from seatrial.optimize.terminal import Json, Recipe, Ref, emit, err, led, named, out, progress, store
from seatrial.optimize.units import format_milliseconds

if TYPE_CHECKING:
    from seatrial.bench.targets import Host
    from seatrial.bench.verdict import Verdict
    from seatrial.optimize.artifact import Artifact

    from ..deployment import Deployment
    from ..ship import Shipment
    from ..triton.proof.placed import Proof
    from ..triton.repository.placement import Placement

Repository = Annotated[Path, typer.Option(help="The model repository that Triton mounts.")]
DEFAULT_REPOSITORY = Path("model_repository")


def hosting(deployment: Path | None, scratch: Path, slow: float = 0.0) -> tuple["Host", int | None]:
    """Return a host of fresh servers for the gate, by a deployment file or the default, and its largest batch.

    `slow` is the fraction by which they are slowed down, for a drill.
    """
    from seatrial.optimize import config

    from ..deployment import LARGEST_BATCH, Deployment
    from ..triton.running.host import host

    chosen = config.load(deployment, Deployment) if deployment is not None else None
    if slow and chosen is not None and chosen.flavour != "python":
        raise ConfigError(
            'only flavour = "python" can be slowed down',
            where=str(deployment),
            next_step='use a deployment with flavour = "python"',
        )
    largest = LARGEST_BATCH if chosen is None else chosen.max_batch_size or None
    return host(store(), chosen, scratch=scratch, slow=slow), largest


def register(
    ref: Ref,
    run: Annotated[Path, typer.Option(help="The folder of the gate's run with the verdict.")],
    name: Annotated[str, typer.Option(help="The release's name; default: the artifact's.")] = "",
    json_: Json = False,
) -> None:
    """Make an artifact a numbered release. Refused unless the run, judged again from its raw values, is a PASS."""
    from dataclasses import asdict

    from seatrial.bench.gating.gate import read_gate, rejudge
    from seatrial.bench.records import accepted

    from ..release.registry import Registry

    artifact = named(ref)
    chosen = checked(name or artifact.name, "release name", where="--name")
    release = Registry(machine.home() / "releases").register(chosen, artifact, rejudge(run), run=run)
    accepted.accept(machine.home(), *read_gate(run))
    if json_:
        emit(asdict(release))
    else:
        out.print(f"{release.label} is {artifact.short}")


def place(
    deployment: Annotated[
        Path,
        typer.Argument(help="The deployment (TOML), serve/deployments/*.toml; or an ONNX file with default settings."),
    ],
    release: Annotated[
        str, typer.Option(help="NAME@VERSION; default: the newest release that the deployment names.")
    ] = "",
    artifact: Annotated[
        str, typer.Option(help="Place an unreleased artifact of the store or an ONNX file, for trials.")
    ] = "",
    flavour: Annotated[
        Literal["python", "native"] | None, typer.Option(help="Override the deployment's flavour (python or native).")
    ] = None,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="The server runs on other hardware: skip the checks of this machine.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe whose golden samples prove it; default: the artifact's own.")
    ] = None,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Place without proof; replay golden inputs on the target machine.")
    ] = False,
    allow_foreign: Annotated[
        list[str] | None,
        typer.Option(help="Let an ensemble's proof run this foreign model; you vouch for its code."),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    r"""Write a proven release into the model repository as a new version, with its checked config.pbtxt.

    Proven means: a throwaway server loaded that configuration and answered golden inputs at batch 1, opt and max like
    ONNX Runtime on this machine. Otherwise nothing is placed. Exit codes: 1 the server refused it or gave other
    answers, 3 this machine cannot prove it. A file with \[\[steps]] is an ensemble over placed models: it must answer
    as its steps do. Instances of kind "gpu" are configured and checked, but have not served yet (experimental).
    """
    from seatrial.optimize import config

    from ..deployment.ensemble import is_ensemble
    from ..errors import UnprovenError
    from ..triton.repository.placing import place as placing

    if deployment.suffix != ".onnx" and is_ensemble(config.read_text(deployment)):
        shown = _placed_ensemble(deployment, repository, tuple(allow_foreign or ()), unproven=unproven)
        _show_placed(*shown, json_=json_)
        return
    found, chosen = _wanted(deployment, release, artifact, flavour)
    if elsewhere and not unproven:
        raise UnprovenError(
            "a server on other hardware cannot be proven here, and nothing was placed",
            where=str(deployment),
            next_step="add --unproven, and replay golden inputs on the target machine",
        )
    proof = None if unproven else _proven(found, chosen, recipe)
    placement = placing(found, chosen, store=store(), repository=repository, elsewhere=elsewhere)
    _show_placed(placement, proof, json_=json_)


def _wanted(
    path: Path, release: str, artifact: str, flavour: Literal["python", "native"] | None
) -> tuple["Artifact", "Deployment"]:
    """Return what to place, and how: by a deployment file, or an ONNX file as it is."""
    from seatrial.optimize import config

    from ..deployment import Deployment, default_deployment
    from ..release.registry import Registry

    if path.suffix == ".onnx":
        found = named(artifact or str(path))
        return found, default_deployment(found, found.name).flavoured(flavour)
    chosen = config.load(path, Deployment).flavoured(flavour)
    return named(artifact or Registry(machine.home() / "releases").get(release or chosen.release).digest), chosen


def _proven(artifact: "Artifact", deployment: "Deployment", recipe: Path | None) -> "Proof":
    from seatrial.optimize.recipe.recipe import load_recipe

    from ..triton.proof.placed import prove

    told = load_recipe(recipe) if recipe is not None else None
    with progress() as report:
        return prove(artifact, deployment, store=store(), recipe=told, progress=report)


def _placed_ensemble(
    path: Path, repository: Path, foreign: tuple[str, ...], *, unproven: bool
) -> tuple["Placement", "Proof | None"]:
    from seatrial.optimize import config

    from ..deployment.ensemble import Ensemble
    from ..triton.proof.ensemble import prove_ensemble
    from ..triton.repository.placing import place_ensemble

    ensemble = config.load(path, Ensemble)
    with progress() as report:
        report("proof", 0.1, "querying the ensemble and its steps in a throwaway server")
        proof = None if unproven else prove_ensemble(ensemble, repository=repository, foreign=foreign)
    return place_ensemble(ensemble, repository=repository), proof


def _show_placed(placement: "Placement", proof: "Proof | None", *, json_: bool) -> None:
    if json_:
        emit(placement.to_json() | {"path": str(placement.path), "proof": proof and proof.to_json()})
        return
    out.print(f"{placement.name} version {placement.version} ({placement.flavour}): {placement.path}", soft_wrap=True)
    out.print(f"proven: {proof}" if proof else "NOT proven (--unproven)", soft_wrap=True, markup=False)


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
    json_: Json = False,
) -> None:
    """Run the whole chain: build, gate against fp32, register, place, serve, golden replies, load, report.

    Ends with the table, the verdict and the path of one HTML page. Exit codes are the gate's. After INCONCLUSIVE (3) or
    INVALID (4), --continue RUN continues with the measured pairs.
    """
    from seatrial.bench.budget import load_budget
    from seatrial.bench.runs import run_folder
    from seatrial.optimize import config
    from seatrial.optimize.recipe.recipe import load_recipe

    from .. import ship as shipping
    from ..deployment import Deployment
    from ..shipped import shipped

    if pairs is not None and going_on is None:
        raise ConfigError(
            "--pairs needs --continue", next_step="set design.pairs in the budget, or name a run with --continue"
        )
    loaded = load_recipe(recipe)
    model = loaded.name.partition("-")[0]
    folder = going_on or run_folder("ship")
    with progress() as report:
        shipment = shipping.ship(
            loaded,
            load_budget(budget or shipped(Path("bench/budgets") / f"{model}.toml")),
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
        _say_how_to_go_on(recipe, {name: path for name, path in options.items() if path}, shipment.verdict)
    raise typer.Exit(shipment.exit_code)


def _say_how_to_go_on(recipe: Path, options: Mapping[str, Path], verdict: "Verdict") -> None:
    """Print the command that goes on with this run, where more pairs can settle it."""
    from seatrial.bench.gating.continuing import pairs_for
    from seatrial.bench.gating.pairs import read_run

    try:
        pairs = pairs_for(read_run(options["--continue"]), verdict)
    except ConfigError:
        return
    given = (f"{name} {quote(str(path))}" for name, path in options.items())
    command = " ".join(("seatrial ship", quote(str(recipe)), *given))
    said = f"next: on a quieter machine, continue to {pairs} pairs and the remaining steps: {command}"
    out.print(said, soft_wrap=True, markup=False)


def _print(shipment: "Shipment") -> None:
    from seatrial.bench.report import print_verdict
    from seatrial.optimize.report.show import build_table

    out.print(build_table(shipment.build, shipment.figures))
    if shipment.build.artifact.digest == shipment.build.reference.artifact.digest:
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


def _json(shipment: "Shipment") -> dict[str, object]:
    from seatrial.optimize.report.show import build_json

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
