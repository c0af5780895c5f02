"""Routes: which versions of a model take which share of its traffic, as a value; and who makes them true.

Pure. It knows neither Envoy nor Kubernetes: a `Router` is whatever turns `Routes` into the state of the world. The
weights are the only truth about traffic; there is no second copy of them.
"""

from dataclasses import dataclass
from typing import Protocol

from seatrial.optimize.names import checked

from ..errors import RoutesError


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Traffic of one model: `stable` takes what `candidate` does not.

    `share` is the candidate's share of live requests and `mirror` the share copied to it beside the live answer, both
    from 0 to 1. Without a candidate both are 0.

    Raises:
        RoutesError: a share out of range, a version below 1, or a candidate that is the stable version.
    """

    model: str
    stable: int
    candidate: int | None = None
    share: float = 0.0
    mirror: float = 0.0

    def __post_init__(self) -> None:
        checked(self.model, "model name")
        for name, value in (("share", self.share), ("mirror", self.mirror)):
            if not 0.0 <= value <= 1.0:
                raise RoutesError(
                    f"{name} must be between 0 and 1, got {value}",
                    where=self.model,
                    next_step="use a fraction between 0 and 1",
                )
        if self.stable < 1 or (self.candidate is not None and self.candidate < 1):
            raise RoutesError(
                f"versions must be at least 1, got {self.stable} and {self.candidate}",
                where=self.model,
                next_step="name a placed version",
            )
        if self.candidate == self.stable:
            raise RoutesError(
                f"version {self.stable} cannot be its own candidate", where=self.model, next_step="name another version"
            )
        if self.candidate is None and (self.share or self.mirror):
            raise RoutesError("a share needs a candidate", where=self.model, next_step="name the candidate's version")

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version that may receive a request, lowest first; these must be loaded before the routes apply."""
        return tuple(sorted({self.stable} | ({self.candidate} if self.candidate is not None else set())))


class Router(Protocol):
    """Makes routes true: Envoy's files on one machine, HTTPRoutes in a cluster."""

    def apply(self, routes: Routes) -> None:
        """Make these routes the truth; returns when they are in force. Applying the same again changes nothing.

        Raises:
            RouterError: the other side refused them or did not take them in time; the old routes stay in force.
        """

    def current(self, model: str) -> Routes | None:
        """The routes in force, read back from the world and not remembered; None where the model has none."""
