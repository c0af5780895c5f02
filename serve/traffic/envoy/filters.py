"""Envoy's listeners: what a request passes before it is routed, and what is written down of it.

Pure. In order: foreign headers off, the client's key, its rate, its unfinished bodies, the body's size, the whole
request's form and model, then whatever the caller of `listeners` adds, then the router. The shadow listener takes
copies from the first one over a socket of its own, so that a copy has a log line, a duration and a status like any
request.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from seatrial.optimize.errors import ConfigError

from ..edge import FOREIGN, Edge, Jwt, Keys, RateLimit, Tls
from ..headers import CLIENT, client_fault, key_fault
from .capture import Kept
from .clusters import METADATA, SHADOW_HEADER, Document, filter_
from .programs import REFUSED, admission, inspection
from .routes import TABLE

LISTENER = "edge"
SHADOW = "shadow"
_TYPE = "type.googleapis.com/envoy"
_HTTP = f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_BURST_CLIENTS = 10_000  # clients whose rate is remembered apart


def listeners(
    edge: Edge,
    table_source: Document,
    *,
    log: str,
    shadow_socket: str,
    key: bytes,
    live: Kept,
    shadow: Kept,
) -> list[Document]:
    """Both listeners; `table_source` says where the route table is read from (or holds it, to be checked).

    `key` is this edge's secret for digests of bodies; `live` and `shadow` are what each listener has besides.
    """
    buffer = filter_("buffer", "buffer.v3.Buffer", max_request_bytes=edge.limits.body_bytes)
    filters = [
        *_admission(edge),
        _lua("admission", admission(edge.limits)),
        buffer,
        _lua("inspection", inspection(edge.sticky, edge.limits, key)),
        *live.filters,
    ]
    manager = _manager(LISTENER, [_access_log(log), *live.logs], filters, edge) | table_source
    manager["early_header_mutation_extensions"] = [_strip(edge.stripped)]
    manager["use_remote_address"] = True  # ids of strangers do not count
    # Of a request that arrives; the shadow listener's are ours, and were bounded here.
    manager["max_request_headers_kb"] = edge.limits.header_kb
    manager["request_timeout"] = f"{edge.limits.receive_seconds}s"
    manager["common_http_protocol_options"] |= {"idle_timeout": f"{edge.limits.idle_seconds}s"}
    manager["http2_protocol_options"] |= {
        "initial_stream_window_size": 1 << 20,
        "initial_connection_window_size": 16 << 20,
    }
    manager["always_set_request_id_in_response"] = True
    address = {"socket_address": {"address": edge.address, "port_value": edge.port}}
    first = _listener(LISTENER, address, manager, edge.limits.body_bytes)
    first["enable_reuse_port"] = edge.threads > 1  # else a second process could take half of our connections
    # A connection that says nothing is closed, instead of taking up a place until it is idle for long enough.
    inspector = "http_inspector" if edge.tls is None else "tls_inspector"
    kind = "http_inspector.v3.HttpInspector" if edge.tls is None else "tls_inspector.v3.TlsInspector"
    typed = {"@type": f"{_TYPE}.extensions.filters.listener.{kind}"}
    first["listener_filters"] = [{"name": f"envoy.filters.listener.{inspector}", "typed_config": typed}]
    first["listener_filters_timeout"] = "5s"
    if edge.tls is not None:
        first["filter_chains"][0] |= {"transport_socket": _tls(edge.tls), "transport_socket_connect_timeout": "5s"}
    return [first, _shadow(edge, [_access_log(log), *shadow.logs], shadow_socket, shadow.filters)]


def _shadow(edge: Edge, logs: Sequence[Document], socket: str, filters: Sequence[Document]) -> Document:
    longest = max(
        most for model in edge.models for most in (model.timeout_ms, *(lane.timeout_ms or 0 for lane in model.lanes))
    )
    action = {"cluster_header": SHADOW_HEADER, "timeout": f"{longest / 1000}s"}  # what no caller would wait for is late
    route = {"name": "shadow", "match": {"prefix": "/"}, "route": action}
    host = {"name": "copies", "domains": ["*"], "routes": [route]}
    manager = _manager(SHADOW, logs, filters, edge)
    manager |= {"route_config": {"name": SHADOW, "virtual_hosts": [host]}}
    manager |= {"generate_request_id": False, "preserve_external_request_id": True}  # the copy's id is the original's
    return _listener(SHADOW, {"pipe": {"path": socket, "mode": 0o600}}, manager, edge.limits.body_bytes)


def _listener(name: str, address: Document, manager: Document, body_bytes: int) -> Document:
    config = {"@type": _HTTP, **manager}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]
    return {
        "name": name,
        "address": address,
        "filter_chains": [{"filters": filters}],
        "per_connection_buffer_limit_bytes": body_bytes + (64 << 10),
    }


def _manager(name: str, logs: Sequence[Document], filters: Sequence[Document], edge: Edge) -> Document:
    idle = 5 + max([55_000, *(model.timeout_ms for model in edge.models)]) // 1000
    return {
        "stat_prefix": name,
        "http_filters": [*filters, filter_("router", "router.v3.Router", suppress_envoy_headers=True)],
        "access_log": list(logs),
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST", "idle_timeout": "300s"},
        "request_headers_timeout": "10s",
        "stream_idle_timeout": f"{idle}s",
        "http2_protocol_options": {"max_concurrent_streams": 256},
        "server_header_transformation": "PASS_THROUGH",
    }


def _access_log(path: str) -> Document:
    """One JSON line for each request; `access_log` reads them."""
    line = {
        "start": "%START_TIME(%s.%6f)%",
        "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
        "upstream_us": "%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%",
        "ms": "%DURATION%",
        "received_ms": "%REQUEST_DURATION%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "refused": f"%RESP({REFUSED.upper()})%",
        **{name: f"%REQ(X-EDGE-{name.upper()})%" for name in ("kind", "size", "digest", "moved")},
        "status": "%RESPONSE_CODE%",
        "grpc": "%GRPC_STATUS_NUMBER%",
        "flags": "%RESPONSE_FLAGS%",
        "route": "%ROUTE_NAME%",
        "id": "%REQ(X-REQUEST-ID)%",
        "client": f"%REQ({CLIENT.upper()})%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        **{key: f"%CLUSTER_METADATA({METADATA}:{key})%" for key in ("model", "version", "role")},
    }
    config = {
        "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": {"json_format": line, "omit_empty_values": True},
    }
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _strip(headers: Sequence[str]) -> Document:
    config = {
        "@type": f"{_TYPE}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        "mutations": [
            *({"remove": header} for header in headers),
            *({"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}} for prefix in FOREIGN),
        ],
    }
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}


def _lua(name: str, source: str) -> Document:
    """One Lua program as an HTTP filter."""
    return filter_("lua", "lua.v3.Lua", default_source_code={"inline_string": source}, stat_prefix=name)


def _admission(edge: Edge) -> list[Document]:
    found = []
    if isinstance(edge.auth, Keys):
        found.append(_keys(edge.auth))
    elif isinstance(edge.auth, Jwt):
        found.append(_jwt(edge.auth))
    if edge.rate_limit is not None:
        found.append(_rate_limit(edge.rate_limit))
    return found


def _keys(auth: Keys) -> Document:
    credentials = [{"client": client, "key": key} for client, key in read_keys(auth.file).items()]
    return filter_(
        "api_key_auth",
        "api_key_auth.v3.ApiKeyAuth",
        credentials=credentials,
        key_sources=[{"header": auth.header}],
        forwarding={"header": CLIENT, "hide_credentials": True},
    )


def read_keys(path: Path) -> dict[str, str]:
    """Key by client, from lines ``CLIENT KEY``; blank lines and those that begin with # are skipped.

    Raises:
        ConfigError: the file cannot be read, others can read it too, or a line is neither.
    """
    try:
        mode, lines = path.stat().st_mode, path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the key file cannot be read: {error}", where=str(path), next_step="give a readable file"
        ) from error
    if mode & 0o077:
        raise ConfigError("the key file is readable for other users", where=str(path), next_step=f"chmod 600 {path}")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) != 2 or parts[0] in found or parts[1] in found.values():
            raise ConfigError(
                "the line is not CLIENT KEY, or repeats a client or a key",
                where=f"{path}:{number}",
                next_step="fix the line",
            )
        if wrong := client_fault(parts[0]) or key_fault(parts[1]):
            raise ConfigError(wrong, where=f"{path}:{number}", next_step="fix the line")
        found[parts[0]] = parts[1]
    if not found:
        raise ConfigError(
            "the file contains no keys", where=str(path), next_step="write one line CLIENT KEY per client"
        )
    return found


def _jwt(auth: Jwt) -> Document:
    try:
        json.loads(auth.jwks.read_text())["keys"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"not a JWKS file: {error}", where=str(auth.jwks), next_step="give a file of public keys (JWKS)"
        ) from error
    headers = {CLIENT: auth.client_claim} | {header: claim for claim, header in auth.claims.items()}
    provider: Document = {
        "issuer": auth.issuer,
        "local_jwks": {"filename": str(auth.jwks.absolute())},
        "forward": False,
        "claim_to_headers": [{"header_name": header, "claim_name": claim} for header, claim in headers.items()],
        "clear_route_cache": True,  # else the claims come too late to route by
    }
    if auth.audiences:
        provider["audiences"] = list(auth.audiences)
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "tokens"}}
    return filter_("jwt_authn", "jwt_authn.v3.JwtAuthentication", providers={"tokens": provider}, rules=[rule])


def _rate_limit(limit: RateLimit) -> Document:
    """Return a bucket for all anonymous callers, one for each client, and those with other limits."""
    everyone = {"numerator": 100, "denominator": "HUNDRED"}
    apart = [
        {"entries": [{"key": "client", "value": name}], "token_bucket": _bucket(rate, limit.burst)}
        for name, rate in limit.clients.items()
    ]
    others = {"entries": [{"key": "client"}], "token_bucket": _bucket(limit.per_second, limit.burst)}
    return filter_(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="edge_rate_limit",
        token_bucket=_bucket(limit.per_second, limit.burst),
        filter_enabled={"default_value": everyone},
        filter_enforced={"default_value": everyone},
        descriptors=[*apart, others],
        rate_limits=[{"actions": [{"request_headers": {"header_name": CLIENT, "descriptor_key": "client"}}]}],
        max_dynamic_descriptors=_BURST_CLIENTS,
        always_consume_default_token_bucket=False,
    )


def _bucket(rate: int, burst: int) -> Document:
    return {"max_tokens": rate + burst, "tokens_per_fill": rate, "fill_interval": "1s"}


def _tls(tls: Tls) -> Document:
    pair = {
        "certificate_chain": {"filename": str(tls.certificate.absolute())},
        "private_key": {"filename": str(tls.key.absolute())},
    }
    config = {
        "@type": f"{_TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [pair],
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def route_discovery(source: Document) -> Document:
    """The listener's part that reads its table from a file."""
    return {"rds": {"route_config_name": TABLE, "config_source": source}}
