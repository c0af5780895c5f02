"""A real Envoy that is configured as Envoy Gateway translates the rendered routes and policies.

The translation is read out of Envoy Gateway 1.9 (internal/xds/translator) for the fields that we write; the gateway
itself is not run. Routes, filters and their order, limits and logs come from the rendered objects, never from constants
of a test.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.serve.kubernetes import envoy_gateway
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.routes import grpc_route, http_route
from seatrial.serve.processes import end, free_ports, start_ticks, wait
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.routes import Routes

_TYPE = "type.googleapis.com/envoy"
_HTTP_FILTER = f"{_TYPE}.extensions.filters.http"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """Its address, what it logs, and its process."""

    url: str
    log: Path
    pid: int


def bytes_of(quantity: str | int) -> int:
    """A Kubernetes quantity in whole bytes."""
    found = re.fullmatch(r"(\d+)(Ki|Mi|)", str(quantity))
    assert found
    return int(found[1]) << {"": 0, "Ki": 10, "Mi": 20}[found[2]]


def bootstrap(routes: Routes, cluster: Cluster, servers: Mapping[str, str], log: Path, port: int) -> dict[str, Any]:
    """The proxy's configuration; `servers` is the ``host:port`` of each Service and port, as ``NAME:PORT``."""
    policies = [*envoy_gateway.of_routes(routes, cluster), *envoy_gateway.of_gateway(cluster)]
    backend, extension, client, proxy = (
        next(each["spec"] for each in policies if each["kind"] == kind)
        for kind in ("BackendTrafficPolicy", "EnvoyExtensionPolicy", "ClientTrafficPolicy", "EnvoyProxy")
    )
    made = [http_route(routes, cluster), grpc_route(routes, cluster)]
    hosts = [_host(route, backend) for route in made]
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "use_remote_address": True,
        "request_timeout": client["timeout"]["http"]["requestReceivedTimeout"],
        "common_http_protocol_options": {
            "idle_timeout": client["timeout"]["http"]["idleTimeout"],
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [
            _filter("buffer", "buffer.v3.Buffer", max_request_bytes=bytes_of(backend["requestBuffer"]["limit"])),
            _filter("lua", "lua.v3.Lua", default_source_code={"inline_string": extension["lua"][0]["inline"]}),
            _filter("router", "router.v3.Router"),
        ],
        "access_log": [_log(proxy["telemetry"]["accessLog"]["settings"][0]["format"]["json"], log)],
    }
    listener = {
        "name": "gateway",
        "address": _address(f"127.0.0.1:{port}"),
        "per_connection_buffer_limit_bytes": client["connection"]["bufferLimit"],
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    clusters = [_cluster(name, address, backend) for name, address in servers.items()]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextmanager
def standing(routes: Routes, cluster: Cluster, servers: Mapping[str, str], folder: Path) -> Iterator[Gateway]:
    """That proxy, for the length of a block."""
    [port], log, config = free_ports(1), folder / "gateway.log", folder / "gateway.json"
    config.write_text(json.dumps(bootstrap(routes, cluster, servers, log, port)))
    command = [str(on_envoy.binary()), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1"]
    with (folder / "envoy.log").open("wb") as said:
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "--file-flush-interval-msec", "100"], stdout=said, stderr=said
        )
    started = start_ticks(process.pid) or 0
    try:
        assert wait(lambda: _listens(port) or process.poll() is not None, 20.0)
        assert process.poll() is None, (folder / "envoy.log").read_text()
        yield Gateway(url=f"127.0.0.1:{port}", log=log, pid=process.pid)
    finally:
        end(process.pid, started, timeout=5.0)
        process.wait(5)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _host(route: Mapping[str, Any], backend: Mapping[str, Any]) -> dict[str, Any]:
    [rule] = route["spec"]["rules"]
    grpc = route["kind"] == "GRPCRoute"
    weighted = [
        {"name": f"{each['name']}:{each['port']}", "weight": each["weight"]}
        for each in rule["backendRefs"]
        if each["weight"]
    ]
    removed = [name for each in rule["filters"] for name in each.get("requestHeaderModifier", {}).get("remove", [])]
    retry = {
        "retry_on": ",".join(backend["retry"]["retryOn"]["triggers"]),
        "num_retries": backend["retry"]["numRetries"],
    }
    action = {
        "weighted_clusters": {"clusters": weighted},
        "timeout": rule.get("timeouts", {}).get("request") or backend["timeout"]["http"]["requestTimeout"],
        "retry_policy": retry,
    }
    found = []
    for match in rule["matches"]:
        if grpc:
            matched: dict[str, Any] = {"path": f"/{match['method']['service']}/{match['method']['method']}"}
        else:
            method = {"name": ":method", "string_match": {"exact": match["method"]}}
            matched = {"path": match["path"]["value"], "headers": [method]}
        found.append({"match": matched, "route": action, "request_headers_to_remove": removed})
    return {"name": route["kind"], "domains": [f"{host}:*" for host in route["spec"]["hostnames"]]
            + route["spec"]["hostnames"], "routes": found}  # fmt: skip


def _cluster(name: str, address: str, backend: Mapping[str, Any]) -> dict[str, Any]:
    passive, breaker = backend["healthCheck"]["passive"], backend["circuitBreaker"]
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": backend["timeout"]["tcp"]["connectTimeout"],
        "per_connection_buffer_limit_bytes": backend["connection"]["bufferLimit"],
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
        "outlier_detection": {
            "split_external_local_origin_errors": passive["splitExternalLocalOriginErrors"],
            "consecutive_local_origin_failure": passive["consecutiveLocalOriginFailures"],
            "consecutive_5xx": passive["consecutive5XxErrors"],
            "interval": passive["interval"],
            "base_ejection_time": passive["baseEjectionTime"],
            "max_ejection_percent": passive["maxEjectionPercent"],
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": breaker["maxConnections"],
                    "max_pending_requests": breaker["maxPendingRequests"],
                    "max_requests": breaker["maxParallelRequests"],
                    "max_retries": breaker["maxParallelRetries"],
                }
            ]
        },
    }
    if name.endswith(":8001"):
        options: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        kind = f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": kind, **options}
        }
    return made


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    config = {"@type": f"{_HTTP_FILTER}.{kind}", **settings}
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def _log(fields: Mapping[str, str], path: Path) -> dict[str, Any]:
    config = {
        "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
        "path": str(path),
        "log_format": {"json_format": dict(fields)},
    }
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _address(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
