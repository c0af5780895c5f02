"""Envoy's route table: for each model its lanes, its two arms, and the share of requests that is copied.

Pure, both ways: what stands in a table can be read out of it as `Routes`, so the proxy's own answer says what is in
force. A copied request is chosen by its id alone: the first four hexadecimal digits of ``x-request-id``, as a number,
below the share of 65,536. Whoever knows the id knows whether there is a copy.

While a candidate takes a share, each arm has routes of its own, by the place of a request's user between 0 and
`SLOTS`: the candidate's begin at the end and grow, so that a larger share moves no user off it. What one arm fails or
refuses is asked of the other one: inference has no side effects, the caller gets the answer, and the log says of a
failure whether it was the version's or the request's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..edge import Edge, Lane, Model, Variant
from ..routes import Routes
from .actions import arm_action, variant_action
from .clusters import METADATA, PROTOCOLS, Document, Pinned, Protocol, pinned
from .programs import ASKED, INFER, REFUSED, SERVICE, SLOTS

TABLE = "live"
COPIED = "/copied"  # ends the name of every route whose requests are copied
ARM = "@"  # in the name of a route, before the version whose arm it is
QUARANTINE = "quarantine"
LUA = "envoy.filters.http.lua"  # what a program reads its metadata under
MOST_QUARANTINED = 1000
_IDS = 16**4


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """All that a table says: each model's routes, the share that its fallback takes off it, and the refused bodies.

    `quarantine` are digests of bodies that no server may see again, oldest first.
    """

    routes: Mapping[str, Routes] = field(default_factory=dict)
    shedding: Mapping[str, float] = field(default_factory=dict)
    quarantine: tuple[str, ...] = ()

    def of(self, model: Model) -> Routes:
        """The model's routes, or those it starts with."""
        return self.routes.get(model.name) or Routes(model=model.name, stable=model.stable)


def table(edge: Edge, ways: RouteTable) -> Document:
    """The whole route table. A model without routes yet is served by the version that the edge calls stable."""
    found = [each for model in edge.models for each in _model(edge, model, ways)]
    routes = [*_quarantined(ways.quarantine), *found, *_server(), *_denied()]
    host = {"name": "models", "domains": ["*"], "routes": routes} | _trials(edge, ways)
    return {"name": TABLE, "virtual_hosts": [host]}


def _trials(edge: Edge, ways: RouteTable) -> Document:
    """Return the shares of versions on trial, in millionths by model, for the program that keeps load at its share."""
    shares = {model.name: round(ways.of(model).share * SLOTS) for model in edge.models}
    shares = {name: share for name, share in shares.items() if 0 < share < SLOTS}
    return {"metadata": {"filter_metadata": {LUA: shares}}} if shares else {}


def wanted(edge: Edge, ways: RouteTable) -> list[Pinned]:
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


def read(document: Document) -> RouteTable:
    """The ways that a table holds; shares are read from the arms' own matches."""
    found, shedding, quarantine = {}, {}, []
    for host in document.get("virtual_hosts", ()):
        shares = _shares(host)
        for route in host.get("routes", ()):
            facts = route.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
            if "stable" in facts:
                routes = Routes(
                    model=facts["model"],
                    stable=int(facts["stable"]),
                    candidate=int(facts["candidate"]) if facts.get("candidate") else None,
                    share=shares.get((facts["model"], int(facts.get("candidate") or 0)), 0.0),
                    mirror=float(facts.get("mirror", 0.0)),
                )
                found[routes.model] = routes
                if facts.get("relief"):
                    shedding[routes.model] = float(facts["relief"])
            elif route.get("name") == QUARANTINE:
                quarantine += [each["string_match"]["exact"] for each in route["match"]["headers"]]
    return RouteTable(routes=found, shedding=shedding, quarantine=tuple(quarantine))


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
    """Return whether the request of that id is copied at that share, as Envoy's expression decides it."""
    digits = re.match("[0-9a-f]{4}", request_id)
    return share >= 1.0 or (digits is not None and int(digits.group(), 16) < round(share * _IDS))


def _below(digit: int) -> str:
    return "0-" + f"{digit - 1:x}" if digit <= 10 else "0-9a-" + f"{digit - 1:x}"


def _model(edge: Edge, model: Model, ways: RouteTable) -> Iterator[Document]:
    for lane in (*model.lanes, *_relief(model, ways), None):
        for protocol in PROTOCOLS:
            yield from _lane(edge, model, ways, lane, protocol)
    for protocol in PROTOCOLS:
        target = Pinned(model=model.name, version=ways.of(model).stable, protocol=protocol)
        about = _about_http(model.name) if protocol == "http" else _grpc(model.name, *ASKED)
        action = {"cluster": target.name, "timeout": "5s"}
        yield {"name": f"{model.name}/about", "match": about, "route": action}


def _relief(model: Model, ways: RouteTable) -> list[Lane]:
    """Shedding as one more lane, before the model's own: by the last digits of the id, so that it cuts evenly through
    every user, arm and copy.
    """
    share = ways.shedding.get(model.name, 0.0)
    if model.fallback is None or share <= 0:
        return []
    matches = f".{{32}}{ids_below(share)}"
    return [Lane(name="relief", header="x-request-id", matches=matches, variant=model.fallback)]


def _lane(edge: Edge, model: Model, ways: RouteTable, lane: Lane | None, protocol: Protocol) -> Iterator[Document]:
    """A lane's routes; without a lane, the model's own. A lane with a variant has one, any other the model's arms."""
    routes, name = ways.of(model), f"{model.name}/{lane.name if lane else 'default'}"
    match = _infer_http(model.name) if protocol == "http" else _grpc(model.name)
    if lane is not None:
        match = match | {"headers": [*match.get("headers", ()), _matcher(lane)]}
    if lane is not None and lane.variant is not None:
        yield {"name": name, "match": match, "route": variant_action(edge, model, lane, protocol)}
        return
    facts = {} if lane or protocol != "http" else _facts(routes, ways.shedding.get(model.name, 0.0))
    share = round(routes.share * SLOTS)
    arms: list[tuple[int, int | None, Document]] = [(routes.stable, routes.candidate if share else None, match)]
    if routes.candidate is not None and share:
        chosen = {"name": "x-edge-slot", "range_match": {"start": SLOTS - share, "end": SLOTS}}
        arms.insert(0, (routes.candidate, routes.stable, match | {"headers": [*match.get("headers", ()), chosen]}))
    for own, other, matched in arms:
        arm = f"{name}{ARM}{own}"
        action = arm_action(edge, model, lane, protocol, own=own, other=other)
        if routes.candidate is not None and routes.mirror > 0:
            target = Pinned(model=model.name, version=routes.candidate, protocol=protocol, role="shadow")
            chosen = {"name": "x-request-id", "string_match": {"safe_regex": {"regex": ids_below(routes.mirror)}}}
            copied = matched | {"headers": [*matched.get("headers", ()), chosen]}
            mirrored = action | {"request_mirror_policies": [{"cluster": target.hop}]}
            yield {"name": arm + COPIED, "match": copied, "route": mirrored}
        yield {"name": arm, "match": matched, "route": action} | (facts if own == routes.stable else {})


def _shares(host: Document) -> dict[tuple[str, int], float]:
    """The share of each version that has an arm by places, by model and version."""
    found = {}
    for route in host.get("routes", ()):
        name, at, version = route.get("name", "").rpartition(ARM)
        model, _, lane = name.rpartition("/")
        if at and lane == "default" and version.isdecimal():
            for header in route["match"].get("headers", ()):
                if header["name"] == "x-edge-slot":
                    begin = int(header["range_match"].get("start", 0))  # what is 0 goes unsaid
                    found[model, int(version)] = (SLOTS - begin) / SLOTS
    return found


def _quarantined(digests: Sequence[str]) -> Iterator[Document]:
    """Bodies that killed a server are answered here, before any route of a model."""
    body = '{"error":"refused by the edge: a server died of this very body"}\n'
    for digest in digests:
        exact = {"name": "x-edge-digest", "string_match": {"exact": digest}}
        yield {
            "name": QUARANTINE,
            "match": {"prefix": "/", "headers": [exact]},
            "direct_response": {"status": 422, "body": {"inline_string": body}},
            "response_headers_to_add": [{"header": {"key": REFUSED, "value": QUARANTINE}}],
        }


def _facts(routes: Routes, shedding: float) -> Document:
    facts = {"model": routes.model, "stable": routes.stable, "candidate": routes.candidate or 0}
    return {"metadata": {"filter_metadata": {METADATA: facts | {"mirror": routes.mirror, "relief": shedding}}}}


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
    return {"safe_regex": {"regex": regex}, "headers": [_method(method)]}


def _method(name: str) -> Document:
    return {"name": ":method", "string_match": {"exact": name}}


def _grpc(model: str, *methods: str) -> Document:
    named = [_method("POST"), {"name": "x-edge-model", "string_match": {"exact": model}}]
    if not methods:
        return {"path": INFER, "headers": named}
    return {"safe_regex": {"regex": f"{re.escape(SERVICE)}(?:{'|'.join(methods)})"}, "headers": named}


def _server() -> Iterator[Document]:
    """Health and the server's own metadata; nothing that changes it."""
    live = _path("/v2(?:/health/(?:live|ready))?", "GET")
    yield {"name": "server/http", "match": live, "route": {"cluster": "server_http", "timeout": "5s"}}
    asked = {
        "safe_regex": {"regex": f"{re.escape(SERVICE)}Server(?:Live|Ready|Metadata)"},
        "headers": [_method("POST")],
    }
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
