"""What is planted in a repository does not run in the real Triton: nothing loads it, and our model.py looks past it."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository import journal
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.on_pytriton import serving
from seatrial.serve.triton.supervision import lasting
from seatrial.serve.triton.supervision.switch import heal, switch
from tests.support.graphs import pictures

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
NAME = "pictures"
DEPLOYMENT = Deployment(schema=1, name=NAME, max_batch_size=8)
INPUTS = {"image": np.zeros((1, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Return what planted code makes when it runs."""
    return tmp_path / "ran"


@pytest.fixture
def models(tmp_path: Path, home: Path) -> Path:
    """A repository with one placed version of the Python backend."""
    store = Store(home / "store")
    place(pictures(store, tmp_path / "made"), DEPLOYMENT, store=store, repository=tmp_path / "models")
    return tmp_path / "models"


def up(models: Path, *words: str) -> subprocess.CompletedProcess[str]:
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    command = [sys.executable, "-m", "seatrial.serve.cli", "up", "--repository", str(models), *ports, *words]
    around = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=around, capture_output=True, text=True, timeout=90)


def code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()\n"


def bytecode(version: Path, marker: Path) -> None:
    """Plant bytecode that Python takes for current whatever the source says: an unchecked hash-based .pyc."""
    source = version.parents[2] / "planted.py"
    source.write_text(code(marker) + (version / "model.py").read_text())
    (version / "__pycache__").unlink()
    (version / "__pycache__").mkdir()
    target = version / "__pycache__" / Path(importlib.util.cache_from_source("model.py")).name
    mode = "py_compile.PycInvalidationMode.UNCHECKED_HASH"
    made = f"import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], invalidation_mode={mode})"
    subprocess.run([sys.executable, "-c", made, str(source), str(target)], check=True)


def shadowing(folder: Path, marker: Path) -> None:
    """Plant modules of the names of libraries, which the stub's search path finds where the library is not."""
    for name in ("numpy", "onnxruntime", "triton_python_backend_utils", "json", "1"):
        (folder / f"{name}.py").write_text(code(marker))


def stub(version: Path, marker: Path) -> None:
    """Plant a stub of the model's own, which Triton starts in place of its own."""
    path = version.parent / "triton_python_backend_stub"
    path.write_text(f"#!/bin/sh\ntouch {marker}\n")
    path.chmod(0o755)


PLANTS: dict[str, Callable[[Path, Path], object]] = {
    "bytecode": bytecode,
    "modules in the version": shadowing,
    "a stub": stub,
    "modules beside the versions": lambda version, marker: shadowing(version.parent, marker),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_up_refuses_what_was_planted_and_it_does_not_run(models: Path, marker: Path, home: Path, plant: str) -> None:
    PLANTS[plant](models / NAME / "1", marker)
    done = up(models)
    assert done.returncode == IntegrityError.exit_code, done.stdout
    assert f"{NAME} must not be loaded" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "triton" / "server.json").exists()
    assert not marker.exists()


def test_the_planted_bytecode_does_run_where_nothing_is_checked(models: Path, marker: Path) -> None:
    """The plant is a real one: a throwaway server, which compares nothing, runs it."""
    bytecode(models / NAME / "1", marker)
    with serving(models, (NAME,)):
        assert marker.exists()
    marker.unlink()
    with pytest.raises(IntegrityError, match="folder of bytecode"), serving(models, (NAME,), foreign=()):
        pass
    assert not marker.exists()


def test_the_placed_code_looks_past_its_neighbours_and_writes_no_bytecode(models: Path, marker: Path) -> None:
    """Even where nothing is checked; `1.py` would stand in for the whole version, and only a check keeps it out."""
    version = models / NAME / "1"
    shadowing(version, marker)
    (version / "1.py").unlink()
    shadowing(version.parent, marker)
    (version.parent / "1.py").unlink()
    with serving(models, (NAME,)) as server, Control(server.url) as control:
        assert control.infer(NAME, 1, INPUTS)["scores"].shape == (1, 5)
    assert not marker.exists()
    assert not list(models.rglob("*.pyc"))


@pytest.fixture
def server(models: Path) -> Iterator[on_pytriton.Server]:
    try:
        yield lasting.up(models, (NAME,))
    finally:
        on_pytriton.down(timeout=5.0)


def test_what_is_planted_while_the_server_runs_is_neither_switched_to_nor_healed_nor_restarted(
    server: on_pytriton.Server, models: Path, marker: Path, tmp_path: Path, home: Path
) -> None:
    store = Store(home / "store")
    second = place(pictures(store, tmp_path / "second", scale=3.0), DEPLOYMENT, store=store, repository=models)
    shadowing(second.path, marker)
    with Control.to(server) as control:
        with pytest.raises(IntegrityError, match="code that seatrial did not place"):
            switch(control, models, NAME, (1, 2))
        assert journal.read(models, NAME) is None, "a refusal is no failed load"
        assert control.infer(NAME, 1, INPUTS)["scores"].shape == (1, 5)
        (models / NAME / "1" / "numpy.py").write_text(code(marker))
        with pytest.raises(IntegrityError, match="code that seatrial did not place"):
            heal(control, models, NAME, 1)
        assert control.ready_versions(NAME) == {1}, "what serves goes on serving"
    on_pytriton.discard(server)
    again = on_pytriton.restart(server, (NAME,))
    assert again is not None
    with Control.to(again) as control:
        assert control.live()
        assert control.ready_versions(NAME) == frozenset(), "it is not loaded again"
        (models / NAME / "1" / "numpy.py").unlink()
        for path in second.path.glob("*.py"):
            if path.read_text() == code(marker):
                path.unlink()
        assert switch(control, models, NAME, (2,)).after == (2,)
    assert not marker.exists()


def test_a_model_of_somebody_else_is_served_only_when_it_is_named(models: Path, home: Path) -> None:
    shutil.copytree(ROOT / "model_repository" / "echo", models / "echo", ignore=shutil.ignore_patterns("__pycache__"))
    refused = up(models, "--model", "echo")
    assert refused.returncode == ConfigError.exit_code
    assert "--allow-foreign echo" in refused.stderr
    try:
        for words, said, served in (
            ((), "not loaded: echo was not placed by seatrial", {NAME}),
            (("--allow-foreign", "echo"), "not verified by seatrial", {NAME, "echo"}),
        ):
            done = up(models, *words, "--json")
            assert done.returncode == 0, done.stderr
            assert said in done.stderr
            states = json.loads(done.stdout)["models"]
            assert {each["name"] for each in states if each["state"] == "READY"} == served
            on_pytriton.down(timeout=5.0)
    finally:
        on_pytriton.down(timeout=5.0)
