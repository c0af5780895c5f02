"""Starting and stopping the real server: what can be in the way, and that nothing stays behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.errors import ModelLoadError, ServerError
from seatrial.serve.processes import alive, family, mentioning, wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import on_pytriton, wheel
from seatrial.serve.triton.running.on_pytriton import discard, down, running, serving, start, status, stop
from seatrial.serve.triton.supervision.lasting import up
from tests.support.made_by import MADE_BY

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def nothing_left(home: Path) -> Iterator[None]:
    """Every test has its own home, and must leave no server of it running."""
    yield
    left = [each.info["cmdline"] for each in psutil.process_iter(["cmdline"]) if each.status() != psutil.STATUS_ZOMBIE]
    assert [line for line in left if line and str(home) in " ".join(line)] == []
    assert list((home / "triton" / "servers").glob("*")) == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The committed example, in a place of its own."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository" / "echo", models / "echo", ignore=shutil.ignore_patterns("__pycache__"))
    return models


def echo(url: str) -> None:
    asked = np.arange(6, dtype=np.float32).reshape(2, 3)
    with Control(url, timeout=20.0) as control:
        np.testing.assert_array_equal(control.infer("echo", 1, {"x": asked})["y"], asked)


def test_the_example_is_served_and_the_server_leaves_nothing(repository: Path) -> None:
    before = sorted(path.name for path in wheel.installed().rglob("*"))
    with serving(repository, ("echo",)) as server:
        echo(server.url)
        stubs = family(server.pid)
        assert len(stubs) == 1
        assert list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))
        addresses = {each.laddr.ip for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"}
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert addresses
    assert not running(server)
    assert not any(alive(*stub) for stub in stubs)
    assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))
    assert not server.scratch.exists()
    assert server.log.stat().st_size > 0
    assert sorted(path.name for path in wheel.installed().rglob("*")) == before


def test_a_taken_port_is_named_with_its_holder(repository: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError) as caught:
            start(repository, http_port=port)
    assert caught.value.exit_code == 4
    assert str(port) in str(caught.value)
    assert str(os.getpid()) in str(caught.value)


def test_another_triton_on_the_port_is_not_taken_for_ours(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the port is taken between the check and the start, the one that answers there is not ours."""
    with serving(repository, ("echo",)) as first:
        monkeypatch.setattr(on_pytriton, "_check_ports", lambda ports: None)
        with pytest.raises(ServerError) as caught:
            start(repository, models=("echo",), http_port=first.http_port, timeout=30.0)
        assert str(first.http_port) in str(caught.value)
        assert str(first.pid) in str(caught.value)
        echo(first.url)


def test_a_corrupt_model_is_refused_with_the_servers_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"this is no model" * 64)
    tensor = TensorSpec(name="x", dtype="float32", shape=("n", 2))
    artifact = Artifact(
        name="bad",
        format="onnx",
        files=(File.of(tmp_path / "model.onnx"),),
        inputs=(tensor,),
        outputs=(tensor,),
        requires={},
        made_by=MADE_BY,
    )
    store = Store(tmp_path / "store")
    store.put(artifact, tmp_path)
    deployment = Deployment(schema=1, name="bad", max_batch_size=4)
    place(artifact, deployment, store=store, repository=tmp_path / "models")
    with pytest.raises(ModelLoadError) as caught:
        start(tmp_path / "models", models=("bad",))
    assert caught.value.exit_code == 1
    assert "model.onnx cannot be loaded" in str(caught.value)


def test_a_configuration_that_triton_refuses_is_explained_from_its_log(repository: Path) -> None:
    config = repository / "echo" / "config.pbtxt"
    config.write_text(config.read_text() + "preferred: 3\n")
    with pytest.raises(ModelLoadError) as caught:
        start(repository, models=("echo",))
    assert "failed to read text proto" in str(caught.value)


def test_a_bad_model_does_not_make_a_good_one_unready(repository: Path) -> None:
    shutil.copytree(repository / "echo", repository / "broken")
    config = repository / "broken" / "config.pbtxt"
    config.write_text(config.read_text().replace('"echo"', '"broken"'))
    (repository / "broken" / "1" / "model.py").write_text("raise ValueError('not today')\n")
    with serving(repository, ("echo",)) as server, Control(server.url) as control:
        with pytest.raises(ModelLoadError, match="not today"):
            control.load("broken")
        assert control.live()
        assert control.ready("echo", 1)
        echo(server.url)


def test_a_wheel_without_our_stub_is_a_server_error(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tmp_path / "tritonserver"
    lacking.mkdir()
    for part in ("bin", "backends"):
        (lacking / part).symlink_to(wheel.installed() / part)
    (lacking / "python_backend_stubs" / "3.8").mkdir(parents=True)
    monkeypatch.setattr(wheel, "installed", lambda: lacking)
    with pytest.raises(ServerError, match="triton_python_backend_stub"):
        start(repository)


def test_a_binary_that_dies_at_once_is_quoted(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "tritonserver"
    shutil.copytree(wheel.installed(), broken, symlinks=True, ignore=shutil.ignore_patterns("bin"))
    (broken / "bin").mkdir()
    (broken / "bin" / "tritonserver").write_text("#!/bin/sh\necho 'error: no such luck' >&2\nexit 3\n")
    (broken / "bin" / "tritonserver").chmod(0o755)
    monkeypatch.setattr(wheel, "installed", lambda: broken)
    with pytest.raises(ServerError, match=r"exit 3.*no such luck"):
        start(repository)


def test_up_and_down_in_turn(repository: Path) -> None:
    assert status() is None
    assert down() is None
    server = up(repository, ("echo",), foreign=("echo",))
    try:
        assert status() == server
        echo(server.url)
        with pytest.raises(ServerError, match="already running"):
            up(repository)
        with serving(repository, ("echo",)) as other:  # a throwaway server beside it disturbs nothing
            echo(other.url)
        assert status() == server
        echo(server.url)
    finally:
        assert down() is not None
    assert status() is None
    assert not running(server)


def test_an_interrupted_down_leaves_no_server(repository: Path) -> None:
    server = up(repository, ("echo",), foreign=("echo",))

    def interrupted() -> None:
        assert running(server)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        down(before=interrupted)
    assert not running(server)
    assert down() is None
    assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))
    up(repository, ("echo",), foreign=("echo",))
    assert down()


def test_a_server_that_was_killed_is_not_up_and_can_be_replaced(repository: Path) -> None:
    server = up(repository, ("echo",), foreign=("echo",))
    os.kill(server.pid, signal.SIGKILL)
    assert wait(lambda: not running(server), 60.0)
    assert status() is None
    again = up(repository, ("echo",), foreign=("echo",))
    try:
        echo(again.url)
        assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))
    finally:
        assert down()


def test_stop_kills_a_server_that_does_not_stop(repository: Path) -> None:
    server = start(repository, models=("echo",))
    stubs = family(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    stop(server, timeout=1.0)
    assert time.monotonic() - began < 10
    assert not running(server)
    assert stubs
    assert not any(alive(*stub) for stub in stubs)
    assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))


def test_stop_leaves_a_stranger_with_the_same_number_alone(repository: Path) -> None:
    from dataclasses import replace

    server = start(repository)
    try:
        stop(replace(server, started=server.started + 1, scratch=server.scratch / "none", shm_prefix="seatrial_none_"))
        assert running(server)
    finally:
        discard(server)


def test_ctrl_c_while_a_model_loads_leaves_no_server(repository: Path) -> None:
    model, loading = repository / "echo" / "1" / "model.py", repository.parent / "loading"
    slow = f"import pathlib, time\npathlib.Path({str(loading)!r}).touch()\ntime.sleep(1.5)\n"
    model.write_text(slow + model.read_text())

    def interrupt() -> None:
        assert wait(loading.exists, 30.0)
        os.kill(os.getpid(), signal.SIGINT)

    hand = threading.Thread(target=interrupt)
    hand.start()
    with pytest.raises(KeyboardInterrupt), serving(repository, ("echo",)):
        time.sleep(10)
    hand.join()


def orphaned(repository: Path, *, guarded: bool) -> tuple[int, int]:
    """A server whose owner was killed, with its guardian or without: number and start."""
    script = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from seatrial.optimize import guarding\n"
        "from seatrial.serve.triton.running.on_pytriton import start\n"
        "server = start(Path(sys.argv[1]), models=('echo',))\n"
        f"{'' if guarded else 'os.kill(guarding._guardian.pid, signal.SIGKILL)'}\n"
        "print(server.pid, server.started, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(repository)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as owner:
        assert owner.stdout is not None
        pid, ticks = map(int, owner.stdout.readline().split())
        assert alive(pid, ticks)
        owner.kill()
    return pid, ticks


def test_a_server_ends_with_its_owner_and_leaves_nothing(repository: Path, home: Path) -> None:
    server = orphaned(repository, guarded=True)
    assert wait(lambda: not alive(*server) and not mentioning(str(home)), 60.0)
    assert wait(lambda: not list((home / "triton" / "servers").iterdir()), 60.0)


def test_a_server_whose_owner_and_guardian_were_killed_is_stopped_by_the_next_start(repository: Path) -> None:
    server = orphaned(repository, guarded=False)
    assert alive(*server)
    with serving(repository, ("echo",)) as another:
        assert not alive(*server)
        echo(another.url)
