"""A real Envoy before a real Triton with [record], and the recorder: what is kept, what is not, what a kill loses."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from scripts.benchmarks.shadowed import NAME, Client, versions
from seatrial.serve.monitor.captured.on_vault import Vault
from seatrial.serve.processes import wait
from seatrial.serve.traffic.edge import Edge, Model, Recording
from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.triton.server import Server
from tests.support.built import ROOT

pytestmark = pytest.mark.system
PLAN = f"""
schema = 1
model = "{NAME}"
[features.a]
kind = "number"
[capture]
segment_rows = 20
segment_seconds = 600.0
[capture.fields.a]
tensor = "x"
index = 0
keep = "allow"
[capture.fields.who]
tensor = "x"
index = 1
keep = "hash"
[capture.fields.secret]
tensor = "x"
index = 2
keep = "drop"
[capture.fields.y]
side = "output"
keep = "allow"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("recorded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with versions(folder) as running:
            yield running


@contextmanager
def edge(server: Server, record: Recording) -> Iterator[Proxy]:
    upstream = Upstream(http=server.url, grpc=server.grpc_url)
    models = (Model(name=NAME), Model(name="absent"))
    wanted = Edge(schema=1, name="recorded", port=0, server=upstream, models=models, record=record)
    proxy = on_envoy.up(wanted)
    try:
        yield proxy
    finally:
        on_envoy.down("recorded", drain=0)


@contextmanager
def recorder(proxy: Proxy, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    plan = folder / "plan.toml"
    plan.write_text(PLAN)
    command = [sys.executable, "-m", "seatrial.serve.cli", "record", str(plan), "--edge", "recorded"]
    proxy.places.recorder.unlink(missing_ok=True)  # of one that was killed
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert wait(proxy.places.recorder.exists, 20.0)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20.0) in (0, -signal.SIGKILL)


def ask(proxy: Proxy, count: int, start: int = 0) -> list[str]:
    client = Client(proxy.port)
    found = [client.ask([start + each, 7.25, 8191.4375, 0.5])[0] for each in range(count)]
    client.close()
    return found


def large(proxy: Proxy, count: int) -> list[float]:
    """Send requests of 64 KiB; seconds until each answer."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}
    body = json.dumps({"inputs": [tensor]}) + " " * (64 << 10)
    connection, found = http.client.HTTPConnection("127.0.0.1", proxy.port), []
    for _ in range(count):
        began = time.monotonic()
        connection.request("POST", f"/v2/models/{NAME}/infer", body)
        reply = connection.getresponse()
        assert reply.read()
        assert reply.status == 200
        found.append(time.monotonic() - began)
    connection.close()
    return found


def vault() -> Vault:
    return Vault(model=NAME, home=Path(os.environ["SEATRIAL_HOME"]) / "watch" / NAME)


def kept(columns: str, where: str = "true") -> list[tuple[object, ...]]:
    found = vault()
    with found.read(found.secret()) as read:
        return list(read.connection.execute(f"select {columns} from rows where {where} order by time").fetchall())


def files_with(folders: list[Path], needles: list[bytes]) -> list[Path]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]


def test_sampled_requests_are_kept_by_the_policy_and_a_kill_loses_the_open_segment_alone(
    server: Server, tmp_path: Path
) -> None:
    with edge(server, Recording(share=1.0)) as proxy:
        with recorder(proxy, tmp_path) as process:
            ids = ask(proxy, 45)
            assert wait(lambda: len(list(vault().folder.glob("*.seg"))) >= 2, 20.0)
            process.kill()
            process.wait()
        rows = kept("request, a, who, y, version, status, reason")
        assert [row[0] for row in rows] == ids[: len(rows)]
        assert len(rows) == 40  # two whole segments of 20; five were in the open one
        assert [float(str(row[1])) for row in rows] == list(range(40))
        assert len({row[2] for row in rows}) == 1
        assert "7.25" not in str(rows[0][2])
        assert json.loads(str(rows[3][3])) == [24.0, 58.0, 65531.5, 4.0]
        assert {row[4:] for row in rows} == {(1, 200, "")}

        absent = ask(proxy, 5)  # nobody listens: answers come all the same
        with recorder(proxy, tmp_path):
            time.sleep(1.5)
            later = ask(proxy, 3, 100)
            time.sleep(1.5)
        found = [row[0] for row in kept("request")]
        assert found[40:] == [*found[40 : len(found) - 3], *later]
        assert set(found[40:]) <= {*absent, *later}
        dropped = np.float32(8191.4375).tobytes()
        assert not files_with([Path(os.environ["SEATRIAL_HOME"]), proxy.sockets], [dropped, b"8191.4375"])


def test_a_request_that_no_server_answers_is_kept_with_its_status(server: Server, tmp_path: Path) -> None:
    with edge(server, Recording(share=1.0, most_bytes=200)) as proxy, recorder(proxy, tmp_path):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
        for data in ([1.0] * 3, [1.0] * 400):  # another shape is refused by Triton; the other is above the cap
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(data)], "data": data}
            connection.request("POST", f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor]}))
            assert connection.getresponse().read()
        connection.close()
        time.sleep(1.5)
    found = kept("status, reason, shapes", "status <> 200")
    assert len(found) == 2
    assert str(found[0][1]).startswith("failed: ")
    assert found[1][1] == "request: too large"
    assert '"x": ["float32", [1, 3]]' in str(found[0][2])


def test_requests_over_grpc_are_kept_alike(server: Server, tmp_path: Path) -> None:
    import grpc
    from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc

    with edge(server, Recording(share=1.0)) as proxy, recorder(proxy, tmp_path):
        with grpc.insecure_channel(proxy.url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            tensor = InferInput("x", [2, 4], "FP32")
            tensor.set_data_from_numpy(np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], np.float32))
            request = service_pb2.ModelInferRequest(model_name=NAME, inputs=[tensor._get_tensor()])
            request.raw_input_contents.append(tensor._get_content())
            _, call = stub.ModelInfer.with_call(request)
            asked = dict(call.initial_metadata())["x-request-id"]
        time.sleep(1.5)
    found = kept('request, "row", a, y, version, grpc_status, reason')
    assert found == [
        (asked, 0, "1.0", "[8.0, 16.0, 24.0, 32.0]", 1, "0", ""),
        (asked, 1, "5.0", "[40.0, 48.0, 56.0, 64.0]", 1, "0", ""),
    ]


def test_a_recorder_that_hangs_keeps_no_answer_waiting_and_what_it_missed_is_known(
    server: Server, tmp_path: Path
) -> None:
    with edge(server, Recording(share=1.0, most_bytes=1 << 20)) as proxy, recorder(proxy, tmp_path) as process:
        first = ask(proxy, 1)
        time.sleep(1.0)
        process.send_signal(signal.SIGSTOP)
        try:
            memory = psutil.Process(proxy.pid).memory_info().rss
            slowest = max(large(proxy, 600))
            grown = psutil.Process(proxy.pid).memory_info().rss - memory
        finally:
            process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        last = ask(proxy, 1)
        time.sleep(2.0)
    found = kept("request, sequence")
    assert slowest < 2.0
    assert grown < 40 << 20  # of 60 MB that were sampled
    assert (found[0][0], found[-1][0]) == (first[0], last[0])
    assert found[-1][1] == 602
    assert len(found) < 602  # and so it is known how many are missing


def test_half_of_the_requests_are_sampled_whatever_they_hold(server: Server, tmp_path: Path) -> None:
    with edge(server, Recording(share=0.5)) as proxy, recorder(proxy, tmp_path):
        ids = ask(proxy, 200)
        time.sleep(1.5)
    sampled = {row[0] for row in kept("request")}
    assert sampled <= set(ids)
    assert 60 < len(sampled) < 140
