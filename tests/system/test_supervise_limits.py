"""A supervisor at its limits: few descriptors, none at all, a version that hangs for long, a server killed often."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.benchmarks.versioned import NAME, put
from seatrial.serve.errors import RequestError, ServerError
from seatrial.serve.processes import free_ports, wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository import journal
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.on_pytriton import Server
from seatrial.serve.triton.running.stubs import stubs
from seatrial.serve.triton.supervision import lasting
from seatrial.serve.triton.supervision.healing import Backoff
from seatrial.serve.triton.supervision.supervisor import Pace, Supervisor

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
FEW = 64
OTHER = "other"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limited")


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One home for the module, since its server stays up."""
    monkeypatch.setenv("SEATRIAL_HOME", str(folder / "home"))
    return folder / "home"


@pytest.fixture(scope="module", autouse=True)
def up(folder: Path) -> Iterator[Server]:
    """A server with two versions, of which the second hangs in each answer while a file is there, and another model
    whose load hangs while one is there."""
    hang = f"[time.sleep(0.05) for _ in iter(lambda: os.path.exists({str(folder / 'hang')!r}), False)]"
    put(folder / "models", 1)
    put(folder / "models", 2, before="import os, time", execute=hang)
    slow = hang.replace(str(folder / "hang"), str(folder / "hang-load"))
    put(folder / "others", 1, before="import os, time", initialize=slow)
    shutil.copytree(folder / "others" / NAME, folder / "models" / OTHER)
    config = folder / "models" / OTHER / "config.pbtxt"
    config.write_text(config.read_text().replace(NAME, OTHER))
    config = folder / "models" / NAME / "config.pbtxt"
    config.write_text(config.read_text().replace("versions: 1 ", "versions: [ 1, 2 ] "))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        try:
            yield lasting.up(folder / "models", (NAME, OTHER), foreign=(NAME, OTHER))
        finally:
            on_pytriton.down()


def answers(version: int, model: str = NAME) -> bool:
    server = on_pytriton.status()
    try:
        if server is None:
            return False
        with Control(server.url, timeout=2.0) as control:
            return bool(control.infer(model, version, {"x": np.zeros((1, 4), np.float32)})["y"][0, 0] == version)
    except (RequestError, ServerError):
        return False


def strike(version: int, model: str = NAME) -> None:
    server = on_pytriton.wanted()
    assert server is not None
    struck = [stub for stub in stubs(server.pid) if (stub.model, stub.version) == (model, version)]
    assert struck
    for stub in struck:
        os.kill(stub.pid, signal.SIGKILL)


@contextmanager
def supervising(*words: str) -> Iterator[tuple[psutil.Process, Callable[[], dict[str, float]]]]:
    """The verb with few descriptors, and what its metrics say."""
    port = free_ports(1)[0]
    script = [sys.executable, "-m", "seatrial.serve.cli", "supervise", "--metrics-port", str(port), *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

    def scrape() -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            found = text_string_to_metric_families(reply.read().decode())
            samples = [sample for family in found for sample in family.samples]
            return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}

    with subprocess.Popen(
        script,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW)),
    ) as process:
        try:
            assert wait(lambda: listening(port), 30.0)
            yield psutil.Process(process.pid), scrape
        finally:
            process.terminate()
            assert process.wait(20) == 0


def listening(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10):
            return True
    except OSError:
        return False


def test_hundreds_of_probes_take_no_descriptor_and_no_thread_with_them() -> None:
    with supervising("--period", "0.02") as (process, scrape):
        probes = f"seatrial_supervisor_probes_total ok {NAME}/1"
        assert wait(lambda: scrape().get(probes, 0) >= 20, 30.0)
        held, found = list[tuple[int, int]](), scrape()
        first, until = found[probes], time.monotonic() + 60.0
        while (found := scrape())[probes] < first + 100 or len(held) < 20:
            assert time.monotonic() < until
            held.append((process.num_fds(), process.num_threads()))
            time.sleep(0.25)
        assert not [name for name in found if name.startswith("seatrial_supervisor_cannot_look_total")]
        for each in zip(*held, strict=True):
            assert max(each) - min(each) <= 6, held
            assert abs(float(np.mean(each[:10])) - float(np.mean(each[-10:]))) <= 1.5, held
        assert found["process_open_fds"] < FEW / 2
        strike(1)
        assert wait(lambda: answers(1), 30.0)
        assert wait(lambda: scrape()[f"seatrial_supervisor_restarts {NAME}/1"] == 1, 30.0)


BLIND = """
import json, os, resource, sys
from pathlib import Path
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.supervision.supervisor import Supervisor
events = []
watching = Supervisor(on_pytriton.wanted(), on_pytriton.restart, tell=events.append)
assert watching.tick() and watching.tick()
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(5):
    assert watching.tick() and watching.wanted(on_pytriton.wanted)
blind = [(event["event"], event["subject"]) for event in events]
states = sorted({watch.state for watch in watching._watches.values()})
restarts = sum(watch.restarts for watch in watching._watches.values())
for each in held:
    os.close(each)
assert watching.tick()
print(json.dumps([blind, states, restarts, [event["event"] for event in events][len(blind):]]))
"""


def test_a_supervisor_without_descriptors_suspects_nobody_and_says_so(home: Path) -> None:
    (home / "triton" / "supervision" / "health.json").unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-c", BLIND], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    blind, states, restarts, after = json.loads(ran.stdout)
    assert blind == [["cannot look", "supervisor"]]
    assert states == ["serving"]
    assert restarts == 0
    assert after == ["looks again"]
    lines = (home / "triton" / "supervision" / "events.jsonl").read_text().splitlines()
    assert "Too many open files" in json.loads(lines[-2])["reason"], "written down though no file could be opened"


def test_a_version_that_hangs_on_and_on_delays_no_other_and_takes_no_threads(folder: Path) -> None:
    events: list[dict[str, Any]] = []
    server = on_pytriton.wanted()
    assert server is not None
    watching = Supervisor(server, on_pytriton.restart, pace=Pace(period=0.05, deadline=40.0), tell=events.append)
    assert watching.tick()
    (folder / "hang").touch()
    try:
        hanging = watching._probers.under_way
        assert wait(lambda: watching.tick() and (NAME, 2) in hanging(), 20.0)
        threads = psutil.Process().num_threads()
        strike(1)
        assert wait(lambda: watching.tick() and answers(1), 35.0)
        assert all(watching.tick() for _ in range(10))
        assert (NAME, 2) in hanging(), "the other was healed and asked while that one hung"
        assert psutil.Process().num_threads() <= threads + 2, "one for a repair, one for another model"
    finally:
        (folder / "hang").unlink()
    assert wait(lambda: watching.tick() and answers(2), 30.0)
    assert {event["subject"] for event in events} == {f"{NAME}/1"}
    watching.close()


def test_a_load_that_hangs_keeps_no_other_model_from_being_healed(folder: Path) -> None:
    events: list[dict[str, Any]] = []
    server = on_pytriton.wanted()
    assert server is not None
    watching = Supervisor(server, on_pytriton.restart, pace=Pace(period=0.05), tell=events.append)
    assert watching.tick()
    (folder / "hang-load").touch()
    try:
        strike(1, OTHER)
        assert wait(lambda: watching.tick() and bool(events), 30.0)
        assert not answers(1, OTHER)
        strike(1)
        assert wait(lambda: watching.tick() and answers(1), 30.0)
        assert not answers(1, OTHER)
    finally:
        (folder / "hang-load").unlink()
    assert wait(lambda: watching.tick() and answers(1, OTHER), 30.0)
    assert wait(lambda: watching.tick() and events[-1]["event"] == "healed", 30.0)
    watching.close()


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b'{"schema": 1'), lambda path: path.mkdir()])
def test_a_damaged_journal_of_one_model_keeps_no_other_down(damage: Callable[[Path], None], folder: Path) -> None:
    events: list[dict[str, Any]] = []
    server = on_pytriton.wanted()
    assert server is not None
    damaged = journal.journal_path(folder / "models", "moved")
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damage(damaged)
    try:
        watching = Supervisor(server, on_pytriton.restart, tell=events.append)
        assert watching.tick()
        strike(1)
        assert wait(lambda: watching.tick() and answers(1), 30.0)
        os.kill(server.pid, signal.SIGKILL)
        assert wait(lambda: on_pytriton.status() is None, 30.0)
        assert watching.tick()
        assert answers(1)
        assert answers(2)
        watching.close()
    finally:
        damaged.rmdir() if damaged.is_dir() else damaged.unlink()
    unclear = [event for event in events if event["event"] == "unclear"]
    assert [event["subject"] for event in unclear] == ["moved"], "said once, however often it was met"
    assert "move the file away" in unclear[0]["next_step"]


def test_a_server_that_is_killed_each_time_it_comes_back_comes_back_each_time() -> None:
    events: list[dict[str, Any]] = []
    server = on_pytriton.wanted()
    assert server is not None
    pace = Pace(period=0.05, backoff=Backoff(limit=2, pause=0.1, ceiling=0.4))
    watching = Supervisor(server, on_pytriton.restart, pace=pace, tell=events.append)
    for _ in range(5):
        server = on_pytriton.status()
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        assert wait(lambda: on_pytriton.status() is None, 30.0)
        assert wait(lambda: watching.tick() and answers(1) and answers(2), 30.0)
    assert [event["event"] for event in events].count("healed") >= 5
    watching.close()
