"""Envoy's admin interface on its socket: what is in force, what was refused, what is under way.

Asks and tells; decides nothing. The socket lies in a folder that only its owner can enter, because a user who reaches
it can end the proxy.
"""

import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import ServerError

_COUNTERS = {  # by kind of discovery, where Envoy keeps its statistics
    "cds": "cluster_manager.cds",
    "rds": "http.edge.rds.live",
    "lds": "listener_manager.lds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Envoy's state of one kind of file: the version in force, and the number of refused updates."""

    version: str
    rejected: int


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Admin:
    """One Envoy's admin interface."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        self._path, self._timeout = path, timeout

    def ready(self) -> bool:
        """Return whether it answers and has applied its first configuration."""
        try:
            return self._ask("GET", "/ready").strip() == b"LIVE"
        except ServerError:
            return False

    def states(self) -> dict[str, State]:
        """Version in force and refusals, by kind of file."""
        refusals = ("update_rejected", "update_failure")  # what it says, or that it cannot be read at all
        names = [f"{prefix}.{each}" for prefix in _COUNTERS.values() for each in ("version_text", *refusals)]
        found = self._stats(names)
        return {
            kind: State(
                version=str(found.get(f"{prefix}.version_text", "")),
                rejected=sum(int(found.get(f"{prefix}.{each}", 0)) for each in refusals),
            )
            for kind, prefix in _COUNTERS.items()
        }

    def table(self) -> dict[str, Any]:
        """The route table in force, as Envoy spells it; empty before it has one."""
        answer = json.loads(self._ask("GET", "/config_dump?resource=dynamic_route_configs"))
        for each in answer.get("configs", ()):
            return dict(each.get("route_config", {}))
        return {}

    def under_way(self, clusters: Iterable[str]) -> dict[str, int]:
        """Requests that each of those clusters has not answered yet."""
        ending = ".upstream_rq_active"
        found = self._stats([f"cluster.{name}{ending}" for name in clusters])
        return {name.removeprefix("cluster.").removesuffix(ending): int(value) for name, value in found.items()}

    def requests(self) -> int:
        """Requests of clients that are under way, copies not counted."""
        return int(self._stats(["http.edge.downstream_rq_active"]).get("http.edge.downstream_rq_active", 0))

    def drain(self) -> None:
        """Drain the clients: answers close their connections, and after the drain time no connection is accepted."""
        self._ask("POST", "/drain_listeners?graceful")

    def reopen_logs(self) -> None:
        """Open the log files anew, once they were moved away."""
        self._ask("POST", "/reopen_logs")

    def metrics(self) -> str:
        """All metrics, as Prometheus reads them."""
        return self._ask("GET", "/stats/prometheus").decode()

    def _stats(self, names: Iterable[str]) -> Mapping[str, Any]:
        expression = "^(" + "|".join(name.replace(".", "\\.") for name in names) + ")$"
        answer = json.loads(self._ask("GET", f"/stats?format=json&filter={quote(expression)}"))
        return {each["name"]: each["value"] for each in answer["stats"] if "name" in each}

    def _ask(self, method: str, path: str) -> bytes:
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(
                f"Envoy's admin interface does not answer: {error}",
                where=str(self._path),
                next_step="check that the edge is running (seatrial edge status)",
            ) from error
        finally:
            connection.close()
        if answer.status >= 400 and path != "/ready":
            raise ServerError(
                f"Envoy refused {path}: {body[:200]!r}", where=str(self._path), next_step="read Envoy's log"
            )
        return body
