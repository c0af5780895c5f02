"""Every wire, scenario and way of running Locust against the real Triton; a stub only where a worker must die."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from seatrial.bench.errors import TargetError
from seatrial.bench.load import on_grpc, shared_memory
from seatrial.bench.load.grpc_wire import GrpcConnection
from seatrial.bench.load.messages import Array
from seatrial.bench.load.on_locust import AbortRules, ClientSetup, OpenLoopSetup, WebUi, load, saturate
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import UNRECORDED
from seatrial.bench.load.summary import summarise
from seatrial.bench.load.wire import WIRES, ForeignError, Wire
from seatrial.bench.quality.served import _exchange
from seatrial.bench.schedule import constant, poisson
from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.optimize.artifact import TensorSpec
from seatrial.serve.cli import app
from seatrial.serve.triton.server import Server
from tests.support.echo import samples

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SHM = Path("/dev/shm")


@pytest.fixture
def endpoint(echo_server: Server) -> Endpoint:
    return replace(endpoint_of(echo_server.url, "echo"), grpc_url=echo_server.grpc_url)


def ask(endpoint: Endpoint, path: str) -> Any:
    with urllib.request.urlopen(f"http://{endpoint.url}{path}", timeout=10) as reply:
        return json.load(reply)


def answered(endpoint: Endpoint) -> int:
    """Requests that the server itself has answered with success."""
    [stats] = ask(endpoint, "/v2/models/echo/stats")["model_stats"]
    return int(stats["inference_stats"]["success"]["count"])


# Wires


def answers(endpoint: Endpoint, protocol: Wire, payload: Payload) -> list[Array]:
    """What the server answers to each request, decoded as that wire carries it."""
    if protocol == "grpc":
        from tritonclient.grpc import service_pb2

        with grpc.insecure_channel(str(endpoint.grpc_url).removeprefix("grpc://")) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            replies = [service_pb2.ModelInferResponse.FromString(call(each)) for each in payload.requests]
        return [np.frombuffer(reply.raw_output_contents[0], "<f4") for reply in replies]
    with shared_memory.registered(endpoint, payload.regions) as written:
        with socket.create_connection(endpoint.address) as connection:
            if protocol != "shm":
                return [_exchange(connection, each, endpoint)["y"].ravel() for each in payload.requests]
            for each in payload.requests:
                connection.sendall(each)
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        sink = np.frombuffer(written(payload.regions[1].name)[: 64 * len(payload.requests)], "<f4")
        return list(sink.reshape(-1, 16)[:, :12])


def test_the_answers_are_the_same_on_every_wire(endpoint: Endpoint) -> None:
    inputs = samples(9)
    for protocol in WIRES:
        payload = Payload.build(endpoint, inputs, batch=3, protocol=protocol)
        found = answers(endpoint, protocol, payload)
        assert len(found) == 3
        assert np.array_equal(np.concatenate(found).reshape(9, 4), inputs["x"]), protocol
    assert not list(SHM.glob("seatrial-*"))


@pytest.mark.parametrize("protocol", ["grpc", "shm"])
def test_a_load_over_other_wires(endpoint: Endpoint, tmp_path: Path, protocol: Wire) -> None:
    payload = Payload.build(endpoint, samples(), protocol=protocol)
    before = answered(endpoint)
    run = load(endpoint, constant(60, 1), payload, folder=tmp_path, client=ClientSetup(warmup=8))
    assert np.all(run.status == 200), run.reasons
    assert run.about.protocol == protocol
    assert answered(endpoint) - before == 68
    assert ask(endpoint, "/v2/systemsharedmemory/status") == []
    assert not list(SHM.glob("seatrial-*"))


def test_refusals_leave_no_shared_memory(endpoint: Endpoint, tmp_path: Path) -> None:
    wrong = replace(endpoint, inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", 4)),))
    payload = Payload.build(wrong, {"z": samples()["x"]}, protocol="shm")
    with pytest.raises(TargetError, match="unexpected inference input 'z'"):
        load(endpoint, constant(10, 60), payload, folder=tmp_path)
    assert ask(endpoint, "/v2/systemsharedmemory/status") == []
    assert not list(SHM.glob("seatrial-*"))


def test_grpc_errors_have_http_s_numbers(endpoint: Endpoint) -> None:
    inputs = samples(2)
    inputs["x"][1] = -1
    connection = GrpcConnection(("127.0.0.1", int(str(endpoint.grpc_url).split(":")[-1])), socket.create_connection)
    good, bad = Payload.build(endpoint, inputs, protocol="grpc").requests
    assert connection.exchange(good) == (200, "")
    status, text = connection.exchange(bad)
    assert (status, "negative values are refused" in text) == (500, True)
    status, text = connection.exchange(on_grpc.message(replace(endpoint, model="nobody"), {"x": inputs["x"]}))
    assert status in (404, 503), text
    assert "nobody" in text
    assert connection.exchange(good) == (200, "")
    connection.close()
    with pytest.raises(ConnectionError):
        GrpcConnection(("127.0.0.1", 1), socket.create_connection).exchange(good)
    wrong_port = GrpcConnection(endpoint.address, socket.create_connection)
    with pytest.raises(ForeignError):
        wrong_port.exchange(good)
    wrong_port.close()


def test_scenarios_by_the_command(endpoint: Endpoint, tmp_path: Path) -> None:
    for name, batch, figure in (("multi-stream", 8, "tail"), ("offline", 4, "samples_per_second")):
        command = ["load", endpoint.url, "--model", "echo", "--scenario", name, "--seconds", "1", "--json"]
        command += ["--batch", str(batch), "--concurrency", "3", "--out", str(tmp_path / name)]
        found = json.loads(CliRunner().invoke(app, command).stdout)
        assert found["scenario"]["scenario"] == name
        assert found["scenario"][figure]
        assert (found["batch"], found["errors"]) == (batch, 0)
        assert found["concurrency"] == (3 if name == "offline" else 1)


def test_errors_beyond_the_limit_stop_a_closed_loop(endpoint: Endpoint, tmp_path: Path) -> None:
    inputs = samples(10)
    inputs["x"][3] = -1
    began = time.monotonic()
    run = saturate(
        endpoint,
        Payload.build(endpoint, inputs),
        seconds=60,
        concurrency=1,
        folder=tmp_path,
        client=ClientSetup(abort=AbortRules(errors=0.05, least=50)),
    )
    assert time.monotonic() - began < 30
    assert "requests failed (limit 5.0%)" in run.faults[0]
    assert run.errors == pytest.approx(len(run.status) / 10, rel=0.1)


# Master, workers, web UI


def watching(seen: list[dict[str, Any]], address: str) -> None:
    """Read what the web UI shows, until it says that the test has stopped."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (seen and seen[-1]["state"] == "stopped"):
        time.sleep(0.3)
        with suppress(OSError), urllib.request.urlopen(f"{address}/stats/requests", timeout=5) as reply:
            seen.append(json.load(reply))


def test_four_workers_send_every_arrival_once_and_the_web_ui_shows_it(endpoint: Endpoint, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    addresses: list[str] = []

    def show(address: str) -> None:
        addresses.append(address)
        threading.Thread(target=watching, args=(seen, address), daemon=True).start()

    schedule = poisson(200, 3, seed=4)
    before = answered(endpoint)
    payload = Payload.build(endpoint, samples())
    run = load(
        endpoint,
        schedule,
        payload,
        folder=tmp_path,
        client=ClientSetup(warmup=5),
        loop=OpenLoopSetup(workers=4),
        ui=WebUi(announce=show, seconds=2),
    )
    assert np.array_equal(run.intended, schedule.offsets)
    assert run.schedule.digest == schedule.digest
    assert run.faults == ()
    assert np.all(run.status == 200)
    assert np.all(run.sent >= run.intended)  # one clock and one start in all four
    assert answered(endpoint) - before == len(schedule) + 4 * 5
    median = float(np.median(run.latency)) * 1e3

    assert addresses[0].startswith("http://127.0.0.1:")
    assert seen[-1]["state"] == "stopped"
    total = seen[-1]["stats"][-1]
    assert (total["num_requests"], total["num_failures"]) == (len(schedule), 0)
    assert total["median_response_time"] == pytest.approx(median, rel=0.02)
    assert 0 < total["median_response_time"] < total["response_time_percentile_0.99"]

    log = (tmp_path / "locust.log").read_text()
    [count] = re.findall(r"Aggregated +(\d+) ", log.partition("Response time percentiles")[0])
    assert int(count) == len(schedule)
    [[count, p50]] = re.findall(r"(\d+) requests, 0 failed; milliseconds: p50 ([0-9.]+)", log)
    assert (int(count), float(p50)) == (len(schedule), total["median_response_time"])


def test_a_killed_worker_makes_the_run_invalid_and_keeps_the_others(endpoint: Endpoint, tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    def kill() -> None:
        while not any(tmp_path.glob(".load-*/go.json")):
            time.sleep(0.02)
        time.sleep(1.0)
        for child in psutil.Process().children(recursive=True):
            if child.pid not in before and "worker-2.json" in child.environ().get("SEATRIAL_LOAD", ""):
                child.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    schedule = poisson(100, 3, seed=4)
    run = load(endpoint, schedule, Payload.build(endpoint, samples()), folder=tmp_path, loop=OpenLoopSetup(workers=3))
    killer.join()
    assert run.faults == ("worker 2 of 3 was lost: its process ended (SIGKILL)",)
    assert not summarise(run).valid
    assert np.all(run.status[2::3] == UNRECORDED)
    assert np.all(run.status[0::3] == 200)
    assert np.all(run.status[1::3] == 200)
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


def test_the_locustfile_runs_by_hand(endpoint: Endpoint, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "bench" / "load" / "locustfile.py"), "--headless"]
    command += ["--only-summary", "--host", f"http://{endpoint.url}", "--model", "echo", "--rate", "100"]
    before = answered(endpoint)
    run: Any = {"cwd": tmp_path, "capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run([*command, "--seconds", "1"], **run, timeout=60)
    assert done.returncode == 0, done.stderr
    schedule = poisson(100, 1, 1)
    assert re.search(rf"Aggregated +{len(schedule)} ", done.stdout + done.stderr)
    assert answered(endpoint) - before == len(schedule) + 16
    done = subprocess.run([*command, "--seconds", "4000"], **run, timeout=60)
    assert done.returncode == 2
    assert "at most 3600" in done.stdout
