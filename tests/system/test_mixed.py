"""Mixed precision on a real net with one layer that integers ruin: it is found, kept in float, and the rest is not."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import ConfigError, ContractError, StageError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from tests.support.graphs import constant, value

pytestmark = pytest.mark.system

SAMPLES = """
import numpy as np

def samples(split, count=None, seed=7):
    random = np.random.default_rng([seed, len(split)])
    x = random.normal(size=(count or 256, 768)).astype("float32")
    return {"x": x}, (x @ weights()).argmax(axis=1).astype("int64")

def weights():
    return np.random.default_rng(1).normal(size=(768, 8)).astype("float32")
"""
RECIPE = """
schema = 1
name = "net"
[source]
onnx = "net.onnx"
[data]
loader = "data.py:samples"
calibration = 256
evaluation = 128
[[stages]]
kind = "mixed"
max_quality_drop = {drop}
quantize = {{ kind = "quantize", operators = ["MatMul"]{more} }}
measurements = 20
batch = 256
rank = "{rank}"
engine = "{engine}"
parity = {{ "*" = {{ cosine = 0.5 }} }}
"""


def net(path: Path) -> None:
    """Big products that integers suit, then one whose activations hold a value that drowns all others in rounding."""
    random = np.random.default_rng(1)
    head = random.normal(size=(768, 8)).astype(np.float32)
    turn, _ = np.linalg.qr(random.normal(size=(768, 768)))
    huge = np.zeros((1, 768), np.float32)
    huge[0, 0] = 3000.0  # added before the sensitive product and taken out again by its weights
    nodes = [
        helper.make_node("MatMul", ["x", "turn"], ["a"], name="robust"),
        helper.make_node("MatMul", ["a", "back"], ["b"], name="robust too"),
        helper.make_node("Add", ["b", "huge"], ["c"], name="outlier"),
        helper.make_node("MatMul", ["c", "head"], ["d"], name="sensitive [1]"),
        helper.make_node("Sub", ["d", "lift"], ["y"], name="settle"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["n", 768])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
        [
            constant("turn", turn.astype(np.float32)),
            constant("back", turn.T.astype(np.float32).copy()),
            constant("huge", huge),
            constant("head", head),
            constant("lift", huge @ head),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def recipe(tmp_path: Path, drop: float, more: str = "", *, rank: str = "measured", engine: str = "onnxruntime") -> Path:
    net(tmp_path / "net.onnx")
    (tmp_path / "data.py").write_text(SAMPLES)
    (tmp_path / "net.toml").write_text(RECIPE.format(drop=drop, more=more, rank=rank, engine=engine))
    return tmp_path / "net.toml"


def test_the_sensitive_layer_is_kept_in_float_and_the_others_are_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    made = build(load_recipe(recipe(tmp_path, 0.02)), store)
    notes = made.artifact.made_by.notes
    assert "sensitive [1]" in notes["kept_in_float"]
    assert "regains" in notes["kept_in_float"]["sensitive [1]"]
    assert notes["drop"] <= 0.02
    assert max(notes["sensitivities"], key=notes["sensitivities"].get) == "sensitive [1]"
    assert notes["sensitivities"]["sensitive [1]"] > 0.2
    model = onnx.load(store.path(made.artifact, "model.onnx"))
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    quantized = {
        node.name: makers.get(node.input[0]) == "DequantizeLinear"
        for node in model.graph.node
        if node.op_type == "MatMul"
    }
    assert not quantized["sensitive [1]"]
    assert any(quantized.values())
    assert not build(load_recipe(tmp_path / "net.toml"), store).worked


def test_by_noise_the_same_layer_is_found_with_fewer_candidates(tmp_path: Path) -> None:
    notes = build(
        load_recipe(recipe(tmp_path, 0.02, rank="noise")), Store(tmp_path / "s" / "store")
    ).artifact.made_by.notes
    assert set(notes["kept_in_float"]) == {"sensitive [1]"}
    assert "int8 noise of" in notes["kept_in_float"]["sensitive [1]"]
    noise = notes["sensitivities"]
    assert max(noise, key=noise.get) == "sensitive [1]"
    assert noise["sensitive [1]"] > 100 * noise["robust"] > 0
    assert notes["drop"] <= 0.02
    assert notes["measured"] <= 3


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs seatrial[openvino]")
def test_candidates_are_timed_in_the_engine_that_is_named(tmp_path: Path) -> None:
    path = recipe(tmp_path, 0.02, rank="noise", engine="openvino")
    artifact = build(load_recipe(path), Store(tmp_path / "s" / "store")).artifact
    assert artifact.made_by.notes["engine"] == "openvino"
    assert artifact.made_by.notes["kept_as"] == "float"
    assert "openvino" in artifact.made_by.environment["libraries"]


@pytest.mark.skipif(find_spec("openvino") is not None, reason="OpenVINO is installed")
def test_an_engine_that_is_not_installed_is_named_with_the_extra(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        build(load_recipe(recipe(tmp_path, 0.02, engine="openvino")), Store(tmp_path / "s" / "store"))
    assert "seatrial[openvino]" in (caught.value.next_step or "")


def test_a_floor_that_nothing_keeps_is_refused_with_the_best_that_was_measured(tmp_path: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    path = recipe(tmp_path, 0.0, ', exclude = ["robust", "robust too"]')
    with pytest.raises(
        StageError, match=r"none keeps max_quality_drop = 0\.0|no candidate within the quality floor is faster"
    ):
        build(load_recipe(path), store)
    assert [artifact.made_by.stage for artifact in store.all()] == ["source"]


def test_a_target_that_the_stage_cannot_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tensorrt"):
        load_recipe(recipe(tmp_path, 0.01, ', target = "tensorrt"'))
