"""A gateway's access log as `Seen`: which pod answered says which version did.

Reads what is told to it. A gateway is not configured by us and knows no versions, but Envoy logs the address that it
sent a request to. A request that reached no pod belongs to no version and is no evidence: that a version has no server
left is for its health to say.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optimize.reading import SHAPE_ERRORS

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
}
"""What the gateway must log of each request, one JSON object a line (Envoy's command operators)."""
_GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(slots=True)
class Addresses:
    """Which version had which address since when (Unix seconds); addresses are used again when pods go."""

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


def parse(line: str, model: str, addresses: Addresses) -> Seen | None:
    """One line of `FORMAT`; None where it is no inference of this model's, or nobody knows who answered.

    The name of a model is not in a gRPC path: there the address alone says that it is this model.
    """
    try:
        said: Mapping[str, Any] = json.loads(line)
        known = {key: value for key, value in said.items() if value not in (None, "", "-")}
        path = str(known["path"]).partition("?")[0]
        host = str(known["upstream"]).rpartition(":")[0].strip("[]")
        version = addresses.version(host, float(known["start"]))
    except SHAPE_ERRORS:
        return None  # the gateway's own messages stand between, or it was written half
    if version is None or path not in (f"/v2/models/{model}/infer", _GRPC_PATH):
        return None
    return access_log.of(known | {"model": model, "version": version, "role": "live"})
