"""From a deployment, its routes and a cluster to a folder of manifests: a Kustomize base and three overlays.

Writes files; talks to no cluster. The base holds one server for every version that may get a request, and the routes
between them; the same `Routes` drive Envoy's files on one machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seatrial.optimize import experimental
from seatrial.optimize.errors import ConfigError

from ..deployment import Deployment
from ..errors import RoutesError
from ..generated import swapped
from ..generated import yaml_text as _text
from ..traffic.routes import Routes
from ..triton.compiler.config import parse
from . import argo, envoy_gateway, kserve, server
from .cluster import PLACEHOLDER, Cluster
from .names import versioned
from .overlay import ENVIRONMENTS, digest_for, kustomization
from .pod import Object
from .routes import broken, grpc_route, http_route
from .scaling import adapter_rule, autoscaler
from .source import Source, read_source

MARK = ".seatrial-rendered"
"""Marks a folder that `write` created and may therefore replace."""
EXTRAS = ("kserve", "argo")


def sources(repository: Path, routes: Routes, cluster: Cluster) -> list[Source]:
    """Every version that the routes name, as placed.

    Raises:
        MissingError: one is not placed.
        ConfigRuleError: the image cannot serve it.
    """
    return [read_source(repository, routes.model, version, image=cluster.image) for version in routes.versions]


def base(
    deployment: Deployment, versions: Sequence[Source], routes: Routes, cluster: Cluster
) -> dict[str, list[Object]]:
    """The base's documents by file name.

    Raises:
        RoutesError: routes that a Gateway cannot take.
    """
    files: dict[str, list[Object]] = {}
    smallest = cluster.environments["dev"]
    for source in versions:
        files[f"{versioned(source.model, source.version)}.yaml"] = [
            server.config(source),
            server.deployment(source, cluster, gpu=deployment.instances.kind == "gpu"),
            server.service(source),
            server.disruption_budget(source),
            autoscaler(source, cluster, smallest),
        ]
    files["network-policy.yaml"] = [server.network_policy(deployment.name, cluster)]
    files["routes.yaml"] = [http_route(routes, cluster)]
    if cluster.grpc_hostname:
        files["routes.yaml"].append(grpc_route(routes, cluster))
    if cluster.gateway.implementation == "envoy-gateway":
        files["policies.yaml"] = envoy_gateway.of_routes(routes, cluster)
    for route in files["routes.yaml"]:
        for rule in broken(route):
            raise RoutesError(rule, where=f"{route['kind']} of {routes.model}", next_step="fix the routes")
    return files


def documents(files: Mapping[str, Sequence[Object]]) -> list[Object]:
    """All documents of the base, in the order in which its kustomization lists them."""
    return [document for name in sorted(files) for document in files[name]]


def render(
    deployment: Deployment,
    versions: Sequence[Source],
    routes: Routes,
    cluster: Cluster,
    *,
    extras: Sequence[str] = (),
) -> dict[str, str]:
    """Every file's text by its path in the folder.

    Raises:
        RoutesError: routes that a Gateway, KServe or Argo cannot take.
    """
    experimental.used(experimental.KUBERNETES)
    files = base(deployment, versions, routes, cluster)
    made = {f"base/{name}": _text(content) for name, content in files.items()}
    made["base/kustomization.yaml"] = _text([_listing(sorted(files))])
    for name in ENVIRONMENTS:
        made[f"overlays/{name}/kustomization.yaml"] = _text([kustomization(name, cluster)])
    made["monitoring/prometheus-adapter-values.yaml"] = _text([adapter_rule()])
    if cluster.gateway.implementation == "envoy-gateway":  # outside the overlays, which would move them
        made["gateway/policies.yaml"] = _text(envoy_gateway.of_gateway(cluster))
        made["gateway/kustomization.yaml"] = _text([_listing(["policies.yaml"])])
    prod = cluster.environments["prod"].least
    if "kserve" in extras:
        made["kserve/inference-service.yaml"] = _text([kserve.inference_service(routes, cluster, replicas=prod)])
        made["kserve/kustomization.yaml"] = _text([_listing(["inference-service.yaml"])])
    if "argo" in extras:
        made |= _argo(deployment, versions, routes, cluster, prod)
    return made


def _argo(
    deployment: Deployment, versions: Sequence[Source], routes: Routes, cluster: Cluster, replicas: int
) -> dict[str, str]:
    """A base of its own: one Rollout instead of a Deployment per version, with the newest version as its template."""
    newest = next(each for each in versions if each.version == (routes.candidate or routes.stable))
    gpu = deployment.instances.kind == "gpu"
    files = {
        "config.yaml": [server.config(each) for each in versions],
        "network-policy.yaml": [server.network_policy(deployment.name, cluster)],
        "rollout.yaml": [
            argo.rollout(newest, cluster, stable=routes.stable, replicas=replicas, gpu=gpu),
            argo.analysis(deployment.name, cluster),
            *argo.services(routes),
        ],
        "routes.yaml": [argo.route(http_route(routes, cluster))],
    }
    pinned = _listing(sorted(files)) | {"images": [{"name": cluster.image, "digest": digest_for("prod", cluster)}]}
    made = {f"argo/{name}": _text(content) for name, content in files.items()}
    return made | {"argo/kustomization.yaml": _text([pinned])}


def write(files: Mapping[str, str], folder: Path) -> None:
    """Put the files into a folder, which then holds nothing else; all of them or none.

    Raises:
        ConfigError: the folder holds something that is not of our making.
        MachineError: the disk refused.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "the folder contains files that seatrial did not render",
            where=str(folder),
            next_step="name an empty folder",
        )
    with swapped({**files, MARK: "seatrial render rewrites this folder on each run."}, folder, "manifests"):
        pass


def left_to_do(deployment: Deployment, versions: Sequence[Source], cluster: Cluster) -> list[str]:
    """Return the manual steps that remain before the manifests can be applied."""
    said = [
        f"a Secret {cluster.control_secret} with a file `key` in each namespace: kubectl create secret generic "
        f"{cluster.control_secret} --from-file=key=FILE -n {cluster.namespace('prod')}",
        f"a PersistentVolumeClaim {cluster.claim} with the model repository, {deployment.name}/VERSION in it",
    ]
    if digest_for("prod", cluster) == PLACEHOLDER:
        said.insert(
            0, (f"the digest of {cluster.image}:{cluster.release} in the cluster file: prod does not start without it")
        )
    return said + _left_at_the_gateway(versions, cluster)


def _left_at_the_gateway(versions: Sequence[Source], cluster: Cluster) -> list[str]:
    """Return the steps that only the operator of the gateway can do."""
    ours, said = cluster.gateway, []
    if ours.implementation == "envoy-gateway":
        said.append(
            f"gateway/ applied in namespace {ours.namespace}, and the Gateway {ours.name} pointed at its EnvoyProxy "
            f"(spec.infrastructure.parametersRef: {ours.name}-seatrial)"
        )
    else:
        said.append(
            "limits on request bodies, headers, JSON nesting, slow requests and connections: the "
            "standard Gateway API has no fields for them (write [gateway] implementation = "
            '"envoy-gateway" in the cluster file to render its policies)'
        )
    if not cluster.streams and any(parse(each.config).model_transaction_policy.decoupled for each in versions):
        said.append("streams = true in the cluster file: the model is decoupled, and no route reaches it otherwise")
    return said


def _listing(names: Sequence[str]) -> Object:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(names),
    }
