"""A real Triton with four versions of one model behind the real edge that mirrors, for the shadow row and its tests.

Version 1 is stable, 2 answers the same, 3 answers one request of a hundred with another class, 4 answers NaN. A
candidate that hangs is a socket that takes connections and never says a word.
"""

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from seatrial.serve.traffic.edge import Capturing, Edge, Limits, Model
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.running.on_pytriton import serving
from seatrial.serve.triton.server import Server

NAME = "shadowed"
CONFIG = f"""
name: "{NAME}"
backend: "python"
max_batch_size: 16
input [{{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
version_policy {{ all {{ }} }}
"""
MODEL = """
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        self.version = int(args["model_version"])

    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        y = 8 * x
        if self.version == 3:
            wrong = np.floor(x[:, :1] * 1e6) % 100 == 0
            y = np.where(wrong, np.roll(y, 1, axis=1), y)
        if self.version == 4:
            y = y * np.float32("nan")
        return utils.InferenceResponse([utils.Tensor("y", y.astype(np.float32))])
"""


@contextmanager
def versions(folder: Path) -> Iterator[Server]:
    """The server, for the length of a block."""
    for version in range(1, 5):
        (folder / "repository" / NAME / str(version)).mkdir(parents=True)
        (folder / "repository" / NAME / str(version) / "model.py").write_text(MODEL)
    (folder / "repository" / NAME / "config.pbtxt").write_text(CONFIG)
    with serving(folder / "repository", (NAME,)) as server:
        yield server


@contextmanager
def hanging() -> Iterator[int]:
    """The port of a server that never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4096)  # the system accepts connections, no process reads them
        yield int(silent.getsockname()[1])


@contextmanager
def edge(
    server: Server,
    *,
    share: float,
    candidate: int = 2,
    hangs: int | None = None,
    limits: Limits | None = None,
    timeout_ms: int = 5000,
    capture: Capturing | None = None,
) -> Iterator[Proxy]:
    """The edge before the server: version 1 live, `candidate` mirrored; share 0 neither mirrors nor captures.

    `hangs` is the port of what stands in for the candidate.
    """
    upstream = Upstream(http=server.url, grpc=server.grpc_url)
    silent = f"127.0.0.1:{hangs}"
    wanted = Edge(
        schema=1,
        name=NAME,
        port=0,
        server=upstream,
        shadow=Upstream(http=silent, grpc=silent) if hangs else None,
        models=(Model(name=NAME, timeout_ms=timeout_ms),),
        limits=limits or Limits(),
        capture=(capture or Capturing()) if share else None,
    )
    routes = Routes(model=NAME, stable=1, candidate=candidate if share else None, mirror=share)
    with on_envoy.serving(wanted, (routes,)) as proxy:
        yield proxy


class Client:
    """One keep-alive connection that sends single samples."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, x: Sequence[float], headers: Mapping[str, str] | None = None) -> tuple[str, float]:
        """The id that the edge gave the request, and the seconds that the answer took."""
        raw = np.array([x], np.float32).tobytes()
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": len(raw)}}
        wanted = {"name": "y", "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        length = {"inference-header-content-length": str(len(head))}
        began = time.perf_counter()
        self._connection.request("POST", f"/v2/models/{NAME}/infer", head + raw, length | dict(headers or {}))
        reply = self._connection.getresponse()
        body = reply.read()
        took = time.perf_counter() - began
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {body[:200]!r}")
        return str(reply.getheader("x-request-id")), took

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
