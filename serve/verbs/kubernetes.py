"""The verb that writes manifests: a thin skin over `serve.kubernetes.render`."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import config
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, err, out

from ..deployment import Deployment
from ..kubernetes import render as rendering
from ..kubernetes.cluster import Cluster
from ..kubernetes.source import newest
from ..shipped import shipped
from ..traffic.routes import Routes
from .options import DEFAULT_REPOSITORY, Repository


def render(
    deployment: Annotated[Path, typer.Argument(help="The deployment (TOML), serve/deployments/*.toml.")],
    into: Annotated[Path, typer.Option("--out", help="The output folder; a folder rendered earlier is replaced.")],
    cluster: Annotated[Path, typer.Option(help="The cluster (TOML): image, gateway, limits, environments.")] = Path(
        "serve/clusters/example.toml"
    ),
    repository: Repository = DEFAULT_REPOSITORY,
    stable: Annotated[int, typer.Option(help="The version for the traffic; 0: the newest placed.")] = 0,
    candidate: Annotated[int, typer.Option(help="The version on trial; 0: none.")] = 0,
    share: Annotated[float, typer.Option(help="The candidate's fraction of live requests, 0 to 1.")] = 0.0,
    mirror: Annotated[float, typer.Option(help="The fraction copied to the candidate beside the live answer.")] = 0.0,
    kserve: Annotated[bool, typer.Option("--kserve", help="Also write a KServe InferenceService.")] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ENV ENV", help="Write nothing: compare two environments in --out as they lie there."),
    ] = None,
    argo: Annotated[bool, typer.Option("--argo", help="Also write an Argo Rollout and its analysis.")] = False,
    json_: Json = False,
) -> None:
    """Write a Kustomize base with dev, staging and prod overlays for placed versions of a model (experimental).

    Each version has its own server, pinned by its Service; HTTPRoute weights come from the same routes that drive
    Envoy. Before applying, check the result with kubectl kustomize DIR/overlays/prod and seatrial audit DIR. With
    --diff, the namespace, copies and the image's digest may differ; anything else was edited by hand (exit code 1).
    """
    if diff is not None:
        raise typer.Exit(_compare(into, *diff, json_=json_))
    chosen, place = config.load(deployment, Deployment), config.load(shipped(cluster), Cluster)
    routes = Routes(
        model=chosen.name,
        stable=stable or newest(repository, chosen.name),
        candidate=candidate or None,
        share=share,
        mirror=mirror,
    )
    extras = [name for name, wanted in (("kserve", kserve), ("argo", argo)) if wanted]
    versions = rendering.sources(repository, routes, place)
    files = rendering.render(chosen, versions, routes, place, extras=extras)
    rendering.write(files, into)
    left = rendering.left_to_do(chosen, versions, place)
    if json_:
        emit({"folder": str(into), "files": sorted(files), "versions": list(routes.versions), "left_to_do": left})
        return
    out.print(f"wrote {len(files)} files to {into} for version {', '.join(map(str, routes.versions))}", soft_wrap=True)
    for line in left:
        err.print(f"still required: {line}", markup=False, soft_wrap=True, highlight=False)


def _compare(folder: Path, first: str, second: str, *, json_: bool) -> int:
    """Print what differs between two environments beyond what may; return the exit code."""
    from ..kubernetes.environments import differences
    from ..kubernetes.on_kustomize import built

    found = differences(built(folder, first), built(folder, second))
    if json_:
        emit({"first": first, "second": second, "differences": found})
    elif found:
        rows = [(f"{each.kind} {each.name}", each.field, each.first, each.second) for each in found]
        out.print(table(("object", "field", first, second), rows, left=("object", "field", first, second)))
    else:
        out.print(f"{first} and {second} differ in namespace, copies and image digest alone")
    return int(bool(found))
