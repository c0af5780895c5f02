"""Routes as a Gateway's HTTPRoute and GRPCRoute, and back: weights of Services, each of which pins one version.

Pure. The weights are the only truth, so reading a route gives the routes that made it, to one part in `WHOLE`. Only
what a client of the model needs is routed: no repository, shared-memory, statistics or metrics call passes the gateway,
no path that names a version, no stream unless streams are offered, and no header that switches the server's behaviour.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RouterError, RoutesError
from ..traffic.routes import Routes
from .cluster import Cluster
from .names import labels, slug, version_of, versioned
from .pod import GRPC, HTTP, Object

WHOLE = 10_000
"""The sum of all weights: shares are exact to a hundredth of a percent."""
_SERVICE = "inference.GRPCInferenceService"
_METHODS = ("ModelInfer", "ModelMetadata", "ModelReady")
STREAM = "ModelStreamInfer"
STRIPPED = ("triton_grpc_error",)
"""Request headers (gRPC metadata) that are removed before a server: they make a stream end with a gRPC error, which
crashes servers before 2.68 (use after free).
"""
KINDS = {"HTTPRoute": HTTP, "GRPCRoute": GRPC}


def weight(share: float) -> int:
    """A share as a weight out of `WHOLE`: the nearest, but never none for some, and never all for not quite all."""
    nearest = round(share * WHOLE)
    if 0.0 < share < 1.0:
        return min(max(nearest, 1), WHOLE - 1)
    return nearest


def weights(routes: Routes) -> dict[int, int]:
    """Weight by version, stable first; they sum to `WHOLE`."""
    if routes.candidate is None:
        return {routes.stable: WHOLE}
    candidate = weight(routes.share)
    return {routes.stable: WHOLE - candidate, routes.candidate: candidate}


def http_route(routes: Routes, cluster: Cluster) -> Object:
    """The HTTPRoute of a model: inference, metadata and readiness without a version; the Service is the version."""
    path = f"/v2/models/{routes.model}"
    matches = [{"path": {"type": "Exact", "value": f"{path}/infer"}, "method": "POST"}]
    matches += [{"path": {"type": "Exact", "value": each}, "method": "GET"} for each in (path, f"{path}/ready")]
    limit = f"{cluster.limits.seconds}s"  # the standard has such a field for HTTP alone
    return _route("HTTPRoute", cluster, matches, routes, {"timeouts": {"request": limit, "backendRequest": limit}})


def grpc_route(routes: Routes, cluster: Cluster) -> Object:
    """The GRPCRoute of a model. The model's name is inside the message, so that its host name tells models apart."""
    methods = (*_METHODS, STREAM) if cluster.streams else _METHODS
    matches = [{"method": {"type": "Exact", "service": _SERVICE, "method": method}} for method in methods]
    return _route("GRPCRoute", cluster, matches, routes, {})


def _route(kind: str, cluster: Cluster, matches: Sequence[Object], routes: Routes, rest: Object) -> Object:
    ours, grpc = cluster.gateway, kind == "GRPCRoute"
    section = ours.grpc_listener if grpc else ours.listener
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": slug(routes.model), "labels": labels(routes.model)},
        "spec": {
            "parentRefs": [
                {"name": ours.name, "namespace": ours.namespace, **({"sectionName": section} if section else {})}
            ],
            "hostnames": [cluster.grpc_hostname if grpc else cluster.hostname],
            "rules": [{"matches": list(matches), **rest, **traffic(routes, KINDS[kind])}],
        },
    }


def traffic(routes: Routes, port: int) -> Object:
    """The part of a rule that says where requests go, and without which headers; a candidate without a share stays."""
    backends = [
        {"name": versioned(routes.model, version), "port": port, "weight": share}
        for version, share in weights(routes).items()
    ]
    filters = [without_headers()]
    mirrored = weight(routes.mirror)
    if routes.candidate is not None and mirrored:
        mirror: Object = {"backendRef": {"name": versioned(routes.model, routes.candidate), "port": port}}
        if mirrored < WHOLE:
            mirror["fraction"] = {"numerator": mirrored, "denominator": WHOLE}
        filters.insert(0, {"type": "RequestMirror", "requestMirror": mirror})
    return {"filters": filters, "backendRefs": backends}


def without_headers() -> Object:
    """The filter that removes `STRIPPED` from a request."""
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": list(STRIPPED)}}


def read(route: Mapping[str, Any], model: str) -> Routes:
    """The routes that a HTTPRoute or GRPCRoute puts into force.

    Raises:
        RouterError: it was not written by `http_route` or `grpc_route`, or was changed into something else.
    """
    try:
        [rule] = route["spec"]["rules"]
        backends = [(version_of(each["name"], model), int(each.get("weight", 1))) for each in rule["backendRefs"]]
        mirrors = [each["requestMirror"] for each in rule.get("filters", []) if each["type"] == "RequestMirror"]
        versions, total = [version for version, _ in backends], sum(share for _, share in backends)
        if None in versions or len(backends) > 2 or len(mirrors) > 1 or total <= 0:
            raise ValueError("its backends are other services, or none has a weight")
        if mirrors and version_of(mirrors[0]["backendRef"]["name"], model) != versions[-1]:
            raise ValueError("its mirror does not point to the candidate")
        stable, candidate = versions[0], versions[1] if len(versions) == 2 else None
        return Routes(
            model=model,
            stable=int(stable or 0),
            candidate=candidate,
            share=backends[1][1] / total if candidate is not None else 0.0,
            mirror=_mirrored(mirrors[0]) if mirrors else 0.0,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RoutesError) as error:
        raise RouterError(
            f"the route in the cluster was not written by seatrial: {error}",
            where=f"{route.get('kind', 'route')} of {model}",
            next_step="remove it, or apply the manifests that seatrial render writes",
        ) from error


def _mirrored(mirror: Mapping[str, Any]) -> float:
    if "percent" in mirror:
        return float(mirror["percent"]) / 100
    fraction = mirror.get("fraction")
    return float(fraction["numerator"]) / float(fraction.get("denominator", 100)) if fraction else 1.0


def broken(route: Mapping[str, Any]) -> list[str]:
    """Rules of the Gateway API that a route breaks, as far as no schema is at hand to check them."""
    said, spec = [], route.get("spec", {})
    for rule in spec.get("rules", []):
        shares = [backend.get("weight", 1) for backend in rule.get("backendRefs", [])]
        said += [
            f"weight must be between 0 and 1000000, got {share}" for share in shares if not 0 <= share <= 1_000_000
        ]
        if not shares or sum(shares) == 0:
            said.append("no backend has a weight, so every request would get status 500")
        for each in rule.get("filters", []):
            mirror = each.get("requestMirror")
            if each.get("type") == "RequestMirror" and not (mirror or {}).get("backendRef", {}).get("port"):
                said.append("RequestMirror needs a backendRef with a port")
            elif mirror and {"percent", "fraction"} <= set(mirror):
                said.append("RequestMirror has both percent and fraction")
            elif mirror and (fraction := mirror.get("fraction")) and fraction["numerator"] > fraction["denominator"]:
                said.append("RequestMirror exceeds 100 percent")
        if route["kind"] == "HTTPRoute":
            paths = [match.get("path", {}).get("value", "/") for match in rule.get("matches", [])]
            said += [
                f"path must be absolute, got {path!r}" for path in paths if not path.startswith("/") or "//" in path
            ]
        said += ["a rule has more than 64 matches"] if len(rule.get("matches", [])) > 64 else []
    return said
