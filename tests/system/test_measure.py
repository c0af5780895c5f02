"""Measuring on the real Triton and the real Locust, and artifacts in processes of their own; and what goes wrong."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from seatrial.bench.errors import CallError
from seatrial.bench.load.inputs import random_inputs
from seatrial.bench.load.on_locust import load
from seatrial.bench.load.payload import Payload
from seatrial.bench.measuring import measured
from seatrial.bench.measuring.in_process import Plan
from seatrial.bench.measuring.measure import measure_artifact, measure_endpoint
from seatrial.bench.measuring.probes import MemoryProbe
from seatrial.bench.measuring.usage import Look
from seatrial.bench.processes import resident, tree
from seatrial.bench.schedule import constant, poisson
from seatrial.bench.server_statistics import ServerCounts, mean_compute, window
from seatrial.bench.targets import Endpoint
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import StageError
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.running.host import host
from tests.support.built import ROOT, TINY, Built

pytestmark = pytest.mark.system
DEPLOYMENT = Deployment(schema=1, name="tiny", max_batch_size=32)


@pytest.fixture(scope="module")
def served(tiny: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The tiny model on a real server of its own."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with host(tiny.store, DEPLOYMENT, scratch=folder)(tiny.build.artifact) as endpoint:
            yield endpoint


def seatrial(*arguments: str, home: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command; `limit` is the largest file it may write, as a full disk would."""
    return subprocess.run(
        [sys.executable, "-m", "seatrial.serve.cli", *arguments],
        env=os.environ | {"SEATRIAL_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
    )


def value(summary: Mapping[str, object], metric: str) -> float:
    figures = summary["figures"]
    assert isinstance(figures, list)
    return float(next(each["value"] for each in figures if each["metric"] == metric))


def test_the_server_counts_exactly_the_requests_of_the_window_and_loading_was_timed(
    served: Endpoint, tmp_path: Path
) -> None:
    assert served.load_seconds is not None
    assert served.load_seconds > 0
    payload = Payload.build(served, random_inputs(served, 64, 1))
    with window(served) as counting:
        run = load(served, constant(100.0, 1.5), payload, folder=tmp_path, progress=counting.begin)
    counted = counting.counted
    assert isinstance(counted, ServerCounts)
    assert counted.requests == counted.inferences == len(run)
    assert sum(counted.batch_sizes.values()) == counted.executions
    assert sum(size * count for size, count in counted.batch_sizes.items()) == len(run)
    assert counted.metrics is not None
    assert counted.metrics["nv_inference_request_success"] == len(run)
    compute = mean_compute(counted)
    assert compute is not None
    assert compute < float(np.mean(run.service))


def test_peak_memory_under_load_is_the_kernel_s_own_high_water_mark(served: Endpoint, tmp_path: Path) -> None:
    before = {pid: seen for pid in tree(served.pids) if (seen := resident(pid))}
    with MemoryProbe(served.pids) as probe:
        probe.mark("loaded")
        payload = Payload.build(served, random_inputs(served, 64, 1), batch=32)
        run = load(served, constant(100.0, 1.5), payload, folder=tmp_path)
        probe.answered(run.start + run.done)
        probe.mark("largest_last")
    after = {pid: seen for pid in tree(served.pids) if (seen := resident(pid))}
    marks = sum(max(each.high_water, before[pid].high_water) for pid, each in after.items())
    memory = probe.result
    assert memory.processes == len(after) >= 2
    assert abs(memory.peak - marks) <= 0.02 * marks
    assert memory.last <= memory.peak
    assert memory.series is not None
    assert memory.series.requests is not None
    assert memory.series.requests[-1] == len(run)
    phase = memory.phases["largest_last"]
    assert isinstance(phase, Look)
    assert phase.resident <= memory.peak


def test_an_endpoint_is_measured_and_every_figure_comes_again_from_the_raw_values(
    served: Endpoint, tmp_path: Path
) -> None:
    url, folder = f"http://{served.url}/v2/models/tiny", tmp_path / "run"
    done = seatrial("measure", url, "--rate", "80", "--seconds", "2", "--out", str(folder), "--json", home=tmp_path)
    assert done.returncode in (0, 4), done.stderr  # 4: the machine's neighbours held the client up
    told = json.loads(done.stdout)
    assert value(told, "latency") > value(told, "service") * 0.5
    assert value(told, "peak_memory") >= value(told, "steady_memory") > 30 << 20
    assert value(told, "queue") > 0
    assert told["about"]["server"]["requests"] == told["figures"][0]["n"]
    assert "tritonserver" in told["about"]["memory"]["of"]
    if not environment().gpus:
        assert "NVML" in told["about"]["device"]["unavailable"]
        assert "NVML" in told["about"]["energy"]["unavailable"]

    written = (folder / "summary.json").read_bytes()
    (folder / "summary.json").unlink()
    again = measured.recompute(folder)
    assert (folder / "summary.json").read_bytes() == written
    assert json.loads(json.dumps(again.to_json())) | {"run": str(folder)} == told
    _, measurements = measured.read(folder)
    latency = measurements[0]
    assert latency.environment["cores"]
    assert again.figures[0].value == float(np.median(latency.values))


def test_an_artifact_is_measured_in_a_pinned_process(tiny: Built, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["measure", "tiny", "--seconds", "0.3", "--out", str(folder)]
    done = seatrial(*arguments, "--recipe", str(TINY), "--json", home=tiny.home)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    phases = told["about"]["memory"]["phases"]
    assert phases["loaded"]["now"] > phases["started"]["now"]
    assert value(told, "peak_memory") >= phases["largest_last"]["high_water"]
    assert 0 < value(told, "model_memory") < value(told, "peak_memory")
    assert value(told, "throughput") > 1 / value(told, "latency")  # batches do better than one at a time
    assert len(told["about"]["cores"]) == 1
    assert "unavailable" in told["about"]["memory"]["allocators"]["torch"]
    written = (folder / "summary.json").read_bytes()
    measured.recompute(folder)
    assert (folder / "summary.json").read_bytes() == written
    done = seatrial(*arguments, home=tiny.home)
    assert done.returncode == 2
    assert "already holds a run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["measure", "nothing"], 2, "no artifact called 'nothing'"),
        (["measure", "http://127.0.0.1:9/v2/models/x"], 2, "no answer from 127.0.0.1:9"),
        (["measure", "192.0.2.1:8000/v1"], 2, "invalid target path"),
        (["measure", "tiny", "--seconds", "-1"], 2, "must be positive"),
    ],
)
def test_a_wrong_subject_is_one_message(
    tiny: Built, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = seatrial(*arguments, "--out", str(tmp_path / "run"), home=tiny.home)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_the_machine_s_fault_and_leaves_no_half_of_a_run(tiny: Built, tmp_path: Path) -> None:
    shutil.copytree(tiny.home / "store", tmp_path / "home" / "store")
    done = seatrial(
        "measure", "tiny", "--seconds", "0.2", "--out", str(tmp_path / "run"), home=tmp_path / "home", limit=2048
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr
    assert not measured.is_measured(tmp_path / "run")


def test_samples_of_another_shape_are_refused_before_anything_starts(tiny: Built, tmp_path: Path) -> None:
    samples = {"signal": np.zeros((8, 1, 63), np.float32)}
    with pytest.raises(StageError, match="takes float32"):
        measure_artifact(tiny.build.artifact, tiny.store, samples, Plan(), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_measured_process_that_is_killed_is_one_clear_error(tiny: Built, tmp_path: Path) -> None:
    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for child in psutil.process_iter(["ppid", "cmdline"]):  # a child that has ended has no command line
                called = " ".join(child.info["cmdline"] or ())
                if child.info["ppid"] == os.getpid() and "seatrial.bench.measuring.isolate" in called:
                    time.sleep(0.5)
                    child.send_signal(signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    samples = {"signal": np.zeros((8, 1, 64), np.float32)}
    with pytest.raises(CallError, match="killed by SIGKILL"):
        measure_artifact(tiny.build.artifact, tiny.store, samples, Plan(seconds=20), folder=tmp_path / "run")
    killer.join()
    assert not measured.is_measured(tmp_path / "run")


def test_a_server_that_dies_meanwhile_makes_the_run_invalid_and_keeps_what_was_measured(
    tiny: Built, tmp_path: Path
) -> None:
    with host(tiny.store, DEPLOYMENT, scratch=tmp_path)(tiny.build.artifact) as endpoint:

        def kill(share: float) -> None:
            if share > 0.5:
                os.kill(endpoint.pids[0], signal.SIGKILL)

        summary = measure_endpoint(
            endpoint, poisson(50.0, 2.0, 1), random_inputs(endpoint, 64, 1), folder=tmp_path / "run", progress=kill
        )
    assert summary.exit_code == 4
    assert any(breach.startswith(("transport", "unanswered")) for breach in summary.breaches)
    assert any("server" in note for note in summary.notes)
    again = measured.recompute(tmp_path / "run")
    assert again.to_json() == summary.to_json()
    assert next(each for each in again.figures if each.metric == "latency").n > 20
