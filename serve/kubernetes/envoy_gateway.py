"""Policies of Envoy Gateway beside the routes: bounds on what callers may send, and what is done about failures.

Pure. Fields were read in Envoy Gateway 1.5 to 1.9; none has met a controller. What the standard Gateway API has no word
for stands here: size, time and number of requests, retries, ejection, and the guard program.
"""

from ..traffic.routes import Routes
from .cluster import Cluster
from .gateway_log import FORMAT
from .guard import lua
from .names import labels, slug
from .pod import Object
from .routes import STRIPPED

VERSION = "gateway.envoyproxy.io/v1alpha1"
_ROUTES = "gateway.networking.k8s.io"
_IDLE_SECONDS = 60
_FRAME = 64 << 10  # what framing adds to a body while it is held


def of_routes(routes: Routes, cluster: Cluster, guard: str = "") -> list[Object]:
    """The policies in the model's namespace; `guard` replaces the Lua program (default: `guard.lua`)."""
    policies = [_backend(routes.model, cluster, "HTTPRoute")]
    if cluster.grpc_hostname:
        policies.append(_backend(routes.model, cluster, "GRPCRoute"))
    return [*policies, _extension(routes.model, cluster, guard or lua(cluster.limits))]


def of_gateway(cluster: Cluster) -> list[Object]:
    """The policies in the Gateway's namespace, one for each listener that is named, and what its proxies log."""
    ours = cluster.gateway
    made = [_client(cluster, ours.listener, streams=False)]
    if ours.grpc_listener and ours.grpc_listener != ours.listener:
        made.append(_client(cluster, ours.grpc_listener, streams=cluster.streams))
    return [*made, _proxy(cluster)]


def _policy(kind: str, name: str, spec: Object, own: Object) -> Object:
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": name, "labels": own}, "spec": spec}


def _targets(model: str, *kinds: str) -> Object:
    return {"targetRefs": [{"group": _ROUTES, "kind": kind, "name": slug(model)} for kind in kinds]}


def _backend(model: str, cluster: Cluster, kind: str) -> Object:
    """Return how requests are passed on: once, within bounds, and without ejecting a version for all callers.

    A request is tried again only where no connection was made, so that one that ended a server is not sent to the next.
    Only failures to connect eject an endpoint, and never more than half of them; 0 turns the other causes off.
    """
    limits, streams = cluster.limits, cluster.streams and kind == "GRPCRoute"
    spec: Object = {
        **_targets(model, kind),
        "timeout": {
            "tcp": {"connectTimeout": "1s"},
            "http": {"requestTimeout": "0s" if streams else f"{limits.seconds}s"},
        },
        "retry": {"numRetries": 1, "retryOn": {"triggers": ["connect-failure"]}},
        "circuitBreaker": {
            "maxConnections": limits.requests,
            "maxPendingRequests": limits.pending,
            "maxParallelRequests": limits.requests,
            "maxParallelRetries": 3,
        },
        "healthCheck": {
            "passive": {
                "splitExternalLocalOriginErrors": True,
                "consecutiveLocalOriginFailures": 5,
                "consecutive5XxErrors": 0,
                "interval": "1s",
                "baseEjectionTime": "5s",
                "maxEjectionPercent": 50,
            }
        },
        "connection": {"bufferLimit": limits.body_bytes + _FRAME},
    }
    if not streams:  # a body is passed on when it is complete, or refused when it is too large
        spec["requestBuffer"] = {"limit": limits.body}
    return _policy("BackendTrafficPolicy", f"{slug(model)}-{kind[:4].lower()}", spec, labels(model))


def _extension(model: str, cluster: Cluster, guard: str) -> Object:
    kinds = ("HTTPRoute", "GRPCRoute") if cluster.grpc_hostname else ("HTTPRoute",)
    spec = {**_targets(model, *kinds), "lua": [{"type": "Inline", "inline": guard}]}
    return _policy("EnvoyExtensionPolicy", slug(model), spec, labels(model))


def _client(cluster: Cluster, listener: str, *, streams: bool) -> Object:
    """Return what a connection from outside may do. One policy holds for every route of the listener."""
    limits, ours = cluster.limits, cluster.gateway
    section = {"sectionName": listener} if listener else {}
    times: Object = {"idleTimeout": f"{_IDLE_SECONDS}s"}
    if not streams:
        times["requestReceivedTimeout"] = f"{limits.receive_seconds}s"
    spec: Object = {
        "targetRefs": [{"group": _ROUTES, "kind": "Gateway", "name": ours.name, **section}],
        "connection": {
            "connectionLimit": {"value": limits.connections},
            "bufferLimit": limits.body_bytes + _FRAME,
        },
        "timeout": {"http": times},
        "http2": {"maxConcurrentStreams": 100, "onInvalidMessage": "TerminateConnection"},
        "path": {"escapedSlashesAction": "RejectRequest", "disableMergeSlashes": False},
        "headers": {"withUnderscoresAction": "RejectRequest", "earlyRequestHeaders": {"remove": list(STRIPPED)}},
    }
    made = _policy("ClientTrafficPolicy", "-".join(filter(None, (ours.name, listener))), spec, _own())
    made["metadata"]["namespace"] = ours.namespace
    return made


def _proxy(cluster: Cluster) -> Object:
    """Log lines that `gateway_log` reads, and a memory limit.

    With the limit Envoy Gateway lets its overload manager stop taking requests at 98 % of four fifths of it.
    """
    sinks = [{"type": "File", "file": {"path": "/dev/stdout"}}]
    container = {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}}
    spec: Object = {
        "telemetry": {"accessLog": {"settings": [{"sinks": sinks, "format": {"type": "JSON", "json": dict(FORMAT)}}]}},
        "provider": {"type": "Kubernetes", "kubernetes": {"envoyDeployment": {"container": container}}},
    }
    made = _policy("EnvoyProxy", f"{cluster.gateway.name}-seatrial", spec, _own())
    made["metadata"]["namespace"] = cluster.gateway.namespace
    return made


def _own() -> Object:
    return {"app.kubernetes.io/part-of": "seatrial", "app.kubernetes.io/managed-by": "seatrial"}
