"""Routes and policies of gateways in a cluster: Gateway API, Envoy Gateway, Istio and Ingress for nginx.

Pure. Judges what callers may send to a Triton through them, and what is done about failures that callers cause. What
no object says is an implementation's default; those that are known to be open are findings where a policy stands that
could say better.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from seatrial.optimize.breach import Breach

from .envoy import retries
from .reading import number, told
from .rules import breach

Object = Mapping[str, Any]
_HEADER = "triton_grpc_error"
_STREAM = "ModelStreamInfer"
_NGINX = "nginx.ingress.kubernetes.io/"


def audit(document: Object, where: str, kinds: set[str]) -> Iterator[Breach]:
    """Return what one object lets through; `kinds` are those of all objects that are looked at."""
    judge = _JUDGES.get(document["kind"])
    if judge is not None:
        yield from judge(document, where)
    if document["kind"] == "ClientTrafficPolicy" and "EnvoyExtensionPolicy" not in kinds:
        # Envoy Gateway has no field for either: only an extension that looks into requests can bound them.
        yield breach("large-headers", where, "no extension limits the headers, 60 kB by default")
        yield breach("json-depth", where, "no extension inspects bodies")


def silent(documents: Sequence[tuple[str, Object]]) -> list[str]:
    """Return what no object here says of a gateway that routes lead through, and that is therefore not known."""
    kinds = {document["kind"] for _, document in documents}
    if kinds & {"HTTPRoute", "GRPCRoute"} and not kinds & {"ClientTrafficPolicy", "EnvoyFilter"}:
        return [
            (
                "the gateway's limits on bodies, headers, JSON nesting, slow requests and connections: none "
                "of its policies is among the files"
            )
        ]
    return []


def _http_route(route: Object, where: str) -> Iterator[Breach]:
    for rule in route["spec"].get("rules", []):
        for match in rule.get("matches") or [{}]:
            path = match.get("path", {"type": "PathPrefix", "value": "/"})
            inside = path["value"].startswith("/v2/models/") and path["value"].count("/") >= 3
            if path.get("type", "PathPrefix") != "Exact" and not (inside and path["value"].endswith("/infer")):
                yield breach("wide-route", where, f"{path.get('type', 'PathPrefix')} {told(path['value'])}")
        if not rule.get("timeouts") and rule.get("backendRefs"):
            yield breach("no-timeout", where, "a rule has no timeouts")
        codes = {int(number(each) or 0) for each in (rule.get("retry") or {}).get("codes", [])}
        if codes & {500, 502, 503, 504}:
            yield breach("retries-again", where, f"retry on {sorted(codes)}")


def _grpc_route(route: Object, where: str) -> Iterator[Breach]:
    for rule in route["spec"].get("rules", []):
        methods = [match.get("method", {}) for match in rule.get("matches") or [{}]]
        for method in methods:
            if not method.get("method"):
                yield breach("wide-route", where, "every method of the service is routed")
        removed = [
            str(name).lower()
            for each in rule.get("filters", [])
            for name in each.get("requestHeaderModifier", {}).get("remove", [])
        ]
        if any(method.get("method") in (None, _STREAM) for method in methods) and _HEADER not in removed:
            yield breach("stream-metadata", where, f"{_STREAM} passes with any metadata")


def _backend_traffic(policy: Object, where: str) -> Iterator[Breach]:
    """Envoy Gateway's policy for what happens behind it."""
    spec = policy["spec"]
    triggers = (spec.get("retry") or {}).get("retryOn", {}).get("triggers", [])
    yield from retries(",".join(map(str, triggers)), where)
    passive = (spec.get("healthCheck") or {}).get("passive")
    if isinstance(passive, dict):
        yield from _ejection(
            where,
            most=number(passive.get("maxEjectionPercent", 10)) or 0,
            counts=bool(number(passive.get("consecutive5XxErrors", 5))),
            seen="consecutive5XxErrors",
        )
    targets = spec.get("targetRefs") or [spec.get("targetRef") or {}]
    streams = all(each.get("kind") == "GRPCRoute" for each in targets)
    if not spec.get("requestBuffer") and not streams and any(each.get("kind") != "TCPRoute" for each in targets):
        yield breach("proxy-body-limit", where, "no requestBuffer.limit")


def _client_traffic(policy: Object, where: str) -> Iterator[Breach]:
    """Envoy Gateway's policy for what callers may do."""
    spec = policy["spec"]
    if not ((spec.get("connection") or {}).get("connectionLimit") or {}).get("value"):
        yield breach("no-connection-limit", where, "no connection.connectionLimit.value")
    http = (spec.get("timeout") or {}).get("http") or {}
    if not http.get("requestReceivedTimeout") and not _for_grpc_alone(spec):
        yield breach("slow-requests", where, "no timeout.http.requestReceivedTimeout")
    if (spec.get("headers") or {}).get("withUnderscoresAction") == "Allow":
        yield breach("underscore-headers", where, "headers.withUnderscoresAction is Allow")
    if (spec.get("path") or {}).get("escapedSlashesAction") == "KeepUnchanged":
        yield breach("path-as-sent", where, "path.escapedSlashesAction is KeepUnchanged")


def _for_grpc_alone(spec: Object) -> bool:
    """Return whether a policy holds for one listener that is called gRPC's, where streams stay open."""
    targets = spec.get("targetRefs") or [spec.get("targetRef") or {}]
    return all("grpc" in str(each.get("sectionName", "")) for each in targets)


def _destination_rule(rule: Object, where: str) -> Iterator[Breach]:
    """Istio's, with its subsets."""
    spec = rule["spec"]
    for each in (spec, *(spec.get("subsets") or [])):
        detection = (each.get("trafficPolicy") or {}).get("outlierDetection")
        if not isinstance(detection, dict):
            continue
        counts = number(detection.get("consecutive5xxErrors", detection.get("consecutiveErrors", 5)))
        yield from _ejection(
            where,
            most=number(detection.get("maxEjectionPercent", 10)) or 0,
            counts=bool(counts),
            seen="consecutive5xxErrors",
        )


def _virtual_service(service: Object, where: str) -> Iterator[Breach]:
    """Istio's routes."""
    for route in service["spec"].get("http") or []:
        retry = route.get("retries") or {}
        if number(retry.get("attempts", 2)) != 0:
            yield from retries(retry.get("retryOn"), where)
        if not route.get("timeout") and route.get("route"):
            yield breach("no-timeout", where, "an HTTP route has no timeout")


def _ejection(where: str, *, most: float, counts: bool, seen: str) -> Iterator[Breach]:
    if counts and most >= 100:
        yield breach("ejects-everybody", where, f"{seen}, maxEjectionPercent {most:g}")
    elif counts:
        yield breach("ejects-on-5xx", where, f"{seen} is not 0")


def _ingress(ingress: Object, where: str) -> Iterator[Breach]:
    """An Ingress, with the annotations of ingress-nginx."""
    for rule in ingress["spec"].get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            service = (path.get("backend") or {}).get("service") or {}
            triton = "triton" in str(service.get("name", "")) or (service.get("port") or {}).get("number") in (
                8000,
                8001,
            )
            if triton and path.get("pathType") != "Exact" and path.get("path", "/") in ("/", "/v2", "/v2/"):
                yield breach("wide-route", where, f"{path.get('pathType')} {told(path.get('path', '/'))} to a Triton")
    notes = (ingress.get("metadata") or {}).get("annotations") or {}
    if re.fullmatch(r"0[kmg]?", str(notes.get(f"{_NGINX}proxy-body-size", "")), re.I):
        yield breach("proxy-body-limit", where, "proxy-body-size 0")
    again = str(notes.get(f"{_NGINX}proxy-next-upstream", "")).split()
    if "non_idempotent" in again and set(again) & {"error", "timeout", "invalid_header", "http_500", "http_502"}:
        yield breach("retries-again", where, f"proxy-next-upstream {told(' '.join(again))}")


_JUDGES: dict[str, Callable[[Object, str], Iterator[Breach]]] = {
    "HTTPRoute": _http_route,
    "GRPCRoute": _grpc_route,
    "BackendTrafficPolicy": _backend_traffic,
    "ClientTrafficPolicy": _client_traffic,
    "DestinationRule": _destination_rule,
    "VirtualService": _virtual_service,
    "Ingress": _ingress,
}
KINDS = frozenset(_JUDGES)
