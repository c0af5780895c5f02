"""The engine in which a stage is held against its parent: one that rounds by itself is no judge of an export."""

from pathlib import Path

import pytest

from seatrial.optimize.building.build import _Builder
from seatrial.optimize.recipe.configs import ExportConfig, QuantizeConfig
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.choice import OWN, EngineChoice
from seatrial.optimize.store import Store
from tests.support.linear_recipe import linear_recipe


@pytest.mark.parametrize(
    ("engine", "exported_in"), [("openvino-bf16", OWN), ("openvino", EngineChoice(engine="openvino")), ("", OWN)]
)
def test_an_export_is_not_judged_by_an_engine_that_rounds(
    tmp_path: Path, engine: str, exported_in: EngineChoice
) -> None:
    recipe = load_recipe(linear_recipe(tmp_path / "recipe")).measured_in(engine)
    builder = _Builder(recipe, Store(tmp_path / "store"), lambda label, share, text: None)
    assert builder._compared_in(ExportConfig(kind="export")) == exported_in
    assert builder._compared_in(QuantizeConfig(kind="quantize")) == EngineChoice(engine=engine)
