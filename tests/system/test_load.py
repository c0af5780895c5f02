"""The load room against the real Triton, and against a server that fails on purpose where Triton does not."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from typer.testing import CliRunner

from scripts.benchmarks.faulty import Faulty
from seatrial.bench.errors import TargetError
from seatrial.bench.load.on_locust import AbortRules, ClientSetup, OpenLoopSetup, load, saturate
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import UNRECORDED, LoadRun
from seatrial.bench.load.summary import summarise
from seatrial.bench.load.validity import breaches
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.schedule import constant, poisson
from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError
from seatrial.serve.cli import app
from seatrial.serve.triton.server import Server
from tests.support.echo import samples

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SHARED = LoadLimits(lag=0.05, arrival_distance=0.15)  # a test machine has neighbours; what is tested here is not quiet


@pytest.fixture
def triton(echo_server: Server) -> str:
    """``host:port`` of the real server."""
    return f"127.0.0.1:{echo_server.http_port}"


@pytest.fixture
def endpoint(triton: str) -> Endpoint:
    return endpoint_of(triton, "echo")


# Against the real Triton


def test_a_running_server_tells_what_it_serves(triton: str) -> None:
    found = endpoint_of(f"http://{triton}/v2/models/echo")
    assert (found.model, found.version, found.url) == ("echo", "1", triton)
    assert found.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
    assert found.path == "/v2/models/echo/versions/1"


@pytest.mark.parametrize(
    ("url", "model", "message"),
    [
        ("{}", None, "2 ready models"),
        ("{}", "nobody", "does not serve"),
        ("{}/v2/models/echo/versions/9", None, "does not serve"),
        ("https://{}", "echo", "invalid target"),
        ("{}/metrics", "echo", "path"),
        ("127.0.0.1:1", "echo", "no answer"),
    ],
)
def test_a_target_that_cannot_be_is_told_by_name(triton: str, url: str, model: str | None, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        endpoint_of(url.format(triton), model)


def test_load_offers_the_schedule_and_keeps_every_time(endpoint: Endpoint, tmp_path: Path) -> None:
    schedule = poisson(120, 3, seed=3)
    told: list[float] = []
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    run = load(endpoint, schedule, Payload.build(endpoint, samples()), folder=tmp_path, progress=told.append)
    assert np.array_equal(run.intended, schedule.offsets)
    assert np.all(run.status == 200)
    assert np.all(run.sent >= run.intended)
    assert np.all(run.done > run.sent)
    assert breaches(run, SHARED) == ()
    summary = summarise(run, SHARED)
    assert summary.schedule == schedule.digest
    assert summary.achieved_rate == pytest.approx(len(schedule) / 3, rel=0.02)
    assert summary.p50 is not None
    assert 1e-4 < summary.p50 < 0.05
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    assert told == sorted(told)
    assert 0 <= told[0] < 0.5
    assert told[-1] > 0.9
    assert np.array_equal(LoadRun.read(tmp_path).done, run.done)
    assert {path.name for path in tmp_path.iterdir()} == {"run.npz", "run.json", "locust.log"}
    assert str(len(schedule)) in (tmp_path / "locust.log").read_text()


def test_error_replies_are_counted_with_their_reason(endpoint: Endpoint, tmp_path: Path) -> None:
    inputs = samples(10)
    inputs["x"][3] = -1
    run = load(endpoint, constant(50, 2), Payload.build(endpoint, inputs), folder=tmp_path)
    assert breaches(run, SHARED) == ()
    [failures] = summarise(run, SHARED).failures
    assert (failures.status, failures.count) == (500, 10)
    assert "negative values are refused" in failures.reason


def test_saturation_counts_replies_and_samples(endpoint: Endpoint, tmp_path: Path) -> None:
    payload = Payload.build(endpoint, samples(64), batch=4)
    full = saturate(endpoint, payload, seconds=2, concurrency=4, folder=tmp_path)
    assert full.errors == 0
    assert full.completed > 200
    assert full.inferences_per_second == pytest.approx(4 * full.completed / 2)
    assert np.all(full.done > full.sent)
    in_flight = np.searchsorted(np.sort(full.sent), full.sent, "right") - np.searchsorted(np.sort(full.done), full.sent)
    assert in_flight.max() <= 4


def test_requests_that_the_server_refuses_end_the_run_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    wrong = replace(endpoint, inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", 4)),))
    payload = Payload.build(wrong, {"z": samples()["x"]})
    began = time.monotonic()
    with pytest.raises(TargetError, match="unexpected inference input 'z'"):
        load(endpoint, poisson(10, 60, seed=1), payload, folder=tmp_path)
    assert time.monotonic() - began < 50  # of the sixty that were asked for


def test_nobody_there_leaves_no_process_behind(endpoint: Endpoint, tmp_path: Path) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(TargetError, match="cannot be loaded"):
        load(replace(endpoint, url="127.0.0.1:1"), constant(1, 1), Payload.build(endpoint, samples()), folder=tmp_path)
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_the_caller_goes_the_load_goes(endpoint: Endpoint, tmp_path: Path, number: signal.Signals) -> None:
    """SIGKILL leaves nobody to clean up: the load process must notice by itself."""
    script = f"""
        from pathlib import Path
        import numpy as np
        from seatrial.bench.load.on_locust import load
        from seatrial.bench.load.payload import Payload
        from seatrial.bench.schedule import constant
        from seatrial.bench.targets import endpoint_of
        endpoint = endpoint_of({endpoint.url!r}, "echo")
        payload = Payload.build(endpoint, {{"x": np.zeros((1, 4), np.float32)}})
        load(endpoint, constant(20, 120), payload, folder=Path({str(tmp_path)!r}))
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment, stderr=subprocess.PIPE)
    try:
        _until(lambda: any(tmp_path.glob(".load-*/go.json")), 60)
        time.sleep(0.8)  # some requests
        children = psutil.Process(caller.pid).children(recursive=True)
        assert any("locust" in " ".join(child.cmdline()) for child in children)
        caller.send_signal(number)
        _, said = caller.communicate(timeout=40)
        _until(lambda: not any(_runs(child) for child in children), 40)
    finally:
        if caller.poll() is None:
            caller.kill()
    if number == signal.SIGINT:
        assert b"KeyboardInterrupt" in said
        assert not list(tmp_path.glob(".load-*"))
        kept = LoadRun.read(tmp_path)  # what was measured until then
        assert kept.faults == ("aborted: interrupted",)
        assert np.all(kept.status[kept.sent < kept.elapsed - 2] == 200)
        assert np.any(kept.status == UNRECORDED)


def test_loads_that_could_hurt_are_refused(endpoint: Endpoint, tmp_path: Path) -> None:
    payload = Payload.build(endpoint, samples())
    for url in ("203.0.113.1:8000", "example.org:8000"):
        with pytest.raises(TargetError, match="not this machine"):
            load(replace(endpoint, url=url), constant(1, 1), payload, folder=tmp_path)
        with pytest.raises(TargetError, match="not this machine"):
            saturate(replace(endpoint, url=url), payload, seconds=1, concurrency=1, folder=tmp_path)
    with pytest.raises(ConfigError, match="cap"):
        load(endpoint, constant(30_000, 1), payload, folder=tmp_path)
    with pytest.raises(ConfigError, match="seconds"):
        load(endpoint, constant(1, 4000), payload, folder=tmp_path)
    with pytest.raises(ConfigError, match="in flight"):
        saturate(endpoint, payload, seconds=1, concurrency=100_000, folder=tmp_path)


# Against a server that fails on cue


def test_a_stall_is_seen_in_full(tmp_path: Path) -> None:
    """One stall of 1.5 s in 7 s: the 99th percentile must be what users felt, not what a closed loop sees."""
    server = Faulty(stall=1.5, stall_after=2.0)
    schedule = poisson(50, 7, seed=2)
    with server.running() as endpoint:
        run = load(endpoint, schedule, Payload.build(endpoint, samples()), folder=tmp_path)
    assert breaches(run, SHARED) == ()
    felt = (
        np.sort(server.answered)[-len(schedule) :] - run.start - schedule.offsets
    )  # seconds, by the server's own clock
    began = server.stalled[0] - run.start
    planned = _queue(schedule.offsets, 0.002, began, 1.5)
    truth = np.quantile(felt, 0.99)
    assert truth > np.quantile(planned, 0.99) - 0.01 > 1.2, "a busy machine makes the stall longer, never shorter"
    assert summarise(run, SHARED).p99 == pytest.approx(truth, rel=0.05)


def test_a_server_that_dies_makes_the_run_invalid(tmp_path: Path) -> None:
    server = Faulty(die_after=1.0)
    with server.running() as endpoint:
        run = load(
            endpoint,
            poisson(50, 2, seed=2),
            Payload.build(endpoint, samples()),
            folder=tmp_path,
            client=ClientSetup(warmup=0),
            loop=OpenLoopSetup(drain=1),
        )
    answered = run.status == 200
    assert np.any(answered)
    assert np.all(run.done[answered] < server.died - run.start + 0.1)
    assert np.all(run.status[run.sent > server.died - run.start] == 0)
    assert any(breach.startswith("transport") for breach in breaches(run, SHARED))
    assert not summarise(run, SHARED).valid


def test_a_server_that_goes_mute_is_not_waited_for_without_end(tmp_path: Path) -> None:
    server = Faulty(mute_after=1.0)
    with server.running() as endpoint:
        began = time.monotonic()
        run = load(
            endpoint,
            constant(50, 2),
            Payload.build(endpoint, samples()),
            folder=tmp_path,
            client=ClientSetup(warmup=0),
            loop=OpenLoopSetup(drain=1, in_flight=20),
        )
        assert time.monotonic() - began < 40
    told = {breach.split(":")[0] for breach in breaches(run, SHARED)}
    assert {"dropped", "unanswered"} <= told
    assert int(np.count_nonzero(run.status == -1)) == len(run) - int(np.count_nonzero(run.status == 200))
    assert int(np.count_nonzero((run.status == -1) & ~np.isnan(run.sent))) == 20
    waiting = run.status == -1
    assert np.all(run.done[waiting] == run.done[-1])
    assert run.done[-1] == pytest.approx(3.0, abs=0.2)  # the schedule's two seconds and the drain
    assert summarise(run, SHARED).p99 == pytest.approx(3.0 - run.intended[waiting][0], abs=0.3)


def test_a_target_in_trouble_is_spared(tmp_path: Path) -> None:
    """Mute after half a second: nothing is answered any more, and the waits alone say that it is too slow."""
    server = Faulty(mute_after=0.5)
    rules = AbortRules(p99=0.3, window=5.0, least=20)
    with server.running() as endpoint:
        payload = Payload.build(endpoint, samples())
        began = time.monotonic()
        client = ClientSetup(abort=rules, warmup=0)
        run = load(endpoint, constant(60, 60), payload, folder=tmp_path, client=client)
        assert time.monotonic() - began < 30
    [fault] = run.faults
    assert "aborted: p99 of the last" in fault
    assert np.any(run.status == 200)
    assert np.count_nonzero(run.status == UNRECORDED) > 60 * 40
    assert not summarise(run, SHARED).valid
    assert run.latency_bounds.max() < 15  # never due is not waiting
    assert LoadRun.read(tmp_path).faults == run.faults


def test_a_disk_that_fills_up_is_one_clear_error(endpoint: Endpoint, tmp_path: Path) -> None:
    """The load process may not write more than 32 KiB into one file, and its results are larger."""
    command = ["sh", "-c", f'ulimit -f 64; exec "{sys.executable}" -m seatrial.serve.cli load "$@"', "sh", endpoint.url]
    command += ["--model", "echo", "--rate", "1500", "--seconds", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 4, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_is_one_clear_error(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["load", endpoint.url, "--model", "echo", "--out", str(tmp_path / "file" / "run")])
    assert done.exit_code == 4, done.output
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def _queue(offsets: npt.NDArray[np.float64], service: float, stall_at: float, stall: float) -> npt.NDArray[np.float64]:
    """Latencies of a single server that takes `service` each and is blocked once (Lindley's recursion)."""
    latency, free, blocked = np.empty(len(offsets)), 0.0, False
    for index, arrival in enumerate(offsets):
        begin = max(arrival, free)
        if not blocked and begin >= stall_at - 1e-3:
            begin, blocked = begin + stall, True
        free = begin + service
        latency[index] = free - arrival
    return latency


def _until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _runs(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
