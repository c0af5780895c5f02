"""Envoy's clusters: one for each version, protocol and role, all on the same server.

Pure. A version's cluster rewrites path and body on their way out, so it holds for weighted splits, retries, header
routes and mirrors alike. Shadows have clusters of their own: what copies may hold is bounded apart from the live side.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from ..edge import Edge, Limits, Variant
from ..seen import Role
from .programs import pin

Protocol = Literal["http", "grpc"]
Document = dict[str, Any]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")
METADATA = "seatrial"  # under which name our own facts stand in Envoy's configuration
SHADOW_HEADER = "x-edge-shadow"  # names the cluster that a copy goes to, on the shadow listener
_TYPE = "type.googleapis.com/"
_FRAME = 64 << 10  # what a gRPC frame and our two fields add to a body, rounded up


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pinned:
    """One version as a cluster: which protocol, and whether it serves live requests or copies."""

    model: str
    version: int
    protocol: Protocol = "http"
    role: Role = "live"

    @property
    def name(self) -> str:
        """The cluster's name; labels of metrics are cut from it."""
        parts = (f"{self.model}_v{self.version}", "grpc" if self.protocol == "grpc" else "", self._role)
        return "_".join(part for part in parts if part)

    @property
    def hop(self) -> str:
        """The cluster through which copies reach the shadow listener."""
        return f"{self.name}_hop"

    @property
    def _role(self) -> str:
        return "shadow" if self.role == "shadow" else ""


def pinned(variant: Variant, role: Role = "live") -> list[Pinned]:
    """The clusters of a version in a role, one for each protocol."""
    return [
        Pinned(model=variant.model, version=variant.version, protocol=protocol, role=role) for protocol in PROTOCOLS
    ]


def clusters(edge: Edge, wanted: list[Pinned], shadow_socket: str) -> list[Document]:
    """Clusters for these versions, and one for each protocol of the server as such (health, its metadata)."""
    found = [server_cluster(edge, protocol) for protocol in PROTOCOLS]
    for each in sorted(set(wanted)):
        found.append(_pinned_cluster(edge, each))
        if each.role == "shadow":
            found.append(_hop_cluster(edge, each, shadow_socket))
    return found


def server_cluster(edge: Edge, protocol: Protocol) -> Document:
    """The server itself, no version of anything."""
    return _cluster(f"server_{protocol}", protocol, _address(getattr(edge.server, protocol)), edge.limits)


def _pinned_cluster(edge: Edge, each: Pinned) -> Document:
    shadow = each.role == "shadow"
    server = (edge.shadow or edge.server) if shadow else edge.server
    lua = filter_("lua", "lua.v3.Lua", default_source_code={"inline_string": pin(each.model, each.version)})
    told = {"x-model": each.model, "x-model-version": str(each.version)}
    # Here and not in the route table: an answer that no version gave carries no version.
    naming = filter_(
        "header_mutation",
        "header_mutation.v3.HeaderMutation",
        mutations={"response_mutations": [{"append": _overwrite(key, value)} for key, value in told.items()]},
    )
    address = _address(getattr(server, each.protocol))
    document = _cluster(each.name, each.protocol, address, edge.limits, shadow, [lua, naming])
    facts = {"model": each.model, "version": str(each.version), "role": each.role}
    return document | {"metadata": {"filter_metadata": {METADATA: facts}}}


def _hop_cluster(edge: Edge, each: Pinned, shadow_socket: str) -> Document:
    mark = {"append": _overwrite(SHADOW_HEADER, each.name)}
    marking = filter_("header_mutation", "header_mutation.v3.HeaderMutation", mutations={"request_mutations": [mark]})
    address = {"pipe": {"path": shadow_socket}}
    # Wider than the candidate's own, so that what is refused is refused where its id is written down.
    wider = replace(edge.limits, shadow_requests=4 * edge.limits.shadow_requests)
    return _cluster(each.hop, each.protocol, address, wider, True, [marking])


def _cluster(
    name: str,
    protocol: Protocol,
    address: Document,
    limits: Limits,
    shadow: bool = False,
    filters: list[Document] | None = None,
) -> Document:
    document: Document = {
        "name": name,
        "type": "STATIC" if _is_numeric(address) else "STRICT_DNS",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": limits.body_bytes + _FRAME,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": {"thresholds": [_threshold(limits, shadow)]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _protocol_options(protocol, filters or [])
        },
    }
    if limits.ejection_failures and not shadow:
        document["outlier_detection"] = {
            # Only connections that fail are the server's: a caller can make it answer 5xx as often as he likes.
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": limits.ejection_failures,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_local_origin_success_rate": 0,
            "base_ejection_time": f"{limits.ejection_seconds}s",
            "max_ejection_time": f"{limits.ejection_seconds}s",
            "max_ejection_time_jitter": "0s",
            "interval": "1s",
            "max_ejection_percent": 100,
            "enforcing_success_rate": 0,
        }
        document["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}  # one server: ejected means ejected
    return document


def _threshold(limits: Limits, shadow: bool) -> Document:
    if shadow:
        most = limits.shadow_requests
        return {"max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": 0}
    return {
        "max_connections": limits.requests,
        "max_pending_requests": limits.pending,
        "max_requests": limits.requests,
        # Without a budget the default is three retries at once, which an outage uses up at once.
        "retry_budget": {"budget_percent": {"value": 100 * limits.retry_budget}, "min_retry_concurrency": 3},
    }


def _protocol_options(protocol: Protocol, filters: list[Document]) -> Document:
    codec = filter_("upstream_codec", "upstream_codec.v3.UpstreamCodec")
    kind = "http2_protocol_options" if protocol == "grpc" else "http_protocol_options"
    return {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {kind: {}},
        **({"http_filters": [*filters, codec]} if filters else {}),
    }


def filter_(name: str, type_: str, **settings: Any) -> Document:
    """One HTTP filter by its short name and type."""
    config = {"@type": f"{_TYPE}envoy.extensions.filters.http.{type_}", **settings}
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def _overwrite(key: str, value: str) -> Document:
    return {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "header": {"key": key, "value": value}}


def _address(text: str) -> Document:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _is_numeric(address: Document) -> bool:
    host = address.get("socket_address", {}).get("address", "0.0.0.0")
    return ":" in host or host.replace(".", "").isdecimal()
