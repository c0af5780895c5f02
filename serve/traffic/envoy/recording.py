"""The edge's record: sampled requests with their answers, streamed to the recorder while it listens.

Pure. A filter keeps the bodies, an access log sends them over a socket in the edge's private folder, and nothing of
them is written to disk by the proxy. What the log may hold back is bounded; beyond that, and while nobody listens,
entries are dropped. The filter numbers what it sampled, so that the recorder can say how many it never got.
"""

from pathlib import Path

from ..edge import Edge, Recording
from .capture import Kept
from .clusters import Document
from .programs import recording

CLUSTER = "recorder"
FACTS = "seatrial.record"  # of the dynamic metadata: what was sampled, and how its bodies were kept
BODIES = "seatrial.bodies"  # the bodies in base64, apart, because a program that reads facts copies all of them
SERVICE = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
ANSWERED = ("content-type", "content-encoding", "grpc-encoding", "inference-header-content-length", "grpc-status")
_BUFFERED = 1 << 20  # bytes of entries that wait for the stream, in each worker
_TYPE = "type.googleapis.com/envoy"


def recorded(edge: Edge, key: bytes) -> Kept:
    """Return the parts of the live listener; empty where the edge records nothing. `key` is the edge's secret."""
    if edge.record is None:
        return Kept()
    source = recording(edge.record, key, facts=FACTS, bodies=BODIES, workers=edge.threads)
    program = {"@type": f"{_TYPE}.extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": source}}
    return Kept(filters=({"name": FACTS, "typed_config": program},), logs=(_log(),))


def recorder(record: Recording | None, socket: Path) -> list[Document]:
    """Return the cluster of the recorder's socket, where there is something to record."""
    if record is None:
        return []
    address = {"pipe": {"path": str(socket)}}
    protocol = {
        "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return [
        {
            "name": CLUSTER,
            "type": "STATIC",
            "connect_timeout": "1s",
            "per_connection_buffer_limit_bytes": _BUFFERED,
            "load_assignment": {
                "cluster_name": CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
        }
    ]


def _log() -> Document:
    present = {"filter": FACTS, "path": [{"key": "id"}], "value": {"present_match": True}}
    stream = {
        "log_name": CLUSTER,
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": CLUSTER}},
        "buffer_flush_interval": "0.5s",
        "buffer_size_bytes": _BUFFERED,
    }
    config = {
        "@type": f"{_TYPE}.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": stream,
        "additional_response_headers_to_log": list(ANSWERED),
        "additional_response_trailers_to_log": ["grpc-status"],
    }
    return {
        "name": "envoy.access_loggers.http_grpc",
        "filter": {"metadata_filter": {"matcher": present, "match_if_key_not_found": False}},
        "typed_config": config,
    }
