"""Verbs that register and place: thin skins over the library functions of the same names."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from seatrial.bench.gating.gate import read_gate, rejudge
from seatrial.bench.records import accepted
from seatrial.optimize import config
from seatrial.optimize import environment as machine
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.names import checked
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.terminal import Json, Ref, emit, named, out, progress, store

from ..deployment import Deployment, default_deployment
from ..deployment.ensemble import Ensemble, is_ensemble
from ..errors import UnprovenError
from ..release.assessing import assessed
from ..release.entering import enter, entered
from ..release.guarded import check_approved, check_unprotected
from ..release.record import Release
from ..release.registry import Registry
from ..triton.engines import deployed_as_built
from ..triton.proof.ensemble import prove_ensemble
from ..triton.proof.placed import Proof, prove
from ..triton.repository.placement import Placement
from ..triton.repository.placing import place as placing
from ..triton.repository.placing import place_ensemble
from .options import DEFAULT_REPOSITORY, DEFAULT_ROLES, Repository, Roles


def register(
    ref: Ref,
    run: Annotated[Path, typer.Option(help="The folder of the gate's run with the verdict.")],
    name: Annotated[str, typer.Option(help="The release's name; default: the artifact's.")] = "",
    criteria: Annotated[
        Path | None,
        typer.Option(help="Release criteria (TOML); default: serve/criteria/NAME.toml where that is there."),
    ] = None,
    json_: Json = False,
) -> None:
    """Make an artifact a numbered release. Refused unless the run, judged again from its raw values, is a PASS.

    Where there are criteria, the verdict must meet them too: 1 one failed, 3 one was not checked or could not tell.
    """
    artifact = named(ref)
    chosen = checked(name or artifact.name, "release name", where="--name")
    verdict = rejudge(run)
    assessment = assessed(chosen, verdict, criteria, home=machine.home())
    release = Registry(machine.home() / "releases").register(chosen, artifact, verdict, run=run)
    accepted.accept(machine.home(), *read_gate(run))
    entered(release, open_=assessment.open if assessment else ())
    if json_:
        emit(asdict(release) | ({"criteria": assessment} if assessment else {}))
        return
    out.print(f"{release.label} is {artifact.short}")
    if assessment and assessment.open:
        out.print(f"open until traffic or realised figures decide: {', '.join(assessment.open)}", soft_wrap=True)


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
    backend: Annotated[
        Literal["python", "native"] | None, typer.Option(help="Override the deployment's backend (python or native).")
    ] = None,
    flavour: Annotated[Literal["python", "native"] | None, typer.Option(hidden=True)] = None,
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
    roles: Roles = DEFAULT_ROLES,
    json_: Json = False,
) -> None:
    r"""Write a proven release into the model repository as a new version, with its checked config.pbtxt.

    Proven means: a throwaway server loaded that configuration and answered golden inputs at batch 1, opt and max like
    ONNX Runtime on this machine. Otherwise nothing is placed. Where the deployment names no engine, that of the recipe
    (--recipe, or the one that made it) serves it. Exit codes: 1 the server refused it or gave other answers, 3 this
    machine cannot prove it. A file with \[\[steps]] is an ensemble over placed models: it must answer as its steps do.
    A protected environment (--roles) takes approved releases only. Instances of kind "gpu" have not served yet
    (experimental).
    """
    if deployment.suffix != ".onnx" and is_ensemble(config.read_text(deployment)):
        check_unprotected(repository, roles)
        shown = _placed_ensemble(deployment, repository, tuple(allow_foreign or ()), unproven=unproven)
        _show_placed(*shown, json_=json_)
        return
    found, chosen, of = _wanted(deployment, release, artifact, backend or flavour)
    told = load_recipe(recipe) if recipe is not None else None
    chosen = deployed_as_built(chosen, found, store(), told)
    environment = check_approved(repository, of, found, roles=roles, home=machine.home())
    if elsewhere and not unproven:
        raise UnprovenError(
            "a server on other hardware cannot be proven here, and nothing was placed",
            where=str(deployment),
            next_step="add --unproven, and replay golden inputs on the target machine",
        )
    proof = None if unproven else _proven(found, chosen, told)
    placement = placing(found, chosen, store=store(), repository=repository, elsewhere=elsewhere)
    _enter(placement, of, environment)
    _show_placed(placement, proof, json_=json_)


def _enter(placement: Placement, of: Release | None, environment: str) -> None:
    """Enter what was placed, and where, into the trail."""
    details = {"version": placement.version, "digest": placement.digest, "environment": environment}
    enter("placed", model=placement.name, subject=of.label if of else placement.digest, details=details)


def _wanted(
    path: Path, release: str, artifact: str, backend: Literal["python", "native"] | None
) -> tuple[Artifact, Deployment, Release | None]:
    """Return what to place, how, by a deployment file or an ONNX file as it is, and as which release."""
    if path.suffix == ".onnx":
        found = named(artifact or str(path))
        return found, default_deployment(found, found.name).with_backend(backend), None
    chosen = config.load(path, Deployment).with_backend(backend)
    if artifact:
        return named(artifact), chosen, None
    of = Registry(machine.home() / "releases").get(release or chosen.release)
    return named(of.digest), chosen, of


def _proven(artifact: Artifact, deployment: Deployment, recipe: Recipe | None) -> Proof:
    with progress() as report:
        return prove(artifact, deployment, store=store(), recipe=recipe, progress=report)


def _placed_ensemble(
    path: Path, repository: Path, foreign: tuple[str, ...], *, unproven: bool
) -> tuple[Placement, Proof | None]:
    ensemble = config.load(path, Ensemble)
    with progress() as report:
        report("proof", 0.1, "querying the ensemble and its steps in a throwaway server")
        proof = None if unproven else prove_ensemble(ensemble, repository=repository, foreign=foreign)
    return place_ensemble(ensemble, repository=repository), proof


def _show_placed(placement: Placement, proof: Proof | None, *, json_: bool) -> None:
    if json_:
        emit(placement.to_json() | {"path": str(placement.path), "proof": proof})
        return
    out.print(f"{placement.name} version {placement.version} ({placement.backend}): {placement.path}", soft_wrap=True)
    out.print(f"proven: {proof}" if proof else "NOT proven (--unproven)", soft_wrap=True, markup=False)
