"""A gateway's access log as `Seen`: which pod answered says which version did.

Reads what is told to it. A gateway is not configured by us and knows no versions, but Envoy logs the address that it
sent a request to. A request that reached no pod belongs to no version and is no evidence: that a version has no server
left is for its health to say.

What a gateway answered by itself (a refusal, a limit, a body that never came) is no evidence either, nor is a status
that refuses the caller. A failure belongs to its version only as far as callers cannot have made it: `Clients` holds
back the failures of one address where the other callers do not meet them.
"""

import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from seatrial.optimize.reading import SHAPE_ERRORS

from ..traffic.envoy import access_log
from ..traffic.seen import Seen
from .names import VERSION
from .pod import Object

FORMAT = {
    "start": "%START_TIME(%s.%6f)%",
    "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "status": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "route": "%ROUTE_NAME%",
    "id": "%REQ(X-REQUEST-ID)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "path": "%REQ(:PATH)%",
    "upstream": "%UPSTREAM_HOST%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "received": "%BYTES_RECEIVED%",
    "transport": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""Fields of each request that the gateway must log, one JSON object per line (Envoy's command operators). The last
four may be absent, in logs of an earlier format: then every line with an upstream counts, as of one caller.
"""
_GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
_CALLERS = 10_000  # distinct addresses for each version; all further ones are one caller
_FROM_UPSTREAM = "via_upstream"
# Replies that the gateway made up because of the server; all other details are its own refusals or the caller's doing.
_ABOUT_UPSTREAM = ("upstream_", "response_timeout")
_REFUSALS = frozenset({400, 401, 403, 404, 405, 407, 408, 411, 413, 414, 415, 417, 421, 426, 428, 429, 431})
# CANCELLED, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED,
# UNAUTHENTICATED
_GRPC_REFUSALS = frozenset({1, 3, 5, 7, 9, 11, 12, 16})


@dataclass(slots=True)
class Addresses:
    """Addresses of versions with their start times (Unix seconds); addresses are reused when pods end."""

    owners: dict[str, list[tuple[float, int]]] = field(default_factory=dict)

    def learn(self, pods: Iterable[Object]) -> None:
        """Add what the pods of one model say of themselves; pods that are gone stay known."""
        for pod in pods:
            status, version = pod.get("status", {}), pod["metadata"].get("labels", {}).get(VERSION, "")
            if not version.isdigit() or "startTime" not in status:
                continue
            since = datetime.fromisoformat(status["startTime"]).timestamp()
            for address in {status.get("podIP"), *(each.get("ip") for each in status.get("podIPs", []))} - {None}:
                known = self.owners.setdefault(str(address), [])
                if (since, int(version)) not in known:
                    known.append((since, int(version)))
                    known.sort()

    def version(self, address: str, at: float) -> int | None:
        """The version that had that address then."""
        known = self.owners.get(address, [])
        index = bisect_right([since for since, _ in known], at)
        return known[index - 1][1] if index else None


@dataclass(slots=True)
class _Callers:
    """Requests and failures of one version, by caller and in all; `counted` are the failures that were evidence."""

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    all_asked: int = 0
    all_failed: int = 0


@dataclass(slots=True)
class Clients:
    """Failures held back because one caller alone meets them.

    A caller that sends less than half of a version's requests cannot make more of its failures count than the failures
    of all others would let expect, two standard deviations up. With one caller, or one that sends most of
    the traffic, everything counts. Many addresses in one hand are not seen through. `unconfirmed` counts what was held
    back, by version.
    """

    versions: dict[int, _Callers] = field(default_factory=dict)
    unconfirmed: Counter[int] = field(default_factory=Counter)

    def counts(self, seen: Seen, client: str, *, certain: bool = False) -> bool:
        """Return whether a request is evidence. `certain` says that no caller can have made its failure."""
        own = self.versions.setdefault(seen.version, _Callers())
        client = client if client in own.asked or len(own.asked) < _CALLERS else ""
        own.asked[client] += 1
        own.all_asked += 1
        if not seen.failed:
            return True
        own.failed[client] += 1
        own.all_failed += 1
        others = own.all_asked - own.asked[client]
        if others > own.asked[client] and not certain:
            theirs = own.all_failed - own.failed[client]
            rate = (theirs + 2 * math.sqrt(theirs) + 1) / (others + 1)
            expected = own.asked[client] * min(1.0, rate)
            if own.counted[client] > expected + 2 * math.sqrt(expected):
                self.unconfirmed[seen.version] += 1
                return False
        own.counted[client] += 1
        return True


def parse(line: str, model: str, addresses: Addresses, clients: Clients | None = None) -> Seen | None:
    """Parse one line of `FORMAT`; None if it is no inference of this model, of an unknown version, or no evidence.

    The name of a model is not in a gRPC path: there the address alone says that it is this model.
    """
    try:
        said: Mapping[str, Any] = json.loads(line)
        known = {key: value for key, value in said.items() if value not in (None, "", "-")}
        path = str(known["path"]).partition("?")[0]
        host = str(known["upstream"]).rpartition(":")[0].strip("[]")
        version = addresses.version(host, float(known["start"]))
    except (*SHAPE_ERRORS, RecursionError):
        return None  # the gateway's own messages stand between, or it was written half
    if version is None or path not in (f"/v2/models/{model}/infer", _GRPC_PATH):
        return None
    details = str(known.pop("details", _FROM_UPSTREAM))  # what it says of evidence is said here, and not there
    seen = access_log.of(known | {"model": model, "version": version, "role": "live"})
    if seen is None or _refused(seen, str(known.get("received", ""))) or not _answered(details):
        return None
    certain = "transport" in known or "connection_failure" in details or "connection_timeout" in details
    held = clients is not None and not clients.counts(seen, str(known.get("client", "")), certain=certain)
    return None if held else seen


def _answered(details: str) -> bool:
    """Return whether a server answered, or failed to, and not the gateway or the caller."""
    return details == _FROM_UPSTREAM or details.startswith(_ABOUT_UPSTREAM)


def _refused(seen: Seen, received: str) -> bool:
    """Return whether the caller was refused or sent nothing, to which Triton says 500: the model was not asked."""
    return seen.status in _REFUSALS or seen.grpc_status in _GRPC_REFUSALS or (received == "0" and seen.status == 500)
