"""Supervision of the real server: what died or stalled answers again, what fails is tried again, down is down."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.benchmarks.versioned import NAME, put
from seatrial.serve.errors import RequestError, ServerError
from seatrial.serve.processes import wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import choose, chosen
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.on_pytriton import Server
from seatrial.serve.triton.running.stubs import stubs
from seatrial.serve.triton.supervision import lasting
from seatrial.serve.triton.supervision.fleet import TritonFleet
from seatrial.serve.triton.supervision.healing import Backoff
from seatrial.serve.triton.supervision.supervisor import Pace, Supervisor, supervision
from seatrial.serve.triton.supervision.switch import switch

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PACE = Pace(period=0.1, deadline=2.0, backoff=Backoff(pause=0.1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("supervised")


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One home for the module, since its server stays up."""
    monkeypatch.setenv("SEATRIAL_HOME", str(folder / "home"))
    return folder / "home"


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Server]:
    """A server with two versions."""
    put(folder / "models", 1)
    put(folder / "models", 2, execute="self.told = 2")
    config = folder / "models" / NAME / "config.pbtxt"
    config.write_text(config.read_text().replace("versions: 1 ", "versions: [ 1, 2 ] "))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        try:
            yield lasting.up(folder / "models", (NAME,), foreign=(NAME,))
        finally:
            on_pytriton.down()


def answers(server: Server, version: int) -> bool:
    try:
        with Control(server.url, timeout=3.0) as control:
            return bool(control.infer(NAME, version, {"x": np.zeros((1, 4), np.float32)})["y"][0, 0] == version)
    except (RequestError, ServerError):
        return False


def supervised(events: list[dict[str, Any]], pace: Pace = PACE) -> Supervisor:
    server = on_pytriton.wanted()
    assert server is not None
    watching = Supervisor(server, on_pytriton.restart, pace=pace, tell=events.append)
    assert watching.tick()
    return watching


def verb(*words: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-m", "seatrial.serve.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def strike(version: int, number: signal.Signals) -> None:
    server = on_pytriton.wanted()
    assert server is not None
    struck = [stub for stub in stubs(server.pid) if stub.version == version]
    assert struck
    for stub in struck:
        os.kill(stub.pid, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_model_process_that_died_or_stalls_is_brought_back(number: signal.Signals, up: Server) -> None:
    events: list[dict[str, Any]] = []
    watching = supervised(events)
    before = TritonFleet(on_pytriton.status).health(NAME, 2).restarts
    strike(2, number)
    with Control(up.url) as control:
        assert control.ready(NAME, 2), "Triton noticed by itself"
    assert wait(lambda: watching.tick() and events[-1:] != [] and events[-1]["event"] == "healed", 30.0)
    assert [event["event"] for event in events] == ["healing", "healed"]
    assert answers(up, 2)
    assert answers(up, 1)
    health = TritonFleet(on_pytriton.status).health(NAME, 2)
    assert (health.ok, health.restarts) == (True, before + 1)
    assert json.loads((supervision() / "events.jsonl").read_text().splitlines()[-1])["event"] == "healed"


def test_the_verb_switches_and_shows(up: Server) -> None:
    made = verb("switch", NAME, "2", "1", "--json")
    assert json.loads(made.stdout)["after"] == [1, 2]
    assert json.loads(verb("switch", NAME, "--json").stdout)["disk"] == [1, 2]
    refused = verb("switch", NAME, "9")
    assert (refused.returncode, "no version" in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)


def test_a_killed_server_comes_back_on_its_ports_with_its_versions(up: Server, folder: Path) -> None:
    """A version that was placed and listed on disk, but never switched to, does not slip in."""
    with Control(up.url) as control:
        switch(control, folder / "models", NAME, (1, 2))
    put(folder / "models", 3, before="raise ValueError('unproven')")
    events: list[dict[str, Any]] = []
    watching = supervised(events)
    choose(folder / "models", NAME, (1, 2, 3))
    os.kill(up.pid, signal.SIGKILL)
    assert wait(lambda: on_pytriton.status() is None, 30.0)
    assert not TritonFleet(on_pytriton.status).health(NAME, 1).ok
    assert watching.tick()
    again = on_pytriton.status()
    assert again is not None
    assert (again.http_port, again.grpc_port) == (up.http_port, up.grpc_port)
    assert answers(again, 1)
    assert answers(again, 2)
    assert chosen(folder / "models", NAME) == (1, 2)
    assert {event["subject"] for event in events} == {"server"}


def test_a_version_beyond_help_is_tried_again_and_the_other_serves(up: Server, folder: Path) -> None:
    server = on_pytriton.wanted()
    assert server is not None
    model = folder / "models" / NAME / "2" / "model.py"
    text = model.read_text()
    events: list[dict[str, Any]] = []
    watching = supervised(events, Pace(deadline=2.0, backoff=Backoff(limit=2, pause=0.3, ceiling=0.6)))
    try:
        model.write_text("raise ValueError('gone bad')\n")
        strike(2, signal.SIGKILL)
        until = time.monotonic() + 60.0
        while events[-1:] == [] or events[-1]["event"] != "resting":
            assert time.monotonic() < until, events
            assert watching.tick()
            time.sleep(0.05)
        resting = TritonFleet(on_pytriton.status).health(NAME, 2)
    finally:
        model.write_text(text)
    assert (resting.ok, resting.reason.startswith("given up by the supervisor until its next attempt")) == (False, True)
    assert answers(server, 1)
    assert wait(lambda: watching.tick() and events[-1]["event"] == "healed", 30.0), "nobody has to do anything"
    assert answers(server, 2)


def test_down_answers_what_waits_and_is_not_undone_by_the_supervisor(up: Server) -> None:
    server = on_pytriton.wanted()
    assert server is not None
    script = [sys.executable, "-m", "seatrial.serve.cli", "supervise", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(script, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["event"] == "watching"
        led_away = threading.Event()
        with socket.create_connection(("127.0.0.1", server.http_port)) as idle:
            idle.send(b"GET /v2/health/live HTTP/1.1\r\nHost: idle\r\n\r\n")
            idle.recv(100)
            drained = on_pytriton.down(before=led_away.set)
        assert drained is not None
        assert drained.empty
        assert led_away.is_set()
        assert on_pytriton.wanted() is None
        assert watching.wait(20) == 0
        assert json.loads(watching.stdout.read().splitlines()[-1])["event"] == "down"
