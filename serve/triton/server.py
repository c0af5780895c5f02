"""The record of a server that was started, and the reasons that a server's log holds.

Plain values and reading; starts and stops nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.names import is_name
from seatrial.optimize.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(
    Record,
    schema=1,
    what="the record of a server",
    next_step="end that tritonserver by hand and remove the file",
):
    """A server that was started: its process (`started` in clock ticks since boot), ports, repository and traces.

    `scratch` is its private folder and `shm_prefix` how its shared memory is called; both go when it is stopped.
    `models` are those it was started with, and `foreign` those that its owner vouches for; None is a
    throwaway server of a repository that its caller made, where nothing is compared before a load.
    """

    pid: int
    started: int
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: Path
    log: Path
    scratch: Path
    shm_prefix: str
    models: tuple[str, ...] = ()
    foreign: tuple[str, ...] | None = None

    @property
    def url(self) -> str:
        """``host:port`` of the HTTP side."""
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC side."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Return the URL for Prometheus."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @classmethod
    def adapt(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Let a record of an earlier release vouch for nothing."""
        return {"foreign": []} | value

    def check(self) -> None:
        """Refuse what names no server."""
        ports = (self.http_port, self.grpc_port, self.metrics_port)
        if self.pid < 1 or not all(0 <= port < 65536 for port in ports) or not is_name(self.shm_prefix):
            raise ValueError("it names no server")


def log_errors(log: Path, start_at: int = 0) -> str:
    """The errors in a log since a place in it, without time and source line; Triton's replies often lack the reason."""
    with log.open("rb") as stream:
        stream.seek(start_at)
        lines = stream.read(1 << 20).decode(errors="replace").splitlines()
    said = []
    for line in lines:
        if line.startswith("E") and "]" in line and "CudaDriverHelper" not in line:
            said.append(line.partition("] ")[2].strip().strip('"'))
        elif line.startswith("error:") or "error while loading shared libraries" in line:
            said.append(line.strip())
    return "; ".join(said)[-1000:]
