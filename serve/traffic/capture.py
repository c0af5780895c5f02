"""Capture: the proxy's parts that record the answers of both arms to a deterministic share of the requests.

Pure: every function returns a piece of Envoy's configuration as a plain document; who builds the listeners puts them
in. Nothing here starts a proxy, reads a log or compares an answer.

One request's way: a filter on the primary listener hashes its ``x-request-id`` and marks the chosen ones with a header;
a twin of the primary's route, which matches that header, mirrors them to a second listener on loopback, whose routes
lead to the candidate with limits of their own. Both listeners write the answers of marked requests into an access log
of their own. A mirror is fire and forget: the primary never waits for it, and what the candidate cannot take in time is
refused by the shadow cluster's breaker, with the request's id in the log.

Answers are users' data. Capture is off unless asked for, ends by itself at `Capture.until`, keeps no answer above
`most_bytes` and at most `bytes_per_minute` of each listener's; files are made readable by their owner alone and
rotated by `on_capture`. Requests are never written.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from optimize.errors import ConfigError

Document = dict[str, Any]
Arm = Literal["stable", "candidate"]

HEADER = "x-seatrial-shadow"  # carries the request's id to the other listener; a client's own is removed
NAMESPACE = "seatrial.shadow"  # of the dynamic metadata that the log reads
FILES: Mapping[Arm, str] = {"stable": "stable.log", "candidate": "candidate.log"}

_PRIME, _FACTOR, _START = 2_147_483_647, 1_000_003, 1_469_598  # products stay below 2^53, where Lua's numbers are exact
_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_HTTP_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What is captured: `share` of the requests (0 to 1), into `folder`, until the Unix time `until`.

    `salt` makes the choice another one for another rollout; with the same salt the same id gives the same answer, and
    whoever was chosen stays chosen as the share rises. `most_bytes` is the largest answer kept, `bytes_per_minute` what
    one worker thread of the proxy may write of one listener's answers.

    Raises:
        ConfigError: a share out of range, or a limit that is none.
    """

    folder: Path
    share: float
    until: float
    salt: str = ""
    most_bytes: int = 64 * 1024
    bytes_per_minute: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"share {self.share} is not from 0 to 1", where="capture", next_step="give a share")
        if not isfinite(self.until) or self.most_bytes < 1 or self.bytes_per_minute < self.most_bytes:
            raise ConfigError(
                "a capture needs an end, and room for at least one answer a minute",
                where="capture",
                next_step="give until, most_bytes and a larger bytes_per_minute",
            )

    def log(self, arm: Arm) -> Path:
        """The file that the proxy writes an arm's answers to."""
        return self.folder / FILES[arm]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLimits:
    """What the candidate may cost: requests at a time, requests that wait, and seconds for one."""

    requests: int = 16
    pending: int = 16
    seconds: float = 2.0


def position(request_id: str, salt: str = "") -> float:
    """Where an id lies in [0, 1): it is chosen by every share above that.

    Multiplication modulo a Mersenne prime after an exclusive or, as in FNV-1a, and two rounds past the end that fold
    the high bits down, so that ids which only count lie far apart and another salt is another order. The filter in the
    proxy computes the same.
    """
    value = _START
    for byte in (*salt.encode(), *request_id.encode()):
        value = (value ^ byte) * _FACTOR % _PRIME
    for _ in range(2):
        value = (value ^ value >> 15) * _FACTOR % _PRIME
    return value / _PRIME


def chosen(request_id: str, share: float, salt: str = "") -> bool:
    """Whether the filter chooses this id at that share."""
    return position(request_id, salt) < share


def primary_filter(capture: Capture) -> Document:
    """The HTTP filter of the primary listener: marks the chosen inference requests and keeps their answers.

    It belongs before the router and after whatever may refuse a request. It changes the route only of those it marks.
    """
    return _lua(_PRIMARY, capture)


def shadow_filter(capture: Capture) -> Document:
    """The HTTP filter of the shadow listener: keeps the answers of what arrives there, uncompressed."""
    return _lua(_SHADOW, capture)


def access_log(capture: Capture, arm: Arm) -> Document:
    """The access log of one listener that writes the marked requests, one JSON document a line."""
    return log_to(capture.log(arm))


def log_to(path: Path) -> Document:
    """An access log that writes the requests which a filter here marked, one JSON document a line."""
    present = {"filter": NAMESPACE, "path": [{"key": "id"}], "value": {"present_match": True}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"metadata_filter": {"matcher": present, "match_if_key_not_found": False}},
        "typed_config": {
            "@type": _FILE_LOG,
            "path": str(path),
            "log_format": {"json_format": dict(_FORMAT)},
        },
    }


def mirrored(route: Mapping[str, Any], cluster: str) -> Document:
    """The twin of a route of the primary that mirrors marked requests to `cluster`; it belongs right before the route.

    The runtime of Envoy draws a mirror's share anew for every request, so the share is decided by the mark alone.
    """
    twin: Document = deepcopy(dict(route))
    twin["match"]["headers"] = [*twin["match"].get("headers", ()), {"name": HEADER, "present_match": True}]
    if "name" in twin:
        twin["name"] += "-mirrored"
    twin["route"]["request_mirror_policies"] = [
        *twin["route"].get("request_mirror_policies", ()),
        {"cluster": cluster, "disable_shadow_host_suffix_append": True},
    ]
    return twin


def mirror_cluster(name: str, port: int, limits: ShadowLimits) -> Document:
    """The cluster through which the primary reaches the shadow listener.

    Wider than the candidate's own limits, so that a refusal is the shadow listener's, which writes the request's id
    down. HTTP/2, for a mirrored call must keep its trailers and its message framing.
    """
    room = 4 * (limits.requests + limits.pending)
    return {
        "name": name,
        "connect_timeout": "0.25s",
        "type": "STATIC",
        "circuit_breakers": _breakers(room, room),
        "typed_extension_protocol_options": _http2(),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [_endpoint("127.0.0.1", port)]}]},
    }


def limited(cluster: Mapping[str, Any], limits: ShadowLimits) -> Document:
    """A cluster of the candidate's made into its shadow's: the breakers of `limits`, and no retry."""
    own: Document = deepcopy(dict(cluster))
    own["circuit_breakers"] = _breakers(limits.requests, limits.pending)
    return own


def shadow_listener(
    capture: Capture,
    limits: ShadowLimits,
    *,
    name: str,
    port: int,
    http_cluster: str,
    grpc_cluster: str = "",
    extra_logs: Sequence[Mapping[str, Any]] = (),
) -> Document:
    """The listener that mirrored requests arrive at, on loopback: forwards to the candidate and keeps its answers.

    `http_cluster` and `grpc_cluster` are the candidate's (see `limited`); without the latter gRPC is refused.
    """
    routes: list[Document] = []
    timeout = f"{limits.seconds:g}s"
    if grpc_cluster:
        grpc = {"cluster": grpc_cluster, "timeout": timeout, "max_stream_duration": {"max_stream_duration": timeout}}
        routes.append({"match": {"prefix": "/", "grpc": {}}, "route": grpc})
    routes.append({"match": {"prefix": "/"}, "route": {"cluster": http_cluster, "timeout": timeout}})
    manager = {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        "http_filters": [shadow_filter(capture), router_filter()],
        "access_log": [access_log(capture, "candidate"), *map(dict, extra_logs)],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def router_filter() -> Document:
    """The filter that ends every chain."""
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}


def _breakers(requests: int, pending: int) -> Document:
    limit = {"max_connections": requests, "max_requests": requests, "max_pending_requests": pending, "max_retries": 0}
    return {"thresholds": [{"priority": "DEFAULT", "track_remaining": True, **limit}]}


def _http2() -> Document:
    options = {"@type": _HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def _endpoint(host: str, port: int) -> Document:
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}


def _lua(source: str, capture: Capture) -> Document:
    constants = {
        "HEADER": json.dumps(HEADER),
        "SHARE": repr(float(capture.share)),
        "SALT": '"' + "".join(f"\\{byte:03d}" for byte in capture.salt.encode()) + '"',
        "UNTIL": repr(float(capture.until)),
        "PRIME": str(_PRIME),
        "FACTOR": str(_FACTOR),
        "START": str(_START),
    }
    head = "".join(f"local {name} = {value}\n" for name, value in constants.items())
    return keeper(
        "mark" if source is _PRIMARY else "keep",
        head + source,
        most_bytes=capture.most_bytes,
        bytes_per_minute=capture.bytes_per_minute,
    )


def keeper(name: str, source: str, *, most_bytes: int, bytes_per_minute: int) -> Document:
    """A filter of that Lua source, which may call ``keep(handle)`` once it has set ``id`` in the metadata."""
    constants = {"NAMESPACE": json.dumps(NAMESPACE), "MOST": str(most_bytes), "BUDGET": str(bytes_per_minute)}
    head = "".join(f"local {key} = {value}\n" for key, value in constants.items())
    return {
        "name": f"seatrial.shadow.{name}",
        "typed_config": {"@type": _LUA, "default_source_code": {"inline_string": head + _KEEPING + source}},
    }


_FORMAT = {
    "id": f"%DYNAMIC_METADATA({NAMESPACE}:id)%",
    "at": "%START_TIME(%s.%6f)%",
    "seconds": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "content_type": "%RESP(CONTENT-TYPE)%",
    "content_encoding": "%RESP(CONTENT-ENCODING)%",
    "grpc_encoding": "%RESP(GRPC-ENCODING)%",
    "header_length": "%RESP(INFERENCE-HEADER-CONTENT-LENGTH)%",
    "kept": f"%DYNAMIC_METADATA({NAMESPACE}:kept)%",
    "body": f"%DYNAMIC_METADATA({NAMESPACE}:body)%",
}

# `kept` is "whole", or why there is no body. Chunks pass on as they come: an answer is never held back for this.
_KEEPING = """
local minute, spent = 0, 0

local function keep(handle)
  if not handle:streamInfo():dynamicMetadata():get(NAMESPACE) then return end
  local parts, size = {}, 0
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    size = size + length
    if size <= MOST then parts[#parts + 1] = chunk:getBytes(0, length) else parts = {} end
  end
  local metadata = handle:streamInfo():dynamicMetadata()  -- what was fetched before a chunk is no longer valid
  local now = math.floor(os.time() / 60)
  if now ~= minute then minute, spent = now, 0 end
  if size > MOST then
    metadata:set(NAMESPACE, "kept", "too large")
  elseif spent + size > BUDGET then
    metadata:set(NAMESPACE, "kept", "over budget")
  else
    spent = spent + size
    metadata:set(NAMESPACE, "kept", "whole")
    metadata:set(NAMESPACE, "body", handle:base64Escape(table.concat(parts)))
  end
end

function envoy_on_response(handle) keep(handle) end
"""

_PRIMARY = """
local function position(id)
  local value = START
  local text = SALT .. id
  for i = 1, #text do value = bit.bxor(value, string.byte(text, i)) * FACTOR % PRIME end
  for _ = 1, 2 do value = bit.bxor(value, bit.rshift(value, 15)) * FACTOR % PRIME end
  return value / PRIME
end

local function infers(path)
  return string.find(path, "^/v2/models/[^?]*/infer") or path == "/inference.GRPCInferenceService/ModelInfer"
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(HEADER) then headers:remove(HEADER) end
  local id = headers:get("x-request-id")
  if not id or os.time() >= UNTIL or not infers(headers:get(":path")) or position(id) >= SHARE then return end
  headers:add(HEADER, id)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "id", id)
end
"""

_SHADOW = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local id = headers:get(HEADER)
  if id then handle:streamInfo():dynamicMetadata():set(NAMESPACE, "id", id) end
  headers:remove(HEADER)
  headers:remove("accept-encoding")
end
"""
