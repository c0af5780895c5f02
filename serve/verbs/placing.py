"""Verbs that place, run and ship: thin skins over the library functions of the same names."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from optimize import environment as machine
from optimize.cli import Json, Recipe, Ref, emit, err, out, progress, store
from optimize.names import checked
from optimize.terminal import led

if TYPE_CHECKING:
    from bench.targets import Host

    from ..ship import Shipment
    from ..triton.proof.placed import Proof
    from ..triton.repository.placement import Placement

Repository = Annotated[Path, typer.Option(help="The model repository that Triton mounts.")]
DEFAULT_REPOSITORY = Path("model_repository")


def hosting(deployment: Path | None, scratch: Path, slow: float = 0.0) -> tuple["Host", int | None]:
    """Fresh servers for the gate, by a deployment file or by the default deployment, and the batches that they take.

    `slow` is the share by which they are slowed, for a drill.
    """
    from optimize import config
    from optimize.errors import ConfigError

    from ..deployment import Deployment
    from ..triton.running.host import host

    chosen = (
        config.load(deployment, Deployment)
        if deployment is not None
        else Deployment(schema=1, name="candidate", max_batch_size=32)
    )
    if slow and chosen.flavour != "python":
        raise ConfigError(
            "only the python flavour can be slowed", where=str(deployment), next_step="name such a deployment"
        )
    return host(store(), chosen, scratch=scratch, slow=slow), chosen.max_batch_size or None


def register(
    ref: Ref,
    run: Annotated[Path, typer.Option(help="The folder of the gate's run that judged it.")],
    name: Annotated[str, typer.Option(help="The release's name; default: the artifact's.")] = "",
    json_: Json = False,
) -> None:
    """Make an artifact a numbered release. Refused unless the run, judged again from its raw values, says PASS."""
    from dataclasses import asdict

    from bench.gating.gate import read_gate, rejudge
    from bench.records import accepted

    from ..release.registry import Registry

    artifact = store().get(ref)
    chosen = checked(name or artifact.name, "release name", where="--name")
    release = Registry(machine.home() / "releases").register(chosen, artifact, rejudge(run), run=run)
    accepted.accept(machine.home(), *read_gate(run))
    if json_:
        emit(asdict(release))
    else:
        out.print(f"{release.label} is {artifact.short}")


def place(
    deployment: Annotated[Path, typer.Argument(help="How to serve it (TOML), serve/deployments/*.toml.")],
    release: Annotated[str, typer.Option(help="NAME@VERSION; default: the newest release the deployment names.")] = "",
    artifact: Annotated[str, typer.Option(help="Place an unreleased artifact of the store, for trying out.")] = "",
    flavour: Annotated[
        Literal["python", "native"] | None, typer.Option(help="Override the deployment's flavour.")
    ] = None,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="The server runs on other hardware: do not check this machine's.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe whose golden samples to prove it on; else the artifact's own.")
    ] = None,
    unproven: Annotated[
        bool, typer.Option("--unproven", help="Place without proof; replay golden inputs where it will run.")
    ] = False,
    allow_foreign: Annotated[
        list[str] | None,
        typer.Option(help="Let an ensemble's proof run this model of somebody else; you vouch for its code."),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    r"""Write a release into the model repository as a new version, with its checked config.pbtxt, once it is proven.

    Proven means: a throwaway server loaded that configuration and answered golden inputs at batch 1, opt and max as
    ONNX Runtime does here. Exit codes: 1 refused by the server or other answers, 3 this machine cannot prove it;
    nothing is placed then. A file with \[\[steps]] is an ensemble over placed models: it must answer as its steps do.
    """
    from optimize import config
    from optimize.recipe import load_recipe

    from ..deployment import Deployment
    from ..deployment.ensemble import is_ensemble
    from ..errors import UnprovenError
    from ..release.registry import Registry
    from ..triton.proof.placed import prove
    from ..triton.repository.placing import place as placing

    if is_ensemble(config.read_text(deployment)):
        shown = _placed_ensemble(deployment, repository, tuple(allow_foreign or ()), unproven=unproven)
        _show_placed(*shown, json_=json_)
        return
    chosen, kept = config.load(deployment, Deployment).flavoured(flavour), store()
    digest = artifact or Registry(machine.home() / "releases").get(release or chosen.release).digest
    found = kept.get(digest)
    if elsewhere and not unproven:
        raise UnprovenError(
            "a server on other hardware cannot be proven here, and nothing was placed",
            where=str(deployment),
            next_step="add --unproven, and replay golden inputs where it will run",
        )
    proof = None
    if not unproven:
        told = load_recipe(recipe) if recipe is not None else None
        with progress() as report:
            proof = prove(found, chosen, store=kept, recipe=told, progress=report)
    placement = placing(found, chosen, store=kept, repository=repository, elsewhere=elsewhere)
    _show_placed(placement, proof, json_=json_)


def _placed_ensemble(
    path: Path, repository: Path, foreign: tuple[str, ...], *, unproven: bool
) -> tuple["Placement", "Proof | None"]:
    from optimize import config

    from ..deployment.ensemble import Ensemble
    from ..triton.proof.ensemble import prove_ensemble
    from ..triton.repository.placing import place_ensemble

    ensemble = config.load(path, Ensemble)
    with progress() as report:
        report("proof", 0.1, "asking the ensemble and its steps in a throwaway server")
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
        Path | None, typer.Option(help="Default: bench/budgets/MODEL.toml of the deployment's name.")
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(help="Default: serve/deployments/MODEL.toml, MODEL the recipe's name up to its first dash."),
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    keep_up: Annotated[
        bool, typer.Option("--keep-up", help="Leave the server running (seatrial down stops it).")
    ] = False,
    json_: Json = False,
) -> None:
    """The whole walk: build, gate against fp32, register, place, serve, golden replies, load, report.

    Ends with the table, the verdict and the path of one HTML page. Exit codes as the gate's.
    """
    from bench.budget import load_budget
    from bench.runs import run_folder
    from optimize import config
    from optimize.recipe import load_recipe

    from .. import ship as shipping
    from ..deployment import Deployment

    loaded = load_recipe(recipe)
    model = loaded.name.partition("-")[0]
    with progress() as report:
        shipment = shipping.ship(
            loaded,
            load_budget(budget or Path("bench/budgets") / f"{model}.toml"),
            config.load(deployment or Path("serve/deployments") / f"{model}.toml", Deployment),
            home=machine.home(),
            repository=repository,
            run=run_folder("ship"),
            keep_up=keep_up,
            progress=report,
        )
    _print(shipment) if not json_ else emit(_json(shipment))
    raise typer.Exit(shipment.exit_code)


def _print(shipment: "Shipment") -> None:
    from bench.load.show import milliseconds
    from bench.report import print_verdict
    from optimize.show import build_table

    out.print(build_table(shipment.build, shipment.figures))
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
            f"load: p50 {milliseconds(served.load.p50)}, p95 {milliseconds(served.load.p95)}, "
            f"p99 {milliseconds(served.load.p99)} at {served.load.achieved_rate:.0f} requests/s, "
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
    from optimize.show import build_json

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
