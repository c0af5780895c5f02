"""The record of an Envoy that was started, and of the edge that it stands for.

Plain values, written and read; starts and stops nothing.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import decode, read_json
from seatrial.optimize.record import Record, as_json
from seatrial.optimize.store import write_atomically

from ...processes import alive
from ..edge import Edge
from .admin import Admin
from .config import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy(Record, what="the record of an Envoy", next_step="end that Envoy by hand and remove the file"):
    """An Envoy that was started: its process (`started` in clock ticks since boot), port and places."""

    pid: int
    started: int
    port: int
    folder: Path
    sockets: Path

    @property
    def places(self) -> Places:
        """Return the paths of its files."""
        return Places(folder=self.folder, sockets=self.sockets)

    @property
    def admin(self) -> Admin:
        """Its admin interface."""
        return Admin(self.places.admin)

    @property
    def url(self) -> str:
        """``host:port`` for both protocols, from this machine."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Return the path of Envoy's own log."""
        return self.folder / "envoy.log"

    @property
    def edge(self) -> Edge:
        """The edge it was started with, its port the real one."""
        return read_edge(self.folder)


def running(proxy: Proxy) -> bool:
    """Return whether that very process still runs."""
    return alive(proxy.pid, proxy.started)


def write_edge(folder: Path, edge: Edge) -> None:
    """Keep the edge beside its files, so that later changes of routes know it."""
    write_atomically(folder / "edge.json", json.dumps(as_json(edge)).encode())


def read_edge(folder: Path) -> Edge:
    """The edge that was kept there.

    Raises:
        IntegrityError: the file was changed, or another version wrote it.
    """
    path, step = folder / "edge.json", "start the edge again: seatrial edge up EDGE.toml"
    try:
        return decode(Edge, read_json(path, next_step=step), where=str(path), next_step=step)
    except FileNotFoundError as error:
        raise IntegrityError("the edge's record is missing", where=str(path), next_step=step) from error


def read(folder: Path) -> Proxy | None:
    """The proxy of that folder's record; None where there is none.

    Raises:
        IntegrityError: the record was changed.
    """
    return Proxy.find(_record(folder))


def leaving(folder: Path) -> Proxy | None:
    """The proxy that was being stopped when its stopper ended; None where there is none.

    Raises:
        IntegrityError: the record was changed.
    """
    return Proxy.find(_leaving(folder))


def write(proxy: Proxy) -> None:
    """Keep the record in the proxy's folder."""
    proxy.write(_record(proxy.folder))


def leave(folder: Path) -> None:
    """Move the record aside: watchers of that proxy then leave it alone, and an interrupted stop can be completed."""
    with suppress(FileNotFoundError):
        _record(folder).replace(_leaving(folder))


def forget(folder: Path) -> None:
    """Remove the record, also of a proxy that was being stopped."""
    _record(folder).unlink(missing_ok=True)
    forget_leaving(folder)


def forget_leaving(folder: Path) -> None:
    """Remove the record of a proxy that was being stopped."""
    _leaving(folder).unlink(missing_ok=True)


def _record(folder: Path) -> Path:
    return folder / "proxy.json"


def _leaving(folder: Path) -> Path:
    return folder / "proxy.leaving.json"
