"""The record of a server that was started, and the reasons that a server's log holds.

Plain values and reading; starts and stops nothing.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.names import is_name
from seatrial.optimize.reading import decode, read_object

SCHEMA = 1
_PATHS = ("repository", "log", "scratch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
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

    def to_json(self) -> dict[str, Any]:
        """JSON values, paths as text."""
        paths = {key: str(getattr(self, key)) for key in _PATHS}
        return {"schema": SCHEMA, **asdict(self), **paths}


def read_server(path: Path) -> Server | None:
    """The server of a record file; None where there is none.

    Raises:
        IntegrityError: the record was changed, or another version wrote it.
    """
    step = "end that tritonserver by hand and remove the file"
    try:
        content = read_object(path, schema=SCHEMA, next_step=step)
    except FileNotFoundError:
        return None
    del content["schema"]
    content.setdefault("foreign", [])  # a record of an earlier release vouches for nothing
    found = decode(Server, content, where=str(path), next_step=step)
    ports = (found.http_port, found.grpc_port, found.metrics_port)
    if found.pid < 1 or not all(0 <= port < 65536 for port in ports) or not is_name(found.shm_prefix):
        raise IntegrityError(
            "the record of a server cannot be read: it names no server", where=str(path), next_step=step
        )
    return found


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
