"""What a proxy saw of one request: the unit from which every statement about live traffic is made.

A value only; whoever reads an access log makes these (`on_envoy`), and evidence is computed from them.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["live", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as the proxy saw it. `at` is its start in Unix seconds, `seconds` from first byte in to last out.

    `status` is the HTTP status (0 where the client went away first), `grpc_status` the gRPC one where there is one.
    `flags` are the proxy's own words for what went wrong (Envoy's response flags), empty for nothing. `attempts` above
    1 say that the version failed before, and that a retry hid it from the client.
    """

    at: float
    model: str
    version: int
    role: Role
    seconds: float
    status: int
    grpc_status: int | None = None
    request_id: str = ""
    flags: str = ""
    route: str = ""
    attempts: int = 1

    @property
    def failed(self) -> bool:
        """Whether the service failed: a 5xx or its gRPC counterparts, not a mistake of the client's.

        A request that had to be asked twice failed too: the retry hid it from the client, not from who judges.
        """
        if self.attempts > 1:
            return True
        if self.grpc_status is not None:
            return self.grpc_status in _GRPC_FAILURES
        return self.status >= 500


# UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS
_GRPC_FAILURES = frozenset({2, 4, 8, 13, 14, 15})
