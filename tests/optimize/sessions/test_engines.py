"""The registry of engines: which one opens what, what it says of itself, and engines of other packages."""

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from seatrial.optimize.artifact import FORMATS, Artifact, Format
from seatrial.optimize.draft.finished import sealed
from seatrial.optimize.errors import ConfigError, ContractError, SeatrialError
from seatrial.optimize.import_closure import own_tree
from seatrial.optimize.sessions.engine import ENGINES, Engine, ModelFiles, Opened, engine_of, opened
from seatrial.optimize.sessions.session import open_artifact, open_session
from seatrial.optimize.store import Store
from tests.support.commands import within
from tests.support.installed import answer, distribution, install, seen
from tests.support.linear import linear

X = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Artifact, Store]:
    """An ONNX file in a store."""
    store = Store(tmp_path / "home" / "store")
    return sealed(linear(tmp_path / "linear.onnx"), store), store


def test_every_engine_says_what_it_is() -> None:
    for name in ENGINES.built_in:
        engine = ENGINES.get(name)
        assert engine.name == name or name == "onnxruntime"
        assert engine.formats
    assert {engine_of(format_).formats[0] for format_ in FORMATS} == set(FORMATS)


def test_an_open_artifact_says_what_really_runs_it(kept: tuple[Artifact, Store]) -> None:
    artifact, store = kept
    found = open_artifact(artifact, store)
    assert (found.provider, found.device) == ("CPUExecutionProvider", "cpu")
    same = open_session(artifact, store, engine="onnxruntime").run({"x": X})
    np.testing.assert_array_equal(found.session.run({"x": X})["y"], same["y"])


def test_an_engine_that_is_unknown_or_opens_another_format_is_refused(kept: tuple[Artifact, Store]) -> None:
    artifact, store = kept
    with pytest.raises(ConfigError, match="unknown engine 'openvin'") as caught:
        open_session(artifact, store, engine="openvin")
    assert "did you mean 'openvino'? known: onnxruntime-cpu" in caught.value.next_step
    with pytest.raises(ConfigError, match="engine 'torch' opens torch, not onnx"):
        open_session(artifact, store, engine="torch")


class Absent(Engine):
    """An engine that no machine has."""

    name: ClassVar[str] = "absent"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    install: ClassVar[str] = "pip install absent"

    def available(self) -> str | None:
        return "Absent is not installed"

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        raise AssertionError("it was opened all the same")


def test_an_engine_that_is_not_available_is_not_opened() -> None:
    with pytest.raises(ContractError, match="Absent is not installed") as caught:
        opened(Absent(), ModelFiles(format="onnx", file=Path), threads=1)
    assert (caught.value.where, caught.value.next_step) == ("engine absent", "pip install absent")
    missing = find_spec("openvino") is None
    assert (ENGINES.get("openvino").available() is not None) == missing


def test_an_edit_of_an_engine_counts_as_one_of_every_stage_that_opens_sessions() -> None:
    closure = own_tree().closure("stages.quantize")
    for name in ("on_ort", "on_openvino", "on_torch", "on_tensorrt"):
        assert f"sessions/{name}.py" in closure


@pytest.mark.slow
def test_an_engine_of_another_package_measures(tmp_path: Path) -> None:
    site, file = install(tmp_path / "site"), str(linear(tmp_path / "linear.onnx"))
    found = answer("measure", file, "--engine", "reference", "--seconds", "0.1", path=site)
    run = Path(found["run"])
    text = "".join(path.read_text() for path in run.glob("*.json"))
    assert '"provider": "onnx.reference"' in text
    assert '"name": "reference"' in text


def test_a_broken_engine_is_an_error_that_names_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, file = tmp_path / "site", str(linear(tmp_path / "linear.onnx"))
    distribution(site, "broken-engines", "0.3", "[seatrial.engines]\ngone = nowhere.at:All\nold = json:loads\n")
    distribution(site, "clashing", "1", "[seatrial.engines]\ntorch = json:loads\n")
    seen(monkeypatch, site)
    for name, what in (
        ("gone", "engine 'gone' cannot be imported: ModuleNotFoundError"),
        ("old", "engine 'old' has the wrong form: it is of type function"),
    ):
        done = within("measure", file, "--engine", name)
        assert done.exit_code == 2, done.output
        assert what in " ".join(done.stderr.split())
        assert "broken-engines 0.3" in " ".join(done.stderr.split())
    done = within("measure", file, "--engine", "torch")
    assert done.exit_code == 2, done.output
    assert "defined more than once: by seatrial and by clashing 1" in " ".join(done.stderr.split())


def test_errors_of_engines_are_of_the_tree() -> None:
    with pytest.raises(SeatrialError):
        engine_of("onnx", "nothing")
