"""Init: models of several kinds get a recipe that builds at once, and what cannot be guessed is asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.building.figures import figures
from seatrial.optimize.draft.draft import draft
from seatrial.optimize.draft.model import Input
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_torch import open_module
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from tests.support import graphs
from tests.support.built import ROOT, Built

pytestmark = pytest.mark.system
BROUGHT = ROOT / "tests" / "support" / "brought.py"
FOREIGN = ROOT / "tests" / "support" / "foreign.py"


def built(model: str, tmp_path: Path, inputs: tuple[Input, ...] = ()) -> tuple[Build, str]:
    recipe, samples, kind = draft(model, tmp_path / "mine", inputs=inputs)
    assert "REPLACE" in recipe.read_text()
    assert "RANDOM NUMBERS" in samples.read_text()
    store = Store(tmp_path / "here" / "store")
    made = build(load_recipe(recipe), store)
    assert all(row.quality == 1.0 for row in figures(made, store))
    return made, kind


def names(artifact: Artifact) -> tuple[list[str], list[str]]:
    return [spec.name for spec in artifact.inputs], [spec.name for spec in artifact.outputs]


def test_a_record_returning_transformer_is_a_source_without_special_code(tmp_path: Path) -> None:
    made, kind = built(f"{BROUGHT}:encoder", tmp_path)
    assert kind == "transformer"
    assert names(made.artifact) == (["input_ids", "attention_mask"], ["last_hidden_state", "pooler_output"])
    assert [step.label for step in made.steps] == ["export", "quantize"]


def test_attention_whose_fused_kernel_the_exporter_refuses_is_exported_as_products(tmp_path: Path) -> None:
    made, _ = built(f"{BROUGHT}:positioned", tmp_path)
    tokens = np.random.default_rng(0).integers(0, 50, (5, 17))
    store = Store(tmp_path / "here" / "store")
    expected = open_module(made.source.artifact, store)(torch.from_numpy(tokens)).detach().numpy()
    session = open_session(made.reference.artifact, store)
    np.testing.assert_allclose(session.run({"tokens": tokens})["output"], expected, atol=1e-4)


@pytest.mark.parametrize(("factory", "family", "shape"), [("pictures", "cnn", (3, 48, 48)), ("plain", "mlp", (12,))])
def test_a_factory_gets_a_recipe_that_builds(tmp_path: Path, factory: str, family: str, shape: tuple[int, ...]) -> None:
    made, kind = built(f"{BROUGHT}:{factory}", tmp_path)
    assert kind == family
    assert made.artifact.inputs[0].shape == ("batch", *shape)


@pytest.mark.parametrize(
    ("factory", "family", "tensors"),
    [
        ("sentences", "transformer", (["input_ids", "attention_mask"], ["logits"])),
        ("create_model", "cnn", (["x"], ["output"])),
    ],
)
def test_modules_in_the_manner_of_known_libraries_build_without_special_code(
    tmp_path: Path, factory: str, family: str, tensors: tuple[list[str], list[str]]
) -> None:
    made, kind = built(f"{FOREIGN}:{factory}", tmp_path)
    assert kind == family
    assert names(made.artifact) == tensors


def test_a_backbone_gives_its_features_one_by_one(tmp_path: Path) -> None:
    recipe, _, _ = draft(f"{FOREIGN}:features", tmp_path / "mine")
    assert load_recipe(recipe).source.outputs == ("output_0", "output_1", "output_2")


def test_an_onnx_file_gets_a_recipe_that_builds(tiny: Built, tmp_path: Path) -> None:
    shutil.copy(tiny.store.path(tiny.build.reference.artifact, "model.onnx"), tmp_path / "net.onnx")
    made, kind = built(str(tmp_path / "net.onnx"), tmp_path)
    assert kind == "cnn"
    assert names(made.artifact) == (["signal"], ["logits"])


def test_two_inputs_of_an_onnx_file_are_read_from_the_graph(tmp_path: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    shutil.copy(store.path(graphs.pictures(store, tmp_path / "p"), "model.onnx"), tmp_path / "p.onnx")
    made, kind = built(str(tmp_path / "p.onnx"), tmp_path)
    assert kind == "mlp"
    assert names(made.artifact) == (["image", "gain"], ["scores", "winner"])


def test_what_cannot_be_guessed_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be guessed") as caught:
        draft(f"{BROUGHT}:two", tmp_path / "mine")
    assert "--input" in caught.value.next_step
    given = (Input.parse("left=6"), Input.parse("right=2"))
    made, _ = built(f"{BROUGHT}:two", tmp_path, given)
    assert names(made.artifact)[0] == ["left", "right"]


def test_models_that_are_no_source_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    for model, said in {
        "gone.onnx": "no such file",
        str(tmp_path / "text.onnx"): "not an ONNX file",
        "json:loads": "raised TypeError",
        f"{BROUGHT}:nothing": "no callable",
    }.items():
        with pytest.raises(SeatrialError) as caught:
            draft(model, tmp_path / "mine")
        assert said in caught.value.what
    assert not (tmp_path / "mine").exists()


def test_a_file_with_a_fixed_batch_is_built_and_served_without_batching(tmp_path: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    shutil.copy(store.path(graphs.fixed(store, tmp_path / "f"), "model.onnx"), tmp_path / "fixed.onnx")
    made, _ = built(str(tmp_path / "fixed.onnx"), tmp_path)
    assert not made.artifact.batches
    assert "max_batch_size = 0" in (tmp_path / "mine" / "deployment.toml").read_text()


def test_lengths_that_may_vary_are_drafted_and_built(tmp_path: Path) -> None:
    made, _ = built(f"{FOREIGN}:sentences", tmp_path)
    assert [spec.shape for spec in made.artifact.inputs] == [("batch", "length"), ("batch", "length")]
    other = {spec.name: np.ones((3, 11), np.int64) for spec in made.artifact.inputs}
    assert open_session(made.artifact, Store(tmp_path / "here" / "store")).run(other)["logits"].shape == (3, 4)


def test_the_written_loader_stands_on_its_own(tmp_path: Path) -> None:
    _, samples, _ = draft(f"{BROUGHT}:plain", tmp_path / "mine")
    done = subprocess.run(
        [sys.executable, "-c", "import samples; print(samples.samples('golden', 3)[0]['input'].shape)"],
        cwd=samples.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(3, 12)"
