"""Reproduce: chains made again from their provenance, where the first difference is, and what could not be told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.optimize.building.build import build
from seatrial.optimize.building.reproduce import Reproduction, differing, reproduce
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from tests.support.built import TINY, Built

pytestmark = pytest.mark.system


@pytest.fixture
def built(tiny: Built, tmp_path: Path) -> tuple[Path, Store]:
    """An ONNX file quantized, in a folder of its own: seconds to make again."""
    shutil.copy(tiny.store.path(tiny.build.reference.artifact, "model.onnx"), tmp_path / "net.onnx")
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    head = TINY.read_text().split("[[stages]]", 1)[0]
    head = head.replace('factory = "tiny.py:teacher"\noutputs = ["logits"]', 'onnx = "net.onnx"')
    recipe = tmp_path / "net.toml"
    recipe.write_text(head + '[[stages]]\nkind = "quantize"\n')
    store = Store(tmp_path / "here" / "store")
    build(load_recipe(recipe), store)
    return recipe, store


def again(built: tuple[Path, Store], recipe: Path | None = None) -> Reproduction:
    return reproduce(built[1].get("tiny"), built[1], recipe)


def test_a_whole_chain_with_training_is_made_again_bit_by_bit(tiny: Built) -> None:
    found = reproduce(tiny.build.artifact, tiny.store)
    assert found.outcome == "equal", found
    assert [link.stage for link in found.links] == ["source", "distill", "prune", "export", "quantize"]
    assert all(link.recorded == link.rebuilt for link in found.links)


def test_the_recipe_kept_with_the_artifact_stands_in_for_its_file(built: tuple[Path, Store]) -> None:
    recipe, store = built
    recipe.write_text("gone = true")
    assert again(built).outcome == "equal"
    assert store.recall("recipes", store.get("tiny").made_by.recipe)


def test_other_samples_are_the_first_difference_and_are_named(built: tuple[Path, Store], tmp_path: Path) -> None:
    code = (tmp_path / "tiny.py").read_text()
    (tmp_path / "tiny.py").write_text(code.replace("0.5, waves.shape", "0.6, waves.shape"))
    found = again(built)
    assert found.outcome == "differs"
    assert "first difference is in quantize: samples" in found.reason
    assert [link.equal for link in found.links] == [True, False]


def test_another_model_file_is_a_difference_of_the_source(
    built: tuple[Path, Store], tiny: Built, tmp_path: Path
) -> None:
    shutil.copy(tiny.store.path(tiny.build.steps[2].artifact, "model.onnx"), tmp_path / "net.onnx")
    found = again(built)
    assert found.outcome == "differs"
    assert "first difference is in source: source (files" in found.reason


def test_what_cannot_be_tried_is_not_a_difference(built: tuple[Path, Store], tmp_path: Path) -> None:
    recipe, store = built
    foreign = replace(store.get("tiny"), requires={"architecture": ["riscv64"]})
    store.materialize(foreign, tmp_path / "files")
    elsewhere = reproduce(store.put(foreign, tmp_path / "files"), store)
    assert elsewhere.outcome == "could not tell"
    assert "riscv64" in elsewhere.reason
    assert again(built, tmp_path / "no.toml").outcome == "could not tell"
    shutil.rmtree(store.root.parent / "cache" / "recipes")
    lost = again(built)
    assert lost.outcome == "could not tell"
    assert "not in the store" in lost.reason
    assert again(built, recipe).outcome == "equal"


def test_ingredients_are_compared_by_name() -> None:
    before = {"code": "sha256:1", "libraries": {"torch": "2", "numpy": "1"}, "seed": 7}
    now = before | {"libraries": {"torch": "3", "numpy": "1"}}
    assert differing(before, before) == ()
    assert differing(before, now) == ("library versions (libraries: torch 2 then, 3 now)",)
    assert json.dumps(differing(before, now | {"code": "sha256:2"})).count("then") == 2
