"""What a request says about the objectives of a model's service: whether it failed its caller, and how long it took.

Pure. A failure is the service's: a 5xx or its gRPC counterparts, a server that died or was unreachable, an answer that
did not come in time. What the caller did wrong (no key, too large, malformed, gone) counts neither way, nor do copies
for a version on trial and questions about the server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..seen import GRPC_FAILURES
from . import access_log

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 2.5, 5.0, 10.0),
)
"""Bounds of the histogram of response times: an objective of latency is one of them."""
REQUESTS, LATENCY = "seatrial_edge_requests", "seatrial_edge_seconds"
GOOD, FAILED = "good", "failed"
_OURS = {"UO", "UF", "UH", "UT", "OM", "UC"}  # flags of Envoy: no version answered, and the caller is not why


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A request of a model: whether it failed its caller, and the seconds that a version took to answer."""

    model: str
    failed: bool
    seconds: float = 0.0


def served(line: Mapping[str, Any]) -> Served | None:
    """Return what a line of the access log says; None where it says nothing about the service."""
    model = str(line.get("model", ""))
    if not model or line.get("role") == "shadow" or str(line.get("route", "")).endswith("/about"):
        return None
    if line.get("details") != "via_upstream":
        flags = set(str(line.get("flags", "")).split(","))
        ours = flags & _OURS and "DC" not in flags and not line.get("refused")
        return Served(model=model, failed=True) if ours else None
    seen = access_log.of(line)
    if seen is None:
        return None
    failed = seen.grpc_status in GRPC_FAILURES if seen.grpc_status is not None else seen.status >= 500
    return Served(model=model, failed=failed, seconds=seen.seconds)
