"""Engines for real: built, opened, compared with their parent; skipped, with the reason, where TensorRT is not."""

import json
import shutil
from pathlib import Path

import pytest

from seatrial.optimize.building.build import build
from seatrial.optimize.building.figures import figures
from seatrial.optimize.environment import environment
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_tensorrt_builder import at_hand
from seatrial.optimize.store import Store
from seatrial.optimize.tensorrt.plan import ENGINE, LAYERS, TIMING
from tests.support.built import TINY

pytestmark = [
    pytest.mark.experimental("TensorRT"),
    pytest.mark.gpu,
    pytest.mark.skipif(not environment().gpus, reason="no NVIDIA GPU on this machine (nvidia-smi lists none)"),
    pytest.mark.skipif(not at_hand(), reason="TensorRT is not installed (seatrial[tensorrt])"),
]


@pytest.mark.parametrize("options", ["", "strip_plan = true", "refit = true", "version_compatible = true"])
def test_an_engine_agrees_with_its_parent_and_is_measured(tmp_path: Path, options: str) -> None:
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    text = TINY.read_text().replace('kind = "quantize"', f'kind = "compile"\nbatch = [1, 8, 32]\n{options}')
    (tmp_path / "tiny.toml").write_text(text)
    store = Store(tmp_path / "s" / "store")
    made = build(load_recipe(tmp_path / "tiny.toml"), store)
    artifact = made.artifact
    assert not artifact.planned
    assert {ENGINE, LAYERS, TIMING} <= {file.path for file in artifact.files}
    assert all(not agreement.broken for agreement in made.steps[-1].agreements)
    assert json.loads(store.path(artifact, LAYERS).read_text())["Layers"]
    row = figures(made, store)[-1]
    assert row.quality is not None
    assert row.parent is not None
