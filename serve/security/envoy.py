"""Envoy configurations that someone else wrote: bootstrap files, and listeners and clusters of file-based discovery.

Pure. Judges what stands before a Triton: limits that meet the server's, failures that callers cause, and what is done
about them. A listener on loopback or a socket is of private severity, as everywhere.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seatrial.optimize.breach import Breach

from .reading import number, told
from .rules import TRITON_HEADER_KB, breach

Object = Mapping[str, Any]
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")
_MANAGER = "HttpConnectionManager"
_DEFAULT_HEADERS_KB = 60
_AUTHENTICATES = ("jwt_authn", "ext_authz", "api_key_auth", "basic_auth", "oauth2", "rbac", "credential")
_INSPECTS = ("lua", "wasm", "ext_proc", "golang", "dynamic_modules")
_TRITON, _TRITON_GRPC = re.compile(r"triton|inference", re.I), 8001
_RESENDS = ("5xx", "gateway-error", "reset")


def is_envoy(document: object) -> bool:
    """Return whether a document is an Envoy configuration, whole or a discovery file."""
    if not isinstance(document, dict) or isinstance(document.get("kind"), str):
        return False
    keys = {_snake(str(key)) for key in document}
    resources = document.get("resources")
    discovered = isinstance(resources, list) and any(
        isinstance(each, dict) and "envoy.config" in str(each.get("@type", "")) for each in resources
    )
    return bool(keys & {"static_resources", "dynamic_resources", "overload_manager"}) or discovered


@dataclass(slots=True)
class _Parts:
    """Combined definitions of the documents of one audit, which discovery spreads over files."""

    listeners: list[tuple[str, Object]] = field(default_factory=list)
    clusters: dict[str, tuple[str, Object]] = field(default_factory=dict)
    tables: list[tuple[str, Object]] = field(default_factory=list)
    bootstraps: list[tuple[str, Object]] = field(default_factory=list)


def audit(documents: list[tuple[str, Any]]) -> Iterator[Breach]:
    """Everything found in those documents that are Envoy's."""
    parts = _Parts()
    for where, document in documents:
        if is_envoy(document):
            try:
                _take(_normal(document), where, parts)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                yield breach("malformed", where, f"{type(error).__name__}: {told(error)}")
    managers: list[_Door] = []
    for where, listener in parts.listeners:
        yield from _safely(_listener, listener, f"{where}: listener {told(listener.get('name', ''))}", managers)
    exposed = any(each.exposed for each in managers) or not managers
    for where, bootstrap in parts.bootstraps:
        yield from _safely(_bootstrap, bootstrap, where, exposed)
    large = any(each.header_kb > TRITON_HEADER_KB for each in managers)
    for where, cluster in parts.clusters.values():
        yield from _safely(_cluster, cluster, f"{where}: cluster {told(cluster.get('name', ''))}", exposed, large)
    for where, table in parts.tables:
        yield from _safely(_table, table, where, exposed, parts)


def _safely(part: Any, value: Object, where: str, *rest: Any) -> Iterator[Breach]:
    try:
        yield from list(part(value, where, *rest))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        yield breach("malformed", where, f"{type(error).__name__}: {told(error)}")


def _take(document: Object, where: str, parts: _Parts) -> None:
    static = document.get("static_resources") or {}
    listeners = _list(static.get("listeners"))
    clusters = _list(static.get("clusters"))
    if set(document) & {"static_resources", "dynamic_resources", "admin", "overload_manager"}:
        parts.bootstraps.append((where, document))
    for each in _list(document.get("resources")):
        kind = str(each.get("@type", "")).rpartition(".")[2]
        if kind == "Listener":
            listeners.append(each)
        elif kind == "Cluster":
            clusters.append(each)
        elif kind == "RouteConfiguration":
            parts.tables.append((where, each))
    parts.clusters |= {str(each.get("name", "")): (where, each) for each in clusters}
    for listener in listeners:
        parts.listeners.append((where, listener))
        parts.tables += [
            (f"{where}: listener {told(listener.get('name', ''))}", manager["route_config"])
            for manager in _managers(listener)
            if isinstance(manager.get("route_config"), dict)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """One HTTP connection manager: who reaches it, and how large headers may be."""

    exposed: bool
    header_kb: float


def _bootstrap(document: Object, where: str, exposed: bool) -> Iterator[Breach]:
    admin = (document.get("admin") or {}).get("address") or {}
    host = (admin.get("socket_address") or {}).get("address")
    if host is not None and not _loopback(str(host)):
        yield breach("open-admin", where, f"admin on {told(host)}")
    manager = document.get("overload_manager") or {}
    monitors = [str(each.get("name", "")) for each in _list(manager.get("resource_monitors"))]
    heap = [each for each in monitors if "heap" in each or "cgroup_memory" in each]
    acted = [
        action
        for action in _list(manager.get("actions"))
        if any(str(trigger.get("name", "")) in heap for trigger in _list(action.get("triggers")))
    ]
    if not acted:
        yield breach("no-overload-manager", where, "no action on the heap's size", exposed=exposed)
    layers = _list((document.get("layered_runtime") or {}).get("layers"))
    runtime = _mentions(layers, "global_downstream_max_connections")
    limited = _mentions(document.get("static_resources"), "envoy.filters.network.connection_limit")
    if not runtime and not limited and not any("downstream_max_connections" in each for each in monitors):
        yield breach("no-connection-limit", where, "no global_downstream_max_connections", exposed=exposed)


def _managers(listener: Object) -> list[Object]:
    chains = [*_list(listener.get("filter_chains")), *_list(listener.get("default_filter_chain"))]
    found = []
    for chain in chains:
        for each in _list(chain.get("filters")):
            config = _config(each)
            if str(config.get("@type", "")).endswith(_MANAGER):
                found.append(config)
    return found


def _config(filter_: Object) -> Object:
    """A filter's configuration, out of the wrapper that a typed struct is."""
    config = filter_.get("typed_config") or {}
    if str(config.get("@type", "")).endswith("TypedStruct"):
        return {"@type": config.get("type_url", ""), **(config.get("value") or {})}
    return dict(config)


def _listener(listener: Object, where: str, doors: list[_Door]) -> Iterator[Breach]:
    address = (listener.get("address") or {}).get("socket_address") or {}
    if not address:
        return  # a socket of this machine, or inside this proxy: callers come through another listener
    exposed = not _loopback(str(address.get("address", "")))
    encrypted = any(chain.get("transport_socket") for chain in _list(listener.get("filter_chains")))
    for manager in _managers(listener):
        most = number(manager.get("max_request_headers_kb", _DEFAULT_HEADERS_KB)) or _DEFAULT_HEADERS_KB
        doors.append(_Door(exposed=exposed, header_kb=most))
        filters = [str(each.get("name", "")) for each in _list(manager.get("http_filters"))]
        inspected = any(word in name for name in filters for word in _INSPECTS)
        if most > TRITON_HEADER_KB:
            yield breach("large-headers", where, f"max_request_headers_kb {most:g}", exposed=exposed)
        if not any("buffer" in name for name in filters):
            yield breach("proxy-body-limit", where, "no buffer filter with max_request_bytes", exposed=exposed)
        if _absent(manager.get("request_timeout")):
            yield breach("slow-requests", where, "no request_timeout", exposed=exposed)
        if not manager.get("normalize_path"):
            yield breach("path-as-sent", where, "normalize_path is not true", exposed=exposed)
        options = manager.get("common_http_protocol_options") or {}
        if str(options.get("headers_with_underscores_action", "ALLOW")).upper() in ("ALLOW", "0"):
            yield breach("underscore-headers", where, "headers_with_underscores_action is ALLOW", exposed=exposed)
        if not inspected:
            yield breach("json-depth", where, "no filter inspects request bodies", exposed=exposed)
        if exposed and not encrypted and not any(word in name for name in filters for word in _AUTHENTICATES):
            yield breach("open-proxy", where, f"{told(address.get('address'))} without TLS or authentication")


def _cluster(cluster: Object, where: str, exposed: bool, large: bool) -> Iterator[Breach]:
    detection = cluster.get("outlier_detection")
    if not isinstance(detection, dict):
        return
    most = number(detection.get("max_ejection_percent", 10)) or 0
    counts = _counted(detection, "consecutive_5xx", 5, enforced=100)
    gateway = _counted(detection, "consecutive_gateway_failure", 5, enforced=0)
    if most >= 100 and (counts or (gateway and large)):
        what = "consecutive_5xx" if counts else "consecutive_gateway_failure"
        yield breach("ejects-everybody", where, f"{what}, max_ejection_percent {most:g}", exposed=exposed)
    elif counts:
        yield breach("ejects-on-5xx", where, "consecutive_5xx is enforced", exposed=exposed)


def _counted(detection: Object, name: str, default: int, *, enforced: int) -> bool:
    """Return whether failures of that kind eject; a number of 0 is never reached."""
    enforcing = number(detection.get(f"enforcing_{name}", enforced)) or 0
    return bool(enforcing) and bool(number(detection.get(name, default)) or 0)


def _table(table: Object, where: str, exposed: bool, parts: _Parts) -> Iterator[Breach]:
    for host in _list(table.get("virtual_hosts")):
        for policy in (host.get("retry_policy"), *(_action(each).get("retry_policy") for each in _routes(host))):
            yield from retries((policy or {}).get("retry_on"), where, exposed=exposed)
        for route in _routes(host):
            action, match = _action(route), route.get("match") or {}
            if "timeout" in action and _absent(action["timeout"]):
                yield breach("no-timeout", where, f"timeout {told(action['timeout'])}", exposed=exposed)
            prefix = match.get("prefix")
            wide = prefix in ("/", "/v2", "/v2/") or (
                match.get("safe_regex") and ".*" in str((match["safe_regex"] or {}).get("regex", ""))
            )
            if wide and action and _is_triton(action, parts):
                yield breach("wide-route", where, f"{told(prefix or match.get('safe_regex'))} to a Triton")


def retries(conditions: object, where: str, *, exposed: bool = True) -> Iterator[Breach]:
    """Return what a list of retry conditions, in Envoy's words, sends again although a server took it."""
    given = [each.strip() for each in str(conditions or "").split(",")]
    again = [each for each in given if each in _RESENDS]
    if again:
        yield breach("retries-again", where, f"retry on {', '.join(again)}", exposed=exposed)


def _routes(host: Object) -> list[Object]:
    return _list(host.get("routes"))


def _action(route: Object) -> Object:
    action = route.get("route")
    return action if isinstance(action, dict) else {}


def _is_triton(action: Object, parts: _Parts) -> bool:
    """Return whether one of the clusters is a Triton: by its name, a host's, or the port of its gRPC side."""
    weighted = _list((action.get("weighted_clusters") or {}).get("clusters"))
    for name in [action.get("cluster"), *(each.get("name") for each in weighted)]:
        _, cluster = parts.clusters.get(str(name), ("", {}))
        hosts = list(_hosts(cluster))
        if any(_TRITON.search(each) for each in (str(name), *(host for host, _ in hosts))):
            return True
        if any(port == _TRITON_GRPC for _, port in hosts):
            return True
    return False


def _hosts(cluster: Object) -> Iterator[tuple[str, float | None]]:
    for group in _list((cluster.get("load_assignment") or {}).get("endpoints")):
        for each in _list(group.get("lb_endpoints")):
            address = ((each.get("endpoint") or {}).get("address") or {}).get("socket_address") or {}
            yield str(address.get("address", "")), number(address.get("port_value"))


def _list(value: object) -> list[Object]:
    """A repeated field; Envoy takes a single message where a list of one is meant."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def _mentions(value: Any, word: str) -> bool:
    """Return whether a word stands anywhere in a value, as a key or in a text."""
    if isinstance(value, dict):
        return any(word in key or _mentions(each, word) for key, each in value.items())
    if isinstance(value, list):
        return any(_mentions(each, word) for each in value)
    return isinstance(value, str) and word in value


def _absent(duration: object) -> bool:
    """Return whether a duration is none: left out, or 0."""
    text = duration.rstrip("s") if isinstance(duration, str) else duration
    return text in (None, "") or number(text) == 0


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _snake(key: str) -> str:
    if key.startswith("@"):
        return key
    return _CAMEL.sub(lambda found: f"_{found[1].lower()}", key).replace("consecutive5xx", "consecutive_5xx")


def _normal(value: Any) -> Any:
    """The same with keys as Envoy's documentation writes them; its JSON may also use camel case."""
    if isinstance(value, dict):
        return {_snake(str(key)): _normal(each) for key, each in value.items()}
    return [_normal(each) for each in value] if isinstance(value, list) else value
