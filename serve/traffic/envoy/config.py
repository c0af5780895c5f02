"""Envoy configuration: an edge and its routes as documents of file-based discovery, ready to be written.

Pure. Files are JSON (Envoy takes it where it takes YAML), one folder for each, because a change in a watched folder
makes Envoy read every file there again. Each carries the digest of its content as its version, so the proxy's own
answer says which content is in force.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..edge import Edge
from .capture import kept
from .clusters import Document, Pinned, clusters
from .filters import listeners, route_discovery
from .recording import recorded, recorder
from .routes import RouteTable, table, wanted

KINDS = ("cds", "rds", "lds")  # in the order in which they may be written: routes name clusters, listeners tables
_RESOURCE = {
    "cds": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "rds": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "lds": "type.googleapis.com/envoy.config.listener.v3.Listener",
}
BUCKETS_MS = (
    *(0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0),
    *(75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0),
)
_TWICE = r"cluster\..*\.(external|internal)\..*"  # the same again by who asks: always strangers, or always ourselves
_TAGS = {
    "model": r"^cluster\.((.+?)_v\d+(?:_grpc)?(?:_shadow)?(?:_hop)?)\.",
    "version": r"^cluster\.(.+?_v(\d+)(?:_grpc)?(?:_shadow)?(?:_hop)?)\.",
    "role": r"^cluster\.(.+?_v\d+(?:_grpc)?_(shadow(?:_hop)?))\.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Paths of an edge: `folder` holds its configuration, `sockets` is short and private to this user.

    `key` is the secret of its digests, 8 bytes.
    """

    folder: Path
    sockets: Path
    key: bytes = bytes(8)

    def file(self, kind: str) -> Path:
        """The file of one kind of discovery, in a folder of its own."""
        return self.folder / kind / f"{kind}.json"

    @property
    def bootstrap(self) -> Path:
        """Return the path of Envoy's static configuration."""
        return self.folder / "bootstrap.json"

    @property
    def access_log(self) -> Path:
        """One JSON line a request."""
        return self.folder / "access.jsonl"

    @property
    def capture(self) -> Path:
        """Return the folder of captured answers, if the edge captures any."""
        return self.folder / "capture"

    @property
    def admin(self) -> Path:
        """The admin interface's socket."""
        return self.sockets / "admin"

    @property
    def recorder(self) -> Path:
        """The socket on which the recorder listens, where one runs."""
        return self.sockets / "recorder"

    @property
    def shadow(self) -> Path:
        """The shadow listener's socket."""
        return self.sockets / "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Additional HTTP filters, before the router, for live requests or for copies."""

    live: tuple[Document, ...] = ()
    shadow: tuple[Document, ...] = ()


def bootstrap(edge: Edge, places: Places) -> Document:
    """Return the static configuration of Envoy: its admin socket, discovery paths, names and buckets."""
    tags = [{"tag_name": name, "regex": regex} for name, regex in _TAGS.items()]
    buckets = [{"match": {"safe_regex": {"regex": r"(cluster|http)\..*"}}, "buckets": list(BUCKETS_MS)}]
    connections = {
        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3."
        "DownstreamConnectionsConfig",
        "max_active_downstream_connections": edge.limits.connections,
    }
    monitor = {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections}
    heap = {
        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": edge.limits.memory_bytes,
    }
    return {
        "overload_manager": {
            "refresh_interval": "0.1s",
            "resource_monitors": [monitor, {"name": _HEAP, "typed_config": heap}],
            "actions": [_action(name, trigger) for name, trigger in _UNDER_PRESSURE.items()],
            # Streams are distinguished by what they hold from 1 MiB on; the largest are reset first.
            "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        },
        "node": {"id": edge.name, "cluster": "seatrial"},
        "admin": {"address": {"pipe": {"path": str(places.admin), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": _source(places, "cds"), "lds_config": _source(places, "lds")},
        "stats_config": {
            "stats_tags": tags,
            "histogram_bucket_settings": buckets,
            "stats_matcher": {"exclusion_list": {"patterns": [{"safe_regex": {"regex": _TWICE}}]}},
        },
    }


_HEAP = "envoy.resource_monitors.fixed_heap"
_UNDER_PRESSURE: dict[str, Document] = {  # by the share of `memory_bytes` that is in use
    "reset_high_memory_stream": {"scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}},
    "shrink_heap": {"threshold": {"value": 0.9}},
    "stop_accepting_requests": {"threshold": {"value": 0.95}},
}


def _action(name: str, trigger: Document) -> Document:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, **trigger}]}


def documents(
    edge: Edge,
    ways: RouteTable,
    places: Places,
    *,
    keep: Sequence[Pinned] = (),
    extras: Extras | None = None,
) -> dict[str, Document]:
    """The three files by kind. `keep` are versions that no route names any more but that still have requests."""
    resources = _resources(edge, ways, places, keep, extras or Extras(), static=False)
    return {kind: _discovery(kind, resources[kind]) for kind in KINDS}


def static(
    edge: Edge,
    ways: RouteTable,
    places: Places,
    *,
    keep: Sequence[Pinned] = (),
    extras: Extras | None = None,
) -> Document:
    """The same as one static configuration: only so does Envoy check all of it before it runs."""
    found = _resources(edge, ways, places, keep, extras or Extras(), static=True)
    fixed = bootstrap(edge, places)
    del fixed["dynamic_resources"]
    return fixed | {"static_resources": {"clusters": found["cds"], "listeners": found["lds"]}}


def version(content: Sequence[Document]) -> str:
    """Return the version string of a file's content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _resources(
    edge: Edge,
    ways: RouteTable,
    places: Places,
    keep: Sequence[Pinned],
    extras: Extras,
    *,
    static: bool,
) -> dict[str, list[Document]]:
    made = table(edge, ways)
    live, shadow = kept(edge.capture, places.capture)
    record = recorded(edge, places.key)
    live = replace(live, filters=(*live.filters, *record.filters), logs=(*live.logs, *record.logs))
    source = {"route_config": made} if static else route_discovery(_source(places, "rds"))
    return {
        "cds": [
            *clusters(edge, [*wanted(edge, ways), *keep], str(places.shadow)),
            *recorder(edge.record, places.recorder),
        ],
        "rds": [made],
        "lds": listeners(
            edge,
            source,
            log=str(places.access_log),
            shadow_socket=str(places.shadow),
            key=places.key,
            live=replace(live, filters=(*live.filters, *extras.live)),
            shadow=replace(shadow, filters=(*shadow.filters, *extras.shadow)),
        ),
    }


def _discovery(kind: str, content: list[Document]) -> Document:
    resources = [{"@type": _RESOURCE[kind], **each} for each in content]
    return {"version_info": version(content), "resources": resources}


def _source(places: Places, kind: str) -> Document:
    path = places.file(kind)
    watched = {"path": str(path), "watched_directory": {"path": str(path.parent)}}
    return {"resource_api_version": "V3", "path_config_source": watched}
