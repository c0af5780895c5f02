"""Routes in the trail: which version took which share of a model's requests, from when on."""

from collections.abc import Callable, Mapping
from datetime import datetime

from seatrial.optimize.errors import SeatrialError

from ..release.entering import enter
from .routes import Routes


def trailed(
    digests: Callable[[str], Mapping[int, str]], complain: Callable[[str], None]
) -> Callable[[Routes, datetime], None]:
    """Return what enters routes in the trail once they are in force, with the time at which their change began.

    `digests` gives a model's artifacts by version.

    A trail that cannot be written holds up no rollback: it is reported by `complain`.
    """

    def applied(routes: Routes, begun: datetime) -> None:
        try:
            known = digests(routes.model)
            details = {"shares": shares(routes, known), "mirror": routes.mirror, "begun": begun.isoformat()}
            enter("switched", model=routes.model, details=details)
        except (SeatrialError, OSError) as error:
            complain(f"the routes of {routes.model} are not in the trail: {error}")

    return applied


def shares(routes: Routes, digests: Mapping[int, str]) -> list[dict[str, object]]:
    """Return the share of each version, with its artifact's digest (empty where it is not known)."""
    live = {routes.stable: 1.0 - routes.share}
    if routes.candidate is not None:
        live[routes.candidate] = routes.share
    return [
        {"version": version, "digest": digests.get(version, ""), "share": round(share, 6)}
        for version, share in sorted(live.items())
    ]
