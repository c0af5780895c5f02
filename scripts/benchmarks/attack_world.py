"""Target of the attacks: a real Triton with versions of one model, a real edge with keys, supervisor and watch.

The model tells its version with every answer. Versions 1 and 2 are alike but for noise far below any class, 3 is loaded
and named by no route, 4 fails 2 % of all requests but the supervisor's, 5 is 20 % slower. A second model
is not offered by the edge at all. Version 3 and the second model write down each request of an attack that reaches
them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.environment import home
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.processes import free_ports, wait
from seatrial.serve.traffic.edge import Capturing, Edge, Jwt, Keys, Limits, Model
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy, read, running
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placement import RECORD
from seatrial.serve.triton.repository.version_files import digests
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.server import Server
from seatrial.serve.triton.supervision import lasting
from seatrial.serve.triton.supervision.switch import switch

ROOT = Path(__file__).resolve().parents[2]
NAME, OTHER, EDGE = "target", "secret", "attacked"
STABLE, IDENTICAL, HIDDEN, FAILING, SLOWER = 1, 2, 3, 4, 5
SECONDS = 0.008  # what one row costs
KEYS = {name: f"{name}s-key-of-16" for name in ("alice", "bob", "carol", "dave", "erin", "mallory", "mallet")}
HONEST = ("alice", "bob", "carol", "dave", "erin")
ATTACKERS = ("mallory", "mallet")
CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 16
input [
  {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }},
  {{ name: "s" data_type: TYPE_STRING dims: [ -1 ] optional: true }}
]
output [
  {{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }},
  {{ name: "v" data_type: TYPE_INT32 dims: [ 1 ] }}
]
version_policy {{ specific {{ versions: 1 }} }}
instance_group [{{ kind: KIND_CPU count: 2 }}]
"""
MODEL = """
import random
import time

import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args):
        self.version = int(args["model_version"])
        self.name = args["model_name"]
        self.noise = numpy.roll(numpy.array([1e-4, 0, 0, 0], numpy.float32), self.version)

    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, x):
        if x.size and x.flat[0] == 666.0 and @WRITES@:
            with open("@REACHED@", "a") as stream:
                stream.write(f"{self.name} {self.version}\\n")
        time.sleep(@SECONDS@ * (1 + (len(x) - 1) / 4))
        if x.any() and random.random() < @FAILS@:  # the supervisor's request is of zeros
            return utils.InferenceResponse(error=utils.TritonError("failed at random", utils.TritonError.INTERNAL))
        version = numpy.full((len(x), 1), self.version, numpy.int32)
        return utils.InferenceResponse([utils.Tensor("y", 8 * x + self.noise), utils.Tensor("v", version)])
"""
_SLOWER = 1.25  # of the sleep, which makes +20 % of what the edge measures


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Addresses, folders and processes of the target, and the events of a run."""

    folder: Path
    server: Server
    proxy: Proxy
    health: "Health"

    @property
    def port(self) -> int:
        """The edge's port."""
        return self.proxy.port

    def route(self, routes: Routes) -> None:
        """Make these routes the truth."""
        EnvoyRouter(self.proxy).apply(routes)

    def serve(self, *versions: int) -> None:
        """Serve exactly these versions."""
        with Control.to(self.server) as control:
            switch(control, self.server.repository, NAME, versions)

    def reached(self) -> list[str]:
        """Return which models and versions that no caller may reach an attack has reached."""
        path = self.folder / "reached"
        return sorted(set(path.read_text().splitlines())) if path.exists() else []

    def logged(self) -> dict[str, str]:
        """Return the version by request id, as the access log has it; an id with two versions has both."""
        from json import JSONDecodeError, loads

        found: dict[str, str] = {}
        log = self.proxy.places.access_log
        for path in (log.with_name(log.name + ".1"), log):
            for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
                with suppress(JSONDecodeError, KeyError, TypeError):
                    said = loads(line)
                    if said.get("role", "live") == "live" and "version" in said:
                        before, version = found.get(said["id"]), str(said["version"])
                        found[said["id"]] = version if before in (None, version) else f"{before} and {version}"
        return found


@dataclass(slots=True)
class Health:
    """Deaths of Triton, of its model processes' server and of Envoy, seen by looking often; and Envoy's memory."""

    deaths: list[tuple[str, float, float]] = field(default_factory=list)
    down: dict[str, float] = field(default_factory=dict)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def count(self, name: str, *, since: float = 0.0) -> int:
        """Return how often that process died."""
        return sum(each == name and died >= since for each, _, died in self.deaths)

    def look(self, edge: str = EDGE) -> None:
        """Look once."""
        server, proxy = on_pytriton.wanted(), read(on_envoy.folder_of(edge))
        for name, there in (
            ("triton", server is not None and on_pytriton.running(server)),
            ("envoy", proxy is not None and running(proxy)),
        ):
            now = time.time()
            if there:
                self.down.pop(name, None)
            elif name not in self.down:
                self.down[name] = now
                self.deaths.append((name, self._seen.get(name, now - 0.1), now))
            if there:
                self._seen[name] = now
        if proxy is not None and "envoy" not in self.down:
            with suppress(psutil.Error):
                self.memory.append((time.time(), psutil.Process(proxy.pid).memory_info().rss))

    _seen: dict[str, float] = field(default_factory=dict)


def put(folder: Path) -> Path:
    """Write both models with their versions and records; returns the repository."""
    repository = folder / "models"
    for name, versions in ((NAME, (STABLE, IDENTICAL, HIDDEN, FAILING, SLOWER)), (OTHER, (1,))):
        for version in versions:
            at = repository / name / str(version)
            at.mkdir(parents=True)
            seconds = SECONDS * (_SLOWER if (name, version) == (NAME, SLOWER) else 1)
            hidden = name == OTHER or version == HIDDEN
            changes = {
                "@REACHED@": str(folder / "reached"),
                "@SECONDS@": str(seconds),
                "@FAILS@": "0.02" if version == FAILING else "0.0",
                "@WRITES@": str(hidden),
            }
            text = MODEL
            for old, new in changes.items():
                text = text.replace(old, new)
            (at / "model.py").write_text(text)
            (at / "__pycache__").write_bytes(b"no bytecode\n")
            digest = digest_bytes(f"{name} {version}".encode() + text.encode())
            record = {"schema": 1, "name": name, "version": version, "backend": "python", "digest": digest}
            (at / RECORD).write_bytes(canonical({**record, "files": digests(at)}))
        (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name))
    return repository


def edge_of(folder: Path, server: Server, *, name: str = EDGE, auth: Keys | Jwt | None = None, **limits: Any) -> Edge:
    """Return the edge under attack: keys, capture, and the usual limits but for those given."""
    keys = folder / "keys.txt"
    if not keys.exists():
        keys.touch(mode=0o600)
        keys.write_text("".join(f"{client} {key}\n" for client, key in KEYS.items()))
    return Edge(
        schema=1,
        name=name,
        port=free_ports(1)[0],
        server=Upstream(http=server.url, grpc=server.grpc_url),
        models=(Model(name=NAME, timeout_ms=3000),),
        limits=Limits(**limits),
        auth=auth or Keys(kind="keys", file=keys),
        capture=Capturing(),
    )


@contextmanager
def verb(*words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a verb of the command in a process of its own, ended with the block."""
    log = (home() / "verbs.log").open("ab")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "seatrial.serve.cli", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@contextmanager
def kept(*words: str) -> Iterator[None]:
    """Run a verb as a service manager would: started again whenever it ends, for the length of the block."""
    over = threading.Event()

    def keep() -> None:
        while not over.is_set():
            with verb(*words) as process:
                while process.poll() is None and not over.wait(0.1):
                    pass
            over.wait(1.0)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(15.0)


@contextmanager
def up(folder: Path, versions: Sequence[int] = (STABLE,)) -> Iterator[World]:
    """Start all of it in the `SEATRIAL_HOME` of the folder; it is gone after the block."""
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    repository = put(folder)
    with ExitStack() as stack:
        server = lasting.up(repository, (NAME, OTHER), foreign=(NAME, OTHER))
        stack.callback(_down)
        proxy = on_envoy.up(edge_of(folder, server))
        stack.callback(on_envoy.down, EDGE, drain=0.0)
        for words in (("supervise",), ("edge", "watch", EDGE)):
            stack.enter_context(kept(*words))
        health = stack.enter_context(watching())
        world = World(folder=folder, server=server, proxy=proxy, health=health)
        if tuple(versions) != (STABLE,):
            world.serve(*versions)
        world.route(Routes(model=NAME, stable=STABLE))
        yield world


@contextmanager
def watching() -> Iterator[Health]:
    """Look at the processes ten times a second, for the length of the block."""
    health, over = Health(), threading.Event()

    def looks() -> None:
        while not over.wait(0.1):
            with suppress(SeatrialError, OSError, ValueError):
                health.look()

    thread = threading.Thread(target=looks, daemon=True)
    thread.start()
    try:
        yield health
    finally:
        over.set()
        thread.join(5.0)


def settled(world: World, *, most: float = 60.0) -> bool:
    """Wait until the edge and the stable version answer again; whether they do."""
    from scripts.benchmarks.attack_honest import answered

    return wait(lambda: answered(world.port), most)


def _down() -> None:
    with suppress(SeatrialError, OSError):
        server = on_pytriton.wanted()
        on_pytriton.down(timeout=1.0)
        if server is not None:
            on_pytriton.discard(server)
