"""The next step that a refusal names, tried: after it the model may be loaded."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.repository.vouching import check
from tests.support.made_by import MADE_BY

NAME = "steps"
DEPLOYMENT = Deployment(schema=1, name=NAME, max_batch_size=8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def again(tmp_path: Path, store: Store) -> Callable[[], Path]:
    """Place the artifact (again), and return the version's folder."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.onnx").write_bytes(b"graph")
    x, y = (TensorSpec(name=name, dtype="float32", shape=("n", 4)) for name in ("x", "y"))
    files = (File.of(tmp_path / "made" / "model.onnx"),)
    made = Artifact(name="m", format="onnx", files=files, inputs=(x,), outputs=(y,), requires={}, made_by=MADE_BY)
    store.put(made, tmp_path / "made")
    return lambda: place(made, DEPLOYMENT, store=store, repository=tmp_path / "models", elsewhere=True).path


def shell(command: str, path: Path) -> None:
    subprocess.run(command.replace("FILE", str(path)), shell=True, check=True)


def moved_away(path: Path) -> None:
    shutil.move(path, path.parents[2] / "away")


def bytecode(version: Path) -> Path:
    (version / "__pycache__").unlink()
    (version / "__pycache__").mkdir()
    return version / "__pycache__"


def touched(path: Path) -> Path:
    path.write_text("more")
    return path


def linked(path: Path) -> Path:
    os.link(path, path.parents[3] / "name")
    return path


def unrecorded(version: Path) -> Path:
    copy = version.with_name("7")
    shutil.copytree(version, copy)
    (copy / "placement.json").unlink()
    return copy


def mode(path: Path, bits: int) -> Path:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)
    return path


def version_moved_away(path: Path) -> None:
    moved_away(path.parent)


COPY = "cp FILE FILE.copy && mv FILE.copy FILE"
ANEW = "move that version away and place the artifact again"
STEPS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], bool, str]] = {
    "hard link": (lambda it: linked(it / "model.onnx"), lambda at: shell(COPY, at), False, COPY),
    "bytecode": (bytecode, lambda at: shell("rm -r FILE", at), False, "rm -r"),
    "rights": (lambda it: mode(it / "model.onnx", 0o002), lambda at: shell("chmod o-w FILE", at), False, "chmod o-w"),
    "set-id": (
        lambda it: mode(it / "model.onnx", 0o4000),
        lambda at: shell("chmod u-s,g-s FILE", at),
        False,
        "chmod u-s",
    ),
    "added": (lambda it: touched(it / "numpy.py"), Path.unlink, False, "remove it"),
    "beside": (lambda it: touched(it.parent / "numpy.py"), Path.unlink, False, "remove it"),
    "stray": (lambda it: touched(it.parent / "what"), Path.unlink, False, "remove it"),
    "no record": (unrecorded, moved_away, False, "move that version out"),
    "changed": (lambda it: touched(it / "model.onnx"), version_moved_away, True, ANEW),
    "code": (lambda it: touched(it / "model.py"), version_moved_away, True, ANEW),
    "record": (lambda it: touched(it / "placement.json"), version_moved_away, True, ANEW),
    "configuration": (lambda it: touched(it.parent / "config.pbtxt"), Path.unlink, True, "place the model again"),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_step_that_a_refusal_names_ends_it(
    again: Callable[[], Path], store: Store, tmp_path: Path, name: str
) -> None:
    spoil, step, placed_again, said = STEPS[name]
    at = spoil(again())
    with pytest.raises(IntegrityError) as refused:
        check(tmp_path / "models", (NAME,), store)
    assert said in refused.value.next_step
    step(at)
    if placed_again:
        again()
    check(tmp_path / "models", (NAME,), store)
    used = json.loads((tmp_path / "models" / ".seatrial.json").read_text())["highest"][NAME]
    assert used == (2 if placed_again and name != "configuration" else 1), "a number is never used again"
