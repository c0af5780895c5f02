"""Envoy's route table: for each model its lanes, its split, and the share of requests that is copied.

Pure, both ways: what stands in a table can be read out of it as `Routes`, so the proxy's own answer says what is in
force. A copied request is chosen by its id alone: the first four hexadecimal digits of ``x-request-id``, as a number,
below the share of 65,536. Whoever knows the id knows whether there is a copy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..edge import Edge, Lane, Model, Variant
from ..routes import Routes
from .clusters import METADATA, PROTOCOLS, Document, Pinned, Protocol, pinned
from .lua import ASKED, INFER, SERVICE

TABLE = "live"
COPIED = "/copied"  # ends the name of every route whose requests are copied
_WHOLE = 1_000_000  # weights are millionths
_IDS = 16**4
_RETRY_ON = "gateway-error,reset,connect-failure,refused-stream,unavailable"
_SPECIFIER = "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """All that a table says: each model's routes, and the share that its fallback takes off it."""

    routes: Mapping[str, Routes] = field(default_factory=dict)
    relief: Mapping[str, float] = field(default_factory=dict)

    def of(self, model: Model) -> Routes:
        """The model's routes, or those it starts with."""
        return self.routes.get(model.name) or Routes(model=model.name, stable=model.stable)


def table(edge: Edge, ways: Ways) -> Document:
    """The whole route table. A model without routes yet is served by the version that the edge calls stable."""
    found = [each for model in edge.models for each in _model(edge, model, ways)]
    host: Document = {
        "name": "models",
        "domains": ["*"],
        "routes": [*found, *_server(), *_denied()],
        "response_headers_to_add": [
            _header("x-model-version", f"%CLUSTER_METADATA({METADATA}:version)%"),
            _header("x-model", f"%CLUSTER_METADATA({METADATA}:model)%"),
        ],
    }
    return {"name": TABLE, "virtual_hosts": [host]}


def wanted(edge: Edge, ways: Ways) -> list[Pinned]:
    """Every version's cluster that the table may name."""
    found: list[Pinned] = []
    for model in edge.models:
        now = ways.of(model)
        for version in now.versions:
            found += pinned(Variant(model=model.name, version=version))
        if now.candidate is not None:
            found += pinned(Variant(model=model.name, version=now.candidate), "shadow")
        for variant in (model.fallback, *(lane.variant for lane in model.lanes)):
            found += pinned(variant) if variant is not None else []
    return sorted(set(found))


def read(document: Document) -> Ways:
    """The ways that a table holds; weights are read from the split itself."""
    found, relief = {}, {}
    for host in document.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            facts = route.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
            if "stable" in facts:
                routes = Routes(
                    model=facts["model"],
                    stable=int(facts["stable"]),
                    candidate=int(facts["candidate"]) if facts.get("candidate") else None,
                    share=_weight(route["route"], facts),
                    mirror=float(facts.get("mirror", 0.0)),
                )
                found[routes.model] = routes
                if facts.get("relief"):
                    relief[routes.model] = float(facts["relief"])
    return Ways(routes=found, relief=relief)


def ids_below(share: float) -> str:
    """A regular expression for the request ids of that share; their first four digits below share times 65,536."""
    bound = round(share * _IDS)
    if bound >= _IDS:
        return ".*"
    digits, options = f"{bound:04x}", []
    for place, digit in enumerate(digits):
        if digit != "0":
            options.append(f"{digits[:place]}[{_below(int(digit, 16))}][0-9a-f]{{{3 - place}}}")
    return f"(?:{'|'.join(options)}).*" if options else "[^\\x00-\\xff]"


def is_copied(request_id: str, share: float) -> bool:
    """Whether the request of that id is copied at that share; what the expression says, in Python."""
    digits = re.match("[0-9a-f]{4}", request_id)
    return share >= 1.0 or (digits is not None and int(digits.group(), 16) < round(share * _IDS))


def _below(digit: int) -> str:
    return "0-" + f"{digit - 1:x}" if digit <= 10 else "0-9a-" + f"{digit - 1:x}"


def _model(edge: Edge, model: Model, ways: Ways) -> Iterator[Document]:
    for lane in (*model.lanes, *_relief(model, ways), None):
        for protocol in PROTOCOLS:
            yield from _lane(edge, model, ways, lane, protocol)
    for protocol in PROTOCOLS:
        target = Pinned(model=model.name, version=ways.of(model).stable, protocol=protocol)
        about = _about_http(model.name) if protocol == "http" else _grpc(model.name, *ASKED)
        action = {"cluster": target.name, "timeout": "5s"}
        yield {"name": f"{model.name}/about", "match": about, "route": action}


def _relief(model: Model, ways: Ways) -> list[Lane]:
    """Relief as one more lane, before the model's own: by the last digits of the id, so that it cuts evenly through
    every user, arm and copy.
    """
    share = ways.relief.get(model.name, 0.0)
    if model.fallback is None or share <= 0:
        return []
    matches = f".{{32}}{ids_below(share)}"
    return [Lane(name="relief", header="x-request-id", matches=matches, variant=model.fallback)]


def _lane(edge: Edge, model: Model, ways: Ways, lane: Lane | None, protocol: Protocol) -> Iterator[Document]:
    """A lane's routes: the one for copied requests before the one for the rest; without a lane, the model's own."""
    routes = ways.of(model)
    match = _infer_http(model.name) if protocol == "http" else _grpc(model.name)
    if lane is not None:
        match = match | {"headers": [*match.get("headers", ()), _matcher(lane)]}
    action = _action(edge, model, routes, lane, protocol)
    facts = {} if lane or protocol != "http" else _facts(routes, ways.relief.get(model.name, 0.0))
    own = lane is None or lane.variant is None
    name = f"{model.name}/{lane.name if lane else 'default'}"
    if own and routes.candidate is not None and routes.mirror > 0:
        target = Pinned(model=model.name, version=routes.candidate, protocol=protocol, role="shadow")
        chosen = {"name": "x-request-id", "string_match": {"safe_regex": {"regex": ids_below(routes.mirror)}}}
        copied = match | {"headers": [*match.get("headers", ()), chosen]}
        mirrored = action | {"request_mirror_policies": [{"cluster": target.hop}]}
        yield {"name": name + COPIED, "match": copied, "route": mirrored}
    yield {"name": name, "match": match, "route": action} | facts


def _action(edge: Edge, model: Model, routes: Routes, lane: Lane | None, protocol: Protocol) -> Document:
    timeout = (lane.timeout_ms if lane else None) or model.timeout_ms
    variant = lane.variant if lane else None
    split = [_arm(variant, protocol, _WHOLE)] if variant is not None else _split(routes, protocol)
    action: Document = {
        "timeout": _seconds(timeout),
        "hash_policy": _hash_policy(edge),
        **_choice(split, None if variant is not None else model.fallback, protocol),
    }
    falls_back = variant is None and model.fallback is not None
    retries = 1 if falls_back else edge.limits.retries
    if retries:
        policy: Document = {"retry_on": _RETRY_ON, "num_retries": retries, "refresh_cluster_on_retry": True}
        policy["retry_back_off"] = {"base_interval": "0.005s", "max_interval": "0.05s"}
        if 0 < model.try_ms < timeout:
            policy["per_try_timeout"] = _seconds(model.try_ms)
        action["retry_policy"] = policy
    return action


def _split(routes: Routes, protocol: Protocol) -> list[tuple[str, int]]:
    """Stable first: the candidate's part of the hash range then grows from its end, and nobody on it is moved off."""
    share = round(routes.share * _WHOLE)
    stable = _arm(Variant(model=routes.model, version=routes.stable), protocol, _WHOLE - share)
    if routes.candidate is None:
        return [stable]
    return [stable, _arm(Variant(model=routes.model, version=routes.candidate), protocol, share)]


def _arm(variant: Variant, protocol: Protocol, weight: int) -> tuple[str, int]:
    return Pinned(model=variant.model, version=variant.version, protocol=protocol).name, weight


def _choice(split: Sequence[tuple[str, int]], fallback: Variant | None, protocol: Protocol) -> Document:
    """Which cluster, by weight and the user's hash. A retry stays on its arm, or goes to the fallback if there is one:
    a model that is too slow or too full gets no second request for the first.
    """
    if fallback is None:
        weighted = [{"name": name, "weight": weight} for name, weight in split]
        return {"weighted_clusters": {"use_hash_policy": True, "clusters": weighted}}
    arms = [{"cluster_name": name, "weight": weight} for name, weight in split if weight]
    last = [{"cluster_name": _arm(fallback, protocol, 1)[0], "weight": 1}]
    config = {
        "@type": f"type.googleapis.com/{_SPECIFIER}",
        "priority_groups": [{"name": "model", "clusters": arms}, {"name": "fallback", "clusters": last}],
        "use_hash_policy": True,
    }
    name = "envoy.router.cluster_specifier_plugin.priority_group"
    return {"inline_cluster_specifier_plugin": {"extension": {"name": name, "typed_config": config}}}


def _weight(action: Document, facts: Document) -> float:
    """The candidate's share as the split has it."""
    if not facts.get("candidate"):
        return 0.0
    name = Pinned(model=facts["model"], version=int(facts["candidate"])).name
    if "weighted_clusters" in action:
        weights = {each["name"]: each.get("weight", 0) for each in action["weighted_clusters"]["clusters"]}
    else:
        config = action["inline_cluster_specifier_plugin"]["extension"]["typed_config"]
        weights = {each["cluster_name"]: each["weight"] for each in config["priority_groups"][0]["clusters"]}
    return float(weights.get(name, 0) / _WHOLE)


def _facts(routes: Routes, relief: float) -> Document:
    facts = {"model": routes.model, "stable": routes.stable, "candidate": routes.candidate or 0}
    return {"metadata": {"filter_metadata": {METADATA: facts | {"mirror": routes.mirror, "relief": relief}}}}


def _hash_policy(edge: Edge) -> list[Document]:
    policies: list[Document] = []
    if edge.sticky.header:
        policies.append({"header": {"header_name": edge.sticky.header}, "terminal": True})
    if edge.sticky.cookie:
        policies.append({"cookie": {"name": edge.sticky.cookie}, "terminal": True})
    return policies


def _matcher(lane: Lane) -> Document:
    if lane.below is not None:
        return {"name": lane.header, "range_match": {"start": 0, "end": lane.below}}
    if lane.equals is not None:
        return {"name": lane.header, "string_match": {"exact": lane.equals}}
    return {"name": lane.header, "string_match": {"safe_regex": {"regex": lane.matches}}}


def _infer_http(model: str) -> Document:
    return _path(rf"/v2/models/{re.escape(model)}(?:/versions/[0-9]+)?/infer", "POST")


def _about_http(model: str) -> Document:
    return _path(rf"/v2/models/{re.escape(model)}(?:/versions/[0-9]+)?(?:/ready)?", "GET")


def _path(regex: str, method: str) -> Document:
    only = {"name": ":method", "string_match": {"exact": method}}
    return {"safe_regex": {"regex": regex}, "headers": [only]}


def _grpc(model: str, *methods: str) -> Document:
    named = {"name": "x-edge-model", "string_match": {"exact": model}}
    if not methods:
        return {"path": INFER, "headers": [named]}
    return {"safe_regex": {"regex": f"{re.escape(SERVICE)}(?:{'|'.join(methods)})"}, "headers": [named]}


def _server() -> Iterator[Document]:
    """Health and the server's own metadata; nothing that changes it."""
    live = _path("/v2(?:/health/(?:live|ready))?", "GET")
    yield {"name": "server/http", "match": live, "route": {"cluster": "server_http", "timeout": "5s"}}
    asked = {"safe_regex": {"regex": f"{re.escape(SERVICE)}Server(?:Live|Ready|Metadata)"}}
    yield {"name": "server/grpc", "match": asked, "route": {"cluster": "server_grpc", "timeout": "5s"}}


def _denied() -> Iterator[Document]:
    """All the rest. A stream is refused before its body is waited for: there a request cannot be pinned."""
    off = {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
    refused = {"status": 404, "body": {"inline_string": "the edge offers no such path or model\n"}}
    yield {
        "name": "denied/stream",
        "match": {"path": f"{SERVICE}ModelStreamInfer"},
        "direct_response": refused,
        "typed_per_filter_config": {"envoy.filters.http.buffer": off},
    }
    yield {"name": "denied", "match": {"prefix": "/"}, "direct_response": refused}


def _header(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}s"
