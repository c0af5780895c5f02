"""A drill's model: the same answers, later by at least the share; and only where there is a model.py to slow."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.serve.triton.repository.slowed import slow_down

MODEL = """
import time

class TritonPythonModel:
    def initialize(self, args):
        self.args = args

    def execute(self, requests):
        began = time.perf_counter()
        time.sleep(0.01)
        self.took = time.perf_counter() - began
        return [request * 2 for request in requests]

    def finalize(self):
        self.args = None
"""


def placed(folder: Path) -> Path:
    (folder / "model.py").write_text(MODEL)
    (folder / "model.py").chmod(0o444)
    return folder


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model as the server's stub loads it: from the package that the version's folder is."""
    monkeypatch.syspath_prepend(str(folder.parent))
    return import_module(f"{folder.name}.model").TritonPythonModel()


@pytest.mark.parametrize("share", [0.1, 1.5])
def test_it_answers_the_same_and_takes_the_share_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    slow_down(placed(tmp_path), share)
    model = loaded(tmp_path, monkeypatch)
    model.initialize({"model_config": "{}"})
    began = time.perf_counter()
    assert model.execute([1, 2]) == [2, 4]
    assert time.perf_counter() - began >= (1 + share) * model.served.took
    model.finalize()
    assert model.served.args is None


@pytest.mark.parametrize("share", [0.0, -0.1])
def test_a_share_that_slows_nothing_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match="the slow-down must be positive"):
        slow_down(placed(tmp_path), share)
    assert (tmp_path / "model.py").read_text() == MODEL


def test_a_version_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be slowed down"):
        slow_down(tmp_path, 0.1)
