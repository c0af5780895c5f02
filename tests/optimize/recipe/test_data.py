from importlib import metadata
from pathlib import Path

import pytest

from seatrial.optimize.environment import environment
from seatrial.optimize.errors import MissingError
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store

LOADER = """
import numpy as np

def samples(split, count=None, seed=7):
    return {"x": np.zeros((count or 4, 2), dtype=np.float32)}, None
"""


def data(folder: Path, packages: str = "") -> Data:
    (folder / "loader.py").write_text(LOADER)
    (folder / "m.onnx").touch()
    (folder / "r.toml").write_text(
        f'schema = 1\nname = "r"\n[source]\nonnx = "m.onnx"\n[data]\nloader = "loader.py:samples"\n{packages}\n'
        '[[stages]]\nkind = "quantize"\n'
    )
    return Data(load_recipe(folder / "r.toml"), Store(folder / "store"), environment())


def test_a_digest_is_believed_until_a_package_that_the_loader_reads_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = 'packages = ["pytest"]'
    known = data(tmp_path).digest("golden")
    assert known is not None
    assert data(tmp_path).digest("golden", load=False) == known
    assert data(tmp_path, declared).digest("golden", load=False) is None
    assert data(tmp_path, declared).digest("golden") == known
    assert data(tmp_path, declared).digest("golden", load=False) == known
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0" if name == "pytest" else version(name))
    assert data(tmp_path, declared).digest("golden", load=False) is None
    assert data(tmp_path).digest("golden", load=False) == known


def test_a_package_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such distribution: not-a-distribution"):
        data(tmp_path, 'packages = ["not-a-distribution"]')
