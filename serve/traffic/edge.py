"""The edge, as an engineer writes it down: who may ask, how much, what a request is routed by, and what happens then.

Only says and checks itself; what it means to Envoy is `envoy_config`'s business. Which version takes which share is no
part of it: that moves while the edge stands, and is `routes.Routes`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked
from seatrial.optimize.ranges import Range, check_ranges

from .headers import CLIENT, INTERNAL, cookie_fault, header_fault, regex_fault, text_fault

SCHEMA = 1
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_MOST = 2**31 - 1
_OWN_LANES = ("default", "about", "relief")  # routes of these names are the edge's own
FOREIGN = (INTERNAL, "x-envoy-")  # the edge's notes, and orders to Envoy itself: retries, timeouts
HARMFUL = ("triton_grpc_error",)  # makes servers before 2.68 write into a stream that they have given up


def _refuse(wrong: bool, what: str, where: str, fix: str) -> None:
    if wrong:
        raise ConfigError(what, where=where, next_step=fix)


def _legal(reason: str, what: str, where: str, fix: str = "use another value") -> None:
    """Refuse a value with the reason that a check of `headers` gave, if any."""
    _refuse(bool(reason), f"{what}: {reason}", where, fix)


_MILLISECONDS = Range(at_least=1, at_most=_MOST, fix="give milliseconds")
_SECONDS = Range(at_least=1, at_most=3600, fix="give seconds")
_NUMBER = Range(at_least=1, at_most=_MOST, fix="choose a number in this range")
_LONG = Range(above=0, below=10**9, fix="give seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One version of one model, as a place for requests to go: a smaller model for those that cannot wait."""

    model: str
    version: Annotated[int, Range(at_least=1, fix="use a placed one")]

    def __post_init__(self) -> None:
        checked(self.model, "model name", where="variant")
        check_ranges(self, self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A Triton: ``host:port`` of each protocol. The same model answers on both."""

    http: str = "127.0.0.1:8000"
    grpc: str = "127.0.0.1:8001"

    def __post_init__(self) -> None:
        for key in ("http", "grpc"):
            host, _, port = getattr(self, key).rpartition(":")
            number = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
            legal = _HOST.fullmatch(host) and 0 < number < 65536
            _refuse(not legal, f"must be host:port, got {getattr(self, key)!r}", key, "use the form 127.0.0.1:8000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    """Stickiness of a user to one version: by the value of a header, else of a cookie. Empty names are ignored."""

    header: str = "x-user-id"
    cookie: str = ""

    def __post_init__(self) -> None:
        if self.header:
            _legal(header_fault(self.header), f"header {self.header!r} cannot be used for stickiness", "sticky.header")
        if self.cookie:
            _legal(cookie_fault(self.cookie), f"cookie {self.cookie!r} cannot be used for stickiness", "sticky.cookie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Requests with a certain header, on a way of their own: a timeout, and where named another variant.

    Exactly one of `equals`, `matches` (a regular expression for the whole value) and `below` (a whole number from 0,
    the bound excluded) says which values. Lanes are tried in the order of the file. Without a variant the lane shares
    the model's split.
    """

    name: str
    header: str
    equals: str | None = None
    matches: str | None = None
    below: Annotated[int | None, Range(at_least=1, at_most=2**63 - 1, fix="give an upper bound above 0")] = None
    timeout_ms: Annotated[int | None, _MILLISECONDS] = None
    variant: Variant | None = None

    def __post_init__(self) -> None:
        checked(self.name, "lane name", where="lanes")
        where = f"lane {self.name}"
        rules = [self.equals, self.matches, self.below]
        _refuse(
            sum(rule is not None for rule in rules) != 1,
            "a lane needs exactly one of equals, matches and below",
            where,
            "give the values of the header with one of them",
        )
        if self.equals is not None:
            _legal(text_fault(self.equals), f"equals = {self.equals!r} can never match a header", where)
        if self.matches is not None:
            reason = regex_fault(self.matches)
            _legal(reason, f"matches = {self.matches!r} is not a valid RE2 expression", where, "use RE2 syntax")
        check_ranges(self, where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model that the edge offers.

    `stable` is the version before any routes were set. A request ends after `timeout_ms`; one try of it after
    `try_ms` where that is not 0. `fallback` answers, instead of a retry, what the model itself could not: where its
    server is unavailable, its breaker full, or `try_ms` over; and where the p99 of the model's answers breaks `slo_ms`,
    a share of all (`relief`).
    """

    name: str
    stable: Annotated[int, Range(at_least=1, fix="name a placed version")] = 1
    timeout_ms: Annotated[int, _MILLISECONDS] = 5000
    try_ms: int = 0
    slo_ms: Annotated[int, Range(at_least=0, at_most=_MOST, fix="give milliseconds, or omit it")] = 0
    fallback: Variant | None = None
    lanes: tuple[Lane, ...] = ()

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        checked(self.name, "model name", where="models")
        check_ranges(self, where)
        tried = f"try_ms must be between 0 and {self.timeout_ms}, got {self.try_ms}"
        _refuse(not 0 <= self.try_ms <= self.timeout_ms, tried, where, "reduce try_ms")
        _refuse(bool(self.slo_ms) and self.fallback is None, "slo_ms needs a fallback", where, "name a smaller model")
        _refuse(_twice(lane.name for lane in self.lanes), "two lanes have the same name", where, "rename one")
        for lane in self.lanes:
            _legal(header_fault(lane.header), f"header {lane.header!r} cannot select a lane", f"lane {lane.name}")
            own = lane.name in _OWN_LANES
            _refuse(own, f"the name {lane.name!r} is reserved for the edge", f"lane {lane.name}", "rename the lane")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on connections, on requests under way for each version, and on what one request or client may take up.

    A request has at most `header_kb` KiB of headers (Triton resets a connection above 8) and `body_bytes` of body, of
    which `json_bytes` may be JSON (larger tensors are sent as binary data), and its body arrives within
    `receive_seconds`. One client has at most `client_requests` bodies unfinished, which announce `client_bytes`
    together (0: as many as one body may have). Beyond `memory_bytes` the edge takes no request.

    Only a request that no server has begun is tried again, at most `retries` times, and all of these together never
    exceed `retry_budget` of the requests under way, so an outage does not multiply its own load. After
    `ejection_failures` connections in a row that failed, a server is left out for `ejection_seconds`; 0 never.
    """

    connections: Annotated[int, _NUMBER] = 2048
    requests: Annotated[int, _NUMBER] = 256
    pending: Annotated[int, _NUMBER] = 256
    header_kb: Annotated[int, Range(at_least=1, at_most=7, fix="use 7 or less: Triton resets connections from 8")] = 7
    body_bytes: Annotated[int, _NUMBER] = 64 << 20
    json_bytes: Annotated[int, _NUMBER] = 4 << 20
    receive_seconds: Annotated[int, _SECONDS] = 15
    client_requests: Annotated[int, _NUMBER] = 64
    client_bytes: int = 0
    memory_bytes: Annotated[int, Range(at_least=256 << 20, fix="give 256 MiB or more, in bytes")] = 1 << 30
    idle_seconds: Annotated[int, _SECONDS] = 60
    retries: Annotated[int, Range(at_least=0, at_most=5, fix="use fewer: more retries only add load")] = 1
    retry_budget: Annotated[float, Range(at_least=0, at_most=1, fix="use a fraction of what is under way")] = 0.2
    ejection_failures: Annotated[int, Range(at_least=0, fix="use 0 for none")] = 0
    ejection_seconds: Annotated[float, _LONG] = 5.0
    shadow_requests: Annotated[int, _NUMBER] = 16

    def __post_init__(self) -> None:
        check_ranges(self, "limits")
        least = f"use at least {self.body_bytes}"
        _refuse(0 != self.client_bytes < self.body_bytes, "client_bytes is less than body_bytes", "limits", least)

    @property
    def unfinished_bytes(self) -> int:
        """Bytes that the unfinished bodies of one client may announce together."""
        return self.client_bytes or self.body_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Requests a second for each client (for all together without authentication), and the burst above it."""

    per_second: int
    burst: Annotated[int, Range(at_least=0, at_most=_MOST, fix="use 0 for no burst")] = 0
    clients: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, rate in {"per_second": self.per_second, **self.clients}.items():
            wrong = not 1 <= rate <= _MOST
            _refuse(wrong, f"must be at least 1 per second, got {rate}", f"rate_limit: {name}", "omit it for no limit")
        for name in self.clients:
            _legal(text_fault(name), f"invalid client name {name!r}", "rate_limit.clients")
        check_ranges(self, "rate_limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """API keys: a file of lines ``CLIENT KEY``, readable by its owner alone; sent in `header`."""

    kind: Literal["keys"]
    file: Path
    header: str = "x-api-key"

    def __post_init__(self) -> None:
        _legal(header_fault(self.header, credentials=True), f"header {self.header!r} cannot carry keys", "auth.header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwt:
    """Signed tokens: the issuer's public keys as a JWKS file; `claims` become headers, so lanes can trust them."""

    kind: Literal["jwt"]
    jwks: Path
    issuer: str
    audiences: tuple[str, ...] = ()
    client_claim: str = "sub"
    claims: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in (self.issuer, *self.audiences, self.client_claim, *self.claims):
            _legal(text_fault(text), f"invalid issuer, audience or claim {text!r}", "auth")
        for claim, header in self.claims.items():
            _legal(header_fault(header), f"claim {claim!r} cannot become header {header!r}", "auth.claims")
        _refuse(_twice(self.claims.values()), "two claims become the same header", "auth.claims", "use another one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificate chain and private key (PEM files)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Capturing:
    """Keep the answers of both versions to copied requests, so that a rollout can compare them.

    They are users' data: written for this user alone, none above `most_bytes` and at most `bytes_per_minute` of each
    version's. They are deleted when the rollout that compares them ends, when the edge goes down, and by ``edge watch``
    once nothing was added for `keep_seconds`.
    """

    most_bytes: Annotated[int, Range(at_least=1, fix="give the largest size to keep")] = 64 << 10
    bytes_per_minute: int = 64 << 20
    keep_seconds: Annotated[float, _LONG] = 86_400.0

    def __post_init__(self) -> None:
        check_ranges(self, "capture")
        _refuse(self.bytes_per_minute < self.most_bytes, "bytes_per_minute is below most_bytes", "capture", "raise it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Stream a share of the requests, with their answers, to the recorder (``seatrial record``); nothing waits for it.

    A keyed hash of the request's id samples. None above `most_bytes` of a body, and at most `bytes_per_minute` of all,
    are kept; what a recorder does not take is dropped and counted.
    """

    share: Annotated[float, Range(above=0, at_most=1, fix="give a fraction of the requests, above 0")] = 0.1
    most_bytes: Annotated[int, Range(at_least=1, at_most=4 << 20, fix="give the largest body to keep")] = 64 << 10
    bytes_per_minute: Annotated[int, _NUMBER] = 256 << 20

    def __post_init__(self) -> None:
        check_ranges(self, "record")
        _refuse(self.bytes_per_minute < self.most_bytes, "bytes_per_minute is below most_bytes", "record", "raise it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Everything the edge does with a request before a version sees it.

    `shadow` is the server that gets copies; by default the live one, which then pays for both. Without `capture` no
    answer is ever written down, and without `record` none leaves for the recorder. Lanes believe a header only if it
    comes from a claim or stands in `client_headers`: any other is removed on arrival. `address` beyond loopback needs
    `auth` and `tls`. `threads` are Envoy's workers; one serves thousands of requests a second.

    Raises:
        ConfigError: an invalid field, named with its fix.
    """

    schema: int
    name: str = "edge"
    address: str = "127.0.0.1"
    port: Annotated[int, Range(at_least=0, at_most=65535, fix="use 0 for a free port")] = 8080
    threads: Annotated[int, Range(at_least=1, at_most=64, fix="use 1 for most cases")] = 1
    server: Server = Server()
    shadow: Server | None = None
    sticky: Sticky = Sticky()
    limits: Limits = Limits()
    models: tuple[Model, ...]
    client_headers: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ()
    rate_limit: RateLimit | None = None
    auth: Keys | Jwt | None = None
    tls: Tls | None = None
    capture: Capturing | None = None
    record: Recording | None = None

    def __post_init__(self) -> None:
        _refuse(self.schema != SCHEMA, f"schema must be {SCHEMA}, got {self.schema}", "schema", f"write {SCHEMA}")
        checked(self.name, "edge name", where="name")
        check_ranges(self)
        _refuse(_twice(model.name for model in self.models), "two models have the same name", "models", "remove one")
        for header in self.client_headers:
            _legal(header_fault(header), f"clients must not send {header!r}", "client_headers", "remove it")
            claimed = header in self.claimed.values()
            _refuse(claimed, f"{header!r} is set from a claim: clients must not send it", "client_headers", "drop it")
        if isinstance(self.auth, Keys):
            lanes = {lane.header for model in self.models for lane in model.lanes}
            wrong = self.auth.header in lanes
            _refuse(wrong, f"{self.auth.header!r} carries keys: no lane may use it", "auth.header", "use another")
        for header in self.forward_headers:
            _legal(header_fault(header), f"{header!r} cannot be forwarded", "forward_headers", "use other headers")
        _refuse(
            not _loopback(self.address) and (self.auth is None or self.tls is None),
            f"{self.address} is reachable from other machines, but authentication or encryption is missing",
            "address",
            "add [auth] and [tls], or listen on 127.0.0.1",
        )

    def model(self, name: str) -> Model:
        """The model of that name.

        Raises:
            ConfigError: the edge does not offer it.
        """
        for model in self.models:
            if model.name == name:
                return model
        offered = ", ".join(model.name for model in self.models) or "none"
        raise ConfigError(f"the edge offers no model {name!r}", where=self.name, next_step=f"offered: {offered}")

    def beside(self, folder: Path) -> "Edge":
        """The same edge with its files found from that folder, where their paths are relative."""
        auth, tls = self.auth, self.tls
        if isinstance(auth, Keys):
            auth = replace(auth, file=folder / auth.file)
        elif isinstance(auth, Jwt):
            auth = replace(auth, jwks=folder / auth.jwks)
        if tls is not None:
            tls = replace(tls, certificate=folder / tls.certificate, key=folder / tls.key)
        return replace(self, auth=auth, tls=tls)

    @property
    def claimed(self) -> Mapping[str, str]:
        """Header by claim, for what a token says."""
        return self.auth.claims if isinstance(self.auth, Jwt) else {}

    @property
    def stripped(self) -> tuple[str, ...]:
        """Headers removed on arrival: the edge's own, those that lanes believe but clients may not send, and `HARMFUL`.

        All that begin with one of `FOREIGN` go as well.
        """
        lanes = {lane.header for model in self.models for lane in model.lanes}
        return tuple(sorted((lanes | set(self.claimed.values()) | {CLIENT, *HARMFUL}) - set(self.client_headers)))


def _loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        raise ConfigError(f"{address!r} is not an IP address", where="address", next_step="write 127.0.0.1") from None


def _twice(names: Iterable[str]) -> bool:
    found = list(names)
    return len(found) != len(set(found))
