"""Keys of recipes that were renamed: files with the old name are read as with the new one."""

from pathlib import Path

import pytest

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.recipe.text import read_stage

RECIPE = """
schema = 1
name = "renamed"
{floors}
[source]
factory = "model.py:model"
[data]
loader = "model.py:samples"
[metric]
name = "accuracy"
[[stages]]
kind = "prune"
{prune}
[[stages]]
kind = "export"
[[stages]]
kind = "mixed"
{mixed}
[search.stages.prune.{searched}]
low = 0.2
high = 0.8
"""
OLD = {"floors": "[floors]\nquality_drop = 0.1", "prune": "latency = 0.5", "mixed": "quality_drop = 0.02"}
NEW = {
    "floors": "[floors]\nmax_quality_drop = 0.1",
    "prune": "target_latency_ratio = 0.5",
    "mixed": "max_quality_drop = 0.02",
}


def written(folder: Path, searched: str, keys: dict[str, str]) -> Path:
    (folder / "model.py").write_text("def model(): ...\ndef samples(): ...\n")
    (folder / "recipe.toml").write_text(RECIPE.format(searched=searched, **keys))
    return folder / "recipe.toml"


def test_a_recipe_with_old_keys_is_the_recipe_with_new_ones(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = load_recipe(written(tmp_path / "old", "latency", OLD))
    new = load_recipe(written(tmp_path / "new", "target_latency_ratio", NEW))
    assert (old.floors, old.stages) == (new.floors, new.stages)
    kinds = [stage.kind for stage in old.stages]
    assert old.search is not None
    assert new.search is not None
    assert list(old.search.spaces(kinds)) == list(new.search.spaces(kinds)) == ["0.target_latency_ratio"]


def test_a_recorded_stage_with_an_old_key_is_read() -> None:
    assert read_stage({"kind": "prune", "pattern": "2:4"}) == read_stage({"kind": "prune", "sparsity": "2:4"})


def test_both_names_at_once_are_refused_and_a_wrong_value_names_its_key() -> None:
    stage = {"kind": "mixed", "quality_drop": 0.1}
    with pytest.raises(ConfigError, match="unknown key 'quality_drop'"):
        read_stage(stage | {"max_quality_drop": 0.1})
    with pytest.raises(ConfigError, match="'quality_drop'"):
        read_stage(stage | {"quality_drop": "much"})


def test_the_current_name_of_a_key_that_was_never_renamed_is_itself() -> None:
    from seatrial.optimize.recipe.recipe import Floors

    assert config.current_name(Floors, "quality_drop") == "max_quality_drop"
    assert config.current_name(Floors, "other") == "other"
