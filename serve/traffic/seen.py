"""One request as a proxy saw it: the unit from which every statement about live traffic is made.

A value only; readers of an access log make these (`access_log`), and evidence is computed from them.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["live", "shadow"]
Result = Literal["answered", "late", "abandoned", "failed", "refused", "unconfirmed", "shared"]
"""`late`: no answer within the route's timeout. `abandoned`: the caller disconnected first. `failed` and `refused`: by
this version (5xx, 4xx). `unconfirmed`: it failed or refused, and the request could not be repeated on the other
version. `shared`: neither version answered it, so the request is the cause and neither version is charged.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request. `at` is its start in Unix seconds, `seconds` how long the version took, without the caller's time.

    `version` answered. `asked` is the version that was asked first, where another one answered after it (0: the same).
    `on_trial` says that a failure would have been asked of the other version. `status` is the HTTP status (0 where the
    client went away first), `grpc_status` the gRPC one where there is one. `flags` are the proxy's own words for what
    went wrong (Envoy's response flags), empty for nothing. `attempts` above 1 say that the request was sent again.
    `client` is the authenticated client, `kind` the request's form and `size` the elements of its inputs (bytes where
    these are unknown), `digest` names its body.
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
    asked: int = 0
    on_trial: bool = False
    client: str = ""
    kind: str = ""
    size: int = 0
    digest: str = ""

    @property
    def judged(self) -> int:
        """The version about which this request says something: the one that was asked first."""
        return self.asked or self.version

    @property
    def result(self) -> Result:
        """Return what this request says about the version that was asked first."""
        words = set(self.flags.split(","))
        if self.status == 0 or "DC" in words:
            return "abandoned"
        if self.on_trial and "UT" in words:
            return "shared" if self.asked else "late"
        bad: Result | None = "failed" if self._failed else "refused" if self._refused else None
        if self.asked:
            return "shared" if bad else "failed"
        if not self.on_trial:
            # Of a proxy that asks the same version again: the retry hid a failure from the caller.
            return "failed" if self.attempts > 1 else bad or "answered"
        return "unconfirmed" if bad else "answered"

    @property
    def failed(self) -> bool:
        """A failure that is the version's: a 5xx or its gRPC counterparts, not a mistake of the client's."""
        return self.result == "failed"

    @property
    def _failed(self) -> bool:
        return self.grpc_status in GRPC_FAILURES if self.grpc_status is not None else self.status >= 500

    @property
    def _refused(self) -> bool:
        return self.grpc_status in _GRPC_REFUSALS if self.grpc_status is not None else 400 <= self.status < 500


GRPC_FAILURES = frozenset({2, 4, 8, 13, 14, 15})
"""UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS: faults of the service."""
# INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED,
# UNAUTHENTICATED
_GRPC_REFUSALS = frozenset({3, 5, 6, 7, 9, 11, 12, 16})
