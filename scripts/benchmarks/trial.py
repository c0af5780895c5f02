"""A rollout for real: Triton with versions of a tiny model, Envoy with capture before it, clients that ask steadily.

Versions 1 and 2 answer the same, 3 answers another class, 4 is slow. Everything is started by the command line's own
functions in the SEATRIAL_HOME that is set, and is gone after the block.
"""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.serve.processes import free_ports
from seatrial.serve.traffic.edge import Capturing, Edge, Limits, Model
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.triton.repository.placement import RECORD
from seatrial.serve.triton.repository.version_files import digests
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.server import Server
from seatrial.serve.triton.supervision import lasting

NAME = "tried"
CONFIG = f"""
name: "{NAME}"
backend: "python"
max_batch_size: 0
input [{{ name: "x" data_type: TYPE_FP32 dims: [ 1, 3 ] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [ 1, 3 ] }}]
version_policy {{ specific {{ versions: 1 }} }}
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
MODEL = """
import time

import numpy
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(LOADING)

    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, x):
        time.sleep(SLEEP)
        return utils.InferenceResponse([utils.Tensor("y", numpy.ascontiguousarray(ANSWER))])
"""
ANSWERS = {1: ("x", "0.002"), 2: ("1.0 * x", "0.002"), 3: ("x[:, ::-1]", "0.002"), 4: ("x", "0.04")}
PLAN = """
schema = 1
load = 10.0
warmup = 0.2
drain = 0.3
interval = 0.1
block = 0.2
block_requests = 3

[margins]
mean = 0.9
p95 = 0.9
p99 = 0.9
errors = 0.5
refused = 0.2

[shadow]
mirror = 1.0
dwell = 60.0
compared_at_least = 0.5

[shadow.outputs.y]
top1_at_least = 0.9
alpha = 0.05

[[steps]]
share = 0.5
requests = 40
needs = "requests"
dwell = 60.0

[[steps]]
share = 1.0
requests = 20
needs = "requests"
dwell = 60.0
"""
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[0.2,0.5,0.9]}]}'


def put(repository: Path, versions: Sequence[int] = tuple(ANSWERS), *, loading: float = 0.0) -> None:
    """Write the model; version 1 is the one that is served."""
    for version in versions:
        folder = repository / NAME / str(version)
        folder.mkdir(parents=True)
        answer, sleep = ANSWERS[version]
        text = MODEL.replace("ANSWER", answer).replace("SLEEP", sleep).replace("LOADING", str(loading))
        (folder / "model.py").write_text(text)
        (folder / "__pycache__").write_bytes(b"no bytecode\n")
        record = {"schema": 1, "name": NAME, "version": version, "backend": "python"}
        digest = digest_bytes(text.encode())
        (folder / RECORD).write_bytes(canonical({**record, "digest": digest, "files": digests(folder)}))
    (repository / NAME / "config.pbtxt").write_text(CONFIG)


@contextmanager
def up(folder: Path, *, loading: float = 0.0) -> Iterator[tuple[Server, Proxy]]:
    """Server and edge, as ``seatrial up`` and ``seatrial edge up`` leave them; `loading` is seconds a version takes."""
    put(folder / "models", loading=loading)
    server = lasting.up(folder / "models", (NAME,), foreign=(NAME,))
    try:
        edge = Edge(
            schema=1,
            name=NAME,
            port=free_ports(1)[0],
            server=Upstream(http=server.url, grpc=server.grpc_url),
            models=(Model(name=NAME),),
            limits=Limits(retries=0),
            capture=Capturing(),
        )
        try:
            yield server, on_envoy.up(edge)
        finally:
            on_envoy.down(NAME, drain=0.0)
    finally:
        with suppress(OSError):
            on_pytriton.down(timeout=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as its client saw it, in Unix seconds; status 0 is no answer.

    `opened` is when its connection was, which may have borne requests before; infinite where there was none to be had.
    """

    sent: float
    ended: float
    status: int
    opened: float
    version: str = ""


class Asking:
    """Clients that ask at a steady pace until they are stopped, for `most` seconds at the longest."""

    def __init__(self, url: str, *, clients: int = 3, pause: float = 0.02, most: float = 300.0) -> None:
        self.asked: list[Asked] = []
        self._url, self._pause, self._until = url, pause, time.monotonic() + most
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Asked]:
        """Requests that were not answered well."""
        return [each for each in self.asked if each.status != 200]

    def _ask(self) -> None:
        connection, opened = http.client.HTTPConnection(self._url, timeout=10.0), 0.0
        while not self._over.wait(self._pause) and time.monotonic() < self._until:
            self.asked.append(_once(connection, opened))
            opened = self.asked[-1].opened
        connection.close()


def _once(connection: http.client.HTTPConnection, opened: float) -> Asked:
    sent = time.time()
    if connection.sock is None:
        try:
            connection.connect()
        except OSError:
            return Asked(sent=sent, ended=time.time(), status=0, opened=inf)
        sent = opened = time.time()
    try:
        connection.request("POST", f"/v2/models/{NAME}/infer", BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        content, version = answer.read(), answer.headers.get("x-model-version", "")
        if answer.status == 200:
            json.loads(content)
        return Asked(sent=sent, ended=time.time(), status=answer.status, opened=opened, version=version)
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return Asked(sent=sent, ended=time.time(), status=0, opened=opened)
