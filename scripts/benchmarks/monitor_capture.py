"""What capture at the edge costs, keeps and loses, and whether captured requests replay: a real Envoy and Triton."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
from typer.testing import CliRunner

from scripts.benchmarks.rows import Row
from scripts.benchmarks.shadowed import NAME, Client, versions
from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec
from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import MachineError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.monitor.captured.on_vault import Vault
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Edge, Model, Recording
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.server import Server

ROOT = Path(__file__).resolve().parents[2]
SEGMENT = 25  # rows, where the recorder is killed
LARGE = 500  # rows, where latencies are measured; a plan's default is 10,000
SECRET = 8191.4375  # exact in float32; stands in the dropped field of every request
PAIRS, WINDOW = 200, 50  # windows with and without capture in turn; requests of each
_MODEL = "linear"


def plan(model: str, fields: str, *, rows: int = SEGMENT) -> str:
    """Return a monitoring plan that captures."""
    head = f'schema = 1\nmodel = "{model}"\n[features.a]\nkind = "number"\n[capture]\nsegment_rows = {rows}\n'
    return head + f"segment_seconds = 600.0\n{fields}"


_FIELDS = """
[capture.fields]
a = { tensor = "x", index = 0, keep = "allow" }
b = { tensor = "x", index = 1, keep = "hash" }
c = { tensor = "x", index = 2, keep = "mask" }
secret = { tensor = "x", index = 3, keep = "drop" }
"""


@contextmanager
def edges(server: Server, models: Sequence[str], **records: Recording | None) -> Iterator[dict[str, Proxy]]:
    """Edges before one server, by name, each with its record or none."""
    upstream = Upstream(http=server.url, grpc=server.grpc_url)
    with ExitStack() as stack:
        made = {}
        for name, record in records.items():
            offered = tuple(Model(name=each) for each in models)
            made[name] = on_envoy.up(Edge(schema=1, name=name, port=0, server=upstream, models=offered, record=record))
            stack.callback(on_envoy.down, name, drain=0)
        yield made


@contextmanager
def recorder(proxy: Proxy, folder: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``seatrial record`` for the length of a block; SIGTERM closes its open segment."""
    path = folder / "plan.toml"
    path.write_text(text)
    proxy.places.recorder.unlink(missing_ok=True)  # of one that was killed
    words = [sys.executable, "-m", "seatrial.serve.cli", "record", str(path), "--edge", proxy.edge.name]
    with (folder / "record.log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=log)
    try:
        if not wait(proxy.places.recorder.exists, 30.0):
            raise MachineError("the recorder does not start", where=str(folder / "record.log"))
        time.sleep(1.0)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30.0)


def _window(proxy: Proxy, random: np.random.Generator, count: int = WINDOW) -> list[float]:
    client = Client(proxy.port)
    found = [client.ask([*random.normal(size=3).tolist(), SECRET])[1] for _ in range(count)]
    client.close()
    return found


def needles() -> list[bytes]:
    """Return how the secret may be written: as bytes, as text, and within base64 at each of three offsets."""
    raw = np.float32(SECRET).tobytes()
    whole = [base64.b64encode(b"\0" * shift + raw)[2 if shift else 0 :] for shift in range(3)]
    return [raw, str(SECRET).encode(), *(each.rstrip(b"=")[1:-1] for each in whole)]


def holding(folders: Sequence[Path]) -> list[Path]:
    """Return the files in which the secret can be found."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    wanted = needles()
    return [path for path in files if any(each in path.read_bytes() for each in wanted)]


def sequences(vault: Vault) -> tuple[list[int], int]:
    """Return the numbers of what is kept, in order, and how many segments were skipped."""
    with vault.read(vault.secret()) as read:
        rows = read.connection.execute("select sequence from rows order by sequence").fetchall()
        return [int(each[0]) for each in rows], read.skipped.total()


def capture(folder: Path) -> Row:
    """Latencies with and without capture in turn, the dropped field in all files, and what a kill loses."""
    home = folder / "home"
    with patch.dict(os.environ, SEATRIAL_HOME=str(home)), versions(folder) as server:
        record = Recording(share=0.1)
        with edges(server, (NAME,), on=record, off=None) as both:
            vault, random = Vault(model=NAME, home=home / "watch" / NAME), np.random.default_rng(0)
            told = plan(NAME, _FIELDS)
            with recorder(both["on"], folder, plan(NAME, _FIELDS, rows=LARGE)):
                found: dict[str, list[float]] = {"on": [], "off": []}
                for name in both:
                    _window(both[name], random)
                for pair in range(PAIRS):
                    for name in ("on", "off") if pair % 2 else ("off", "on"):
                        found[name] += _window(both[name], random)
            before, _ = sequences(vault)
            with recorder(both["on"], folder, told) as process:
                _window(both["on"], random, 12 * SEGMENT * 10 // 4)
                time.sleep(1.5)
                sealed = len(list(vault.folder.glob("*.seg")))
                process.kill()
                process.wait()
            absent = _window(both["on"], random, 300)
            with recorder(both["on"], folder, told):
                _window(both["on"], random, 500)
            numbers, skipped = sequences(vault)
            files = holding([home, *(each.sockets for each in both.values())])
    gaps = [b - a - 1 for a, b in pairwise(numbers) if b != a + 1]
    p99 = {name: float(np.quantile(each, 0.99)) for name, each in found.items()}
    more = p99["on"] / p99["off"] - 1
    most = SEGMENT + len(absent) // 5  # the open segment, and what was sampled while no recorder ran
    whole = len(gaps) <= 1 and sum(gaps) <= most and not skipped and bool(before) and numbers[0] == 1 and sealed > 1
    return Row(
        name="capture",
        claim=f"capture at 10 % sampling: p99 of {len(found['on'])} answers with it, {PAIRS} windows in turn with as "
        "many without; the dropped field searched in all files; the recorder killed in the middle",
        value=f"p99 {p99['on'] * 1e3:.2f} ms against {p99['off'] * 1e3:.2f} ms ({more:+.1%}); the dropped field in "
        f"{len(files)} files; {len(numbers)} kept, {gaps} missing at the kill (open segment: fewer than {SEGMENT}, the "
        f"rest while no recorder ran), {skipped} segments damaged",
        bar="p99 +5 % at most, in no file, none lost beyond the open segment",
        met=more <= 0.05 and not files and whole,
    )


def _artifact(folder: Path, store: Store, seed: int) -> Artifact:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        _MODEL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, str(folder / "model.onnx"))
    made_by = Provenance(
        stage="export",
        config={},
        parent=None,
        recipe="",
        samples=None,
        seed=0,
        environment=environment().to_json(),
        at=now(),
    )
    artifact = Artifact(
        name=_MODEL,
        format="onnx",
        files=(File.of(folder / "model.onnx"),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 4)),),
        requires={},
        made_by=made_by,
    )
    return store.put(artifact, folder)


def _ask(proxy: Proxy, count: int, seed: int) -> list[str]:
    """Send requests of one to three samples as JSON; return the edge's ids."""
    import http.client

    random, found = np.random.default_rng(seed), []
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    for _ in range(count):
        x = random.normal(size=(random.integers(1, 4), 8)).astype(np.float32)
        tensor = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.astype(float).tolist()}
        connection.request("POST", f"/v2/models/{_MODEL}/infer", json.dumps({"inputs": [tensor]}))
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise MachineError(f"the model does not answer: {reply.status} {body[:200]!r}")
        found.append(str(reply.getheader("x-request-id")))
    connection.close()
    return found


def replay(folder: Path) -> Row:
    """A hundred captured requests of two versions, replayed on the artifact that answered, and refused on another."""
    from seatrial.serve.cli import app

    home, repository = folder / "home", folder / "models"
    with patch.dict(os.environ, SEATRIAL_HOME=str(home)):
        store = Store(home / "store")
        artifacts = [_artifact(folder / f"made{seed}", store, seed) for seed in (1, 2)]
        deployment = Deployment(schema=1, name=_MODEL, backend="python", max_batch_size=8)
        for each in artifacts:
            place(each, deployment, store=store, repository=repository)
        server = on_pytriton.up(repository, (_MODEL,), recover=lambda path: None)
        try:
            with edges(server, (_MODEL,), on=Recording(share=1.0)) as both:
                fields = '[capture.fields]\nx = { keep = "allow" }\ny = { side = "output", keep = "allow" }\n'
                with recorder(both["on"], folder, plan(_MODEL, fields, rows=100_000)):
                    asked = [(each, 0) for each in _ask(both["on"], 50, 1)]
                    EnvoyRouter(both["on"]).apply(Routes(model=_MODEL, stable=2))
                    asked += [(each, 1) for each in _ask(both["on"], 50, 2)]
                    time.sleep(2.0)
        finally:
            on_pytriton.down()
        equal = refused = 0
        for request, at in asked:
            words = ["case", _MODEL, request, "--json", "--digest"]
            same = CliRunner().invoke(app, [*words, artifacts[at].digest])
            equal += same.exit_code == 0 and json.loads(same.stdout)["digest"] == artifacts[at].digest
            refused += CliRunner().invoke(app, [*words, artifacts[1 - at].digest]).exit_code == 2
    return Row(
        name="replay",
        claim="100 captured requests of two versions replayed on the artifact that answered, and asked of the other",
        value=f"{equal} equal on the same digest; {refused} refused on the other",
        bar="100 and 100",
        met=equal == refused == len(asked) == 100,
    )
