"""Routes made true on one Envoy: checked, written, seen in force, or put back as they were.

The `Router` of one machine. The proxy's own answer is the only truth about routes; where it does not run, the files it
would start from. It starts and stops nothing.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.locking import locked

from ...errors import RouterError, ServerError
from ...processes import wait
from ..edge import Edge
from ..routes import Routes
from .clusters import METADATA, PROTOCOLS, Document, Pinned
from .config import Extras, Places, documents
from .files import on_disk, write
from .on_envoy import check
from .proxy import Proxy, read, running
from .routes import MOST_QUARANTINED, RouteTable, wanted
from .routes import read as ways_in


class EnvoyRouter:
    """Makes routes true through an Envoy's files; one change at a time, from any process."""

    def __init__(
        self,
        proxy: Proxy,
        *,
        extras: Extras | None = None,
        timeout: float = 10.0,
        applied: Callable[[Routes, datetime], None] = lambda routes, begun: None,
    ) -> None:
        """`applied` is called with routes once they are in force, and with the time at which their change began."""
        self._started, self._extras, self._timeout, self._applied = proxy, extras, timeout, applied
        self._places: Places = proxy.places
        self._edge: Edge = proxy.edge

    @property
    def _proxy(self) -> Proxy:
        """The process of now: it may have been killed and brought back since."""
        return read(self._places.folder) or self._started

    def current(self, model: str) -> Routes | None:
        """The routes in force, as Envoy itself tells; None where the edge does not offer the model."""
        return self._all().routes.get(model)

    def shedding(self, model: str) -> float:
        """The share that the model's fallback takes off it now."""
        return self._all().shedding.get(model, 0.0)

    def apply(self, routes: Routes) -> None:
        """Make these routes the truth: clusters first, then the table, each seen in force. Shares count in millionths.

        Raises:
            ConfigError: the edge does not offer the model.
            RouterError: Envoy refused them, or did not take them in time; the old files are back.
        """
        self._edge.model(routes.model)
        routes = replace(routes, share=round(routes.share, 6), mirror=round(routes.mirror, 6))
        with self._alone():
            before = self._all()
            if before.routes.get(routes.model) == routes:
                return
            begun = datetime.now(UTC)
            self._change(before, replace(before, routes={**before.routes, routes.model: routes}))
            self._applied(routes, begun)

    def shed(self, model: str, share: float) -> None:
        """Have the model's fallback take that share of its requests, whatever its routes; 0 ends it.

        Raises:
            ConfigError: the edge does not offer the model, or names no fallback for it.
            RouterError: as for `apply`.
        """
        if self._edge.model(model).fallback is None:
            raise ConfigError(
                "the model has no fallback", where=model, next_step="name a smaller model in the edge file"
            )
        with self._alone():
            before = self._all()
            if before.shedding.get(model, 0.0) != share:
                shedding = {name: each for name, each in before.shedding.items() if name != model}
                self._change(before, replace(before, shedding=shedding | ({model: share} if share > 0 else {})))

    def quarantine(self) -> tuple[str, ...]:
        """Digests of the bodies that are refused, oldest first."""
        return self._all().quarantine

    def refuse(self, digests: Sequence[str]) -> int:
        """Refuse bodies of these digests as well; the oldest are let go beyond `MOST_QUARANTINED`. How many there are.

        Raises:
            RouterError: as for `apply`.
        """
        with self._alone():
            before = self._all()
            kept = tuple(dict.fromkeys((*before.quarantine, *digests)))[-MOST_QUARANTINED:]
            if kept != before.quarantine:
                self._change(before, replace(before, quarantine=kept))
            return len(kept)

    def pardon(self) -> int:
        """Refuse no body any more; how many there were.

        Raises:
            RouterError: as for `apply`.
        """
        with self._alone():
            before = self._all()
            if before.quarantine:
                self._change(before, replace(before, quarantine=()))
            return len(before.quarantine)

    def _change(self, before: RouteTable, after: RouteTable) -> None:
        check(self._edge, after, self._extras)
        self._swap(documents(self._edge, after, self._places, keep=self._keep(before), extras=self._extras))
        if (found := self._all()) != after:
            raise RouterError(f"Envoy reports {found}", where=self._edge.name, next_step="check seatrial edge status")

    def emptied(self, model: str, version: int, *, timeout: float = 30.0) -> bool:
        """Wait until no request is under way on a version, live or copied; whether that came in time.

        Give it no share before: routes that still name it keep it busy.
        """
        names = [
            Pinned(model=model, version=version, protocol=protocol, role=role).name
            for protocol in PROTOCOLS
            for role in ("live", "shadow")
        ]
        if not running(self._proxy):
            return True
        return wait(lambda: not any(self._proxy.admin.under_way(names).values()), timeout)

    def _all(self) -> RouteTable:
        proxy = self._proxy
        if not running(proxy):
            return on_disk(self._places.folder)
        found: Document = {}

        def held() -> bool:  # one that has just come back holds no table for a moment
            found.update(proxy.admin.table() if proxy.admin.ready() else {})
            return bool(found) or not running(proxy)

        if not wait(held, self._timeout) or not found:
            raise RouterError(
                "Envoy has no routes",
                where=str(proxy.log),
                next_step="check whether it is starting or stopping (seatrial edge status)",
            )
        return ways_in(found)

    def _keep(self, before: RouteTable) -> list[Pinned]:
        """Clusters of the old routes stay for this change, and older ones as long as they have requests."""
        there = _pinned(json.loads(self._places.file("cds").read_text()))
        busy = self._proxy.admin.under_way(each.name for each in there) if running(self._proxy) else {}
        return [*wanted(self._edge, before), *(each for each in there if busy.get(each.name))]

    def _swap(self, files: Mapping[str, Document]) -> None:
        """Write clusters, then the table; on a refusal the old files come back, in the other order."""
        old = {kind: self._places.file(kind).read_bytes() for kind in ("cds", "rds")}
        done: list[str] = []
        try:
            for kind in ("cds", "rds"):
                done.append(kind)
                self._put(kind, files)
        except SeatrialError as error:
            for kind in reversed(done):
                write(self._places, {kind: json.loads(old[kind])}, (kind,))
            raise RouterError(error.what, where=error.where, next_step=error.next_step) from error

    def _put(self, kind: str, files: Mapping[str, Document]) -> None:
        if not running(self._proxy):
            write(self._places, files, (kind,))
            return
        admin, version = self._proxy.admin, files[kind]["version_info"]
        rejected, said = admin.states()[kind].rejected, self._proxy.log.stat().st_size
        write(self._places, files, (kind,))
        told = {}

        def settled() -> bool:
            told.update(admin.states())
            return bool(told[kind].version == version or told[kind].rejected > rejected)

        in_time = wait(settled, self._timeout)
        if told[kind].version != version:
            wait(lambda: self._proxy.log.stat().st_size > said, 1.0)  # its log is a moment behind
            reason = "refused the new file" if in_time else f"did not apply it within {self._timeout:.0f} seconds"
            raise RouterError(
                f"Envoy {reason} ({kind}): {_last(self._proxy.log)}",
                where=str(self._places.file(kind)),
                next_step="read Envoy's log; the previous routes are still in force",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        busy = RouterError(
            "another process has been changing routes for 30 seconds",
            where=str(self._places.folder),
            next_step="wait for that process, or end it",
        )
        try:
            with locked(self._places.folder / "routes.lock", seconds=30.0, busy=busy):
                yield
        except ServerError as error:
            raise RouterError(error.what, where=error.where, next_step=error.next_step) from error


def _pinned(clusters: Document) -> list[Pinned]:
    found = []
    for each in clusters["resources"]:
        facts = each.get("metadata", {}).get("filter_metadata", {}).get(METADATA)
        if facts is not None:
            protocol = PROTOCOLS[f"_v{facts['version']}_grpc" in each["name"]]
            found.append(
                Pinned(model=facts["model"], version=int(facts["version"]), protocol=protocol, role=facts["role"])
            )
    return found


def _last(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if "][warning]" in line]
    except OSError:
        return "its log cannot be read"
    return lines[-1].rpartition("] ")[2][:800] if lines else "its log is empty"
