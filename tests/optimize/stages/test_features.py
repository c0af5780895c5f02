"""The stage features: useless columns go, the graph computes the same without them, and bad sources are refused."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.pruning import on_columns
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.store import Store

USEFUL, COLUMNS = 3, 8
LOADER = f"""
import numpy as np


def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, len(split)])
    x = random.normal(size=(count or 200, {COLUMNS})).astype(np.float32) + np.float32(0.1)
    return {{"x": x}}, (x[:, :{USEFUL}].sum(axis=1) > 0).astype(np.int64)
"""
RECIPE = """schema = 1
name = "table"
[source]
onnx = "table.onnx"
[data]
loader = "loader.py:samples"
calibration = 400
evaluation = 200
[[stages]]
kind = "features"
max_quality_drop = 0.03
"""


def weights(useless: float = 0.01) -> Array:
    """Weights [columns, 2] of the last class's sum: the useful columns count 1, the others nearly nothing."""
    column = np.full(COLUMNS, useless, dtype=np.float32)
    column[:USEFUL] = 1
    return np.stack([-column, column], axis=1)


def table(path: Path, *nodes: onnx.NodeProto, constants: Mapping[str, Array]) -> onnx.ModelProto:
    """Write a graph from x [n, columns] to y."""
    graph = helper.make_graph(
        list(nodes),
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save_model(model, str(path))
    return model


def recipe(folder: Path, stage: str = "") -> Path:
    """Write loader and recipe; `stage` adds keys to the stage."""
    (folder / "loader.py").write_text(LOADER)
    path = folder / "recipe.toml"
    path.write_text(RECIPE + stage)
    return path


def test_useless_columns_go_and_useful_ones_stay(tmp_path: Path) -> None:
    table(tmp_path / "table.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), constants={"w": weights()})
    store = Store(tmp_path / "store")
    made = build(load_recipe(recipe(tmp_path, "keep = [7]\n")), store)
    notes = made.artifact.made_by.notes
    assert notes["kept"]["x"][:USEFUL] == [0, 1, 2]
    assert 7 in notes["kept"]["x"]
    assert len(notes["dropped"]["x"]) >= 3
    smaller = onnx.load(str(store.path(made.artifact, "model.onnx")))
    shapes = {tuple(tensor.dims) for tensor in smaller.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert (len(notes["kept"]["x"]), 2) in shapes
    assert (COLUMNS, 2) not in shapes
    assert made.artifact.inputs == made.source.artifact.inputs


GRAPHS = {
    "product": ([helper.make_node("MatMul", ["x", "w"], ["y"])], {}),
    "product and bias": (
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["b", "h"], ["y"])],
        {"b": np.array([1, 2], dtype=np.float32)},
    ),
    "gemm": (
        [helper.make_node("Gemm", ["x", "t", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
        {"t": np.ascontiguousarray(weights(0.3).T), "b": np.array([1, 2], dtype=np.float32)},
    ),
    "gemm without bias": ([helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5)], {}),
    "standardized": (
        [
            helper.make_node("Sub", ["x", "m"], ["c"]),
            helper.make_node("Div", ["c", "s"], ["z"]),
            helper.make_node("MatMul", ["z", "w"], ["y"]),
        ],
        {"m": np.arange(COLUMNS, dtype=np.float32), "s": np.arange(1, COLUMNS + 1, dtype=np.float32)[None]},
    ),
    "scaler": (
        [
            helper.make_node(
                "Scaler",
                ["x"],
                ["z"],
                domain="ai.onnx.ml",
                offset=[float(at) for at in range(COLUMNS)],
                scale=[float(at + 1) for at in range(COLUMNS)],
            ),
            helper.make_node("MatMul", ["z", "w"], ["y"]),
        ],
        {},
    ),
    "read twice": (
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Tanh", ["x"], ["z"]),
            helper.make_node("MatMul", ["z", "w"], ["g"]),
            helper.make_node("Sub", ["h", "g"], ["y"]),
        ],
        {},
    ),
    "joined": (
        [
            helper.make_node("Concat", ["x", "x"], ["z"], axis=1),
            helper.make_node("MatMul", ["z", "ww"], ["y"]),
        ],
        {"ww": np.concatenate([weights(0.3), weights(0.7)])},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_smaller_graph_is_the_whole_one_at_constant_columns(name: str, tmp_path: Path) -> None:
    nodes, constants = GRAPHS[name]
    read = {each for node in nodes for each in node.input}
    given = {"w": weights(0.3), **constants} if "w" in read else constants
    model = table(tmp_path / "whole.onnx", *nodes, constants=given)
    mask = np.array([at % 3 != 1 for at in range(COLUMNS)])
    fill = np.linspace(-2, 2, COLUMNS, dtype=np.float32)
    smaller = on_columns.without(model, {"x": mask}, {"x": fill})
    onnx.checker.check_model(smaller)
    onnx.save_model(smaller, str(tmp_path / "smaller.onnx"))
    x = np.random.default_rng(0).normal(size=(16, COLUMNS)).astype(np.float32)
    expected = OrtSession(tmp_path / "whole.onnx").run({"x": np.where(mask, x, fill)})["y"]
    np.testing.assert_allclose(OrtSession(tmp_path / "smaller.onnx").run({"x": x})["y"], expected, rtol=1e-4, atol=1e-4)
    assert all(COLUMNS not in tensor.dims for tensor in smaller.graph.initializer)


def test_a_graph_in_which_a_column_is_lost_is_refused_with_the_node(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], name="total", keepdims=1)]
    table(tmp_path / "table.onnx", *nodes, constants={"axes": np.array([1])})
    with pytest.raises(ConfigError, match="ReduceSum 'total'"):
        build(load_recipe(recipe(tmp_path)), Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("stage", "said"),
    [('inputs = ["z"]\n', "input 'z' is no table"), ("keep = [8]\n", "no column 8")],
)
def test_wrong_names_are_refused(stage: str, said: str, tmp_path: Path) -> None:
    table(tmp_path / "table.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), constants={"w": weights()})
    with pytest.raises(ConfigError, match=said):
        build(load_recipe(recipe(tmp_path, stage)), Store(tmp_path / "store"))


def test_a_model_that_needs_every_column_is_left(tmp_path: Path) -> None:
    whole = np.stack([-np.ones(COLUMNS), np.ones(COLUMNS)], axis=1).astype(np.float32)
    table(tmp_path / "table.onnx", helper.make_node("MatMul", ["x", "w"], ["y"]), constants={"w": whole})
    path = recipe(tmp_path)
    (tmp_path / "loader.py").write_text(LOADER.replace(f":{USEFUL}", ":"))
    with pytest.raises(StageError, match="every one of 8 columns matters"):
        build(load_recipe(path), Store(tmp_path / "store"))


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e4])
def test_a_smaller_graph_that_computes_something_else_is_refused_at_any_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    table(tmp_path / "table.onnx", node, constants={"w": weights() * np.float32(scale)})
    whole = on_columns.without

    def wrong(model: onnx.ModelProto, *rest: Mapping[str, Array]) -> onnx.ModelProto:
        made = whole(model, *rest)
        for tensor in made.graph.initializer:
            if len(tensor.dims) == 2:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.05), tensor.name))
        return made

    monkeypatch.setattr(on_columns, "without", wrong)
    with pytest.raises(StageError, match="another one than with constants"):
        build(load_recipe(recipe(tmp_path)), Store(tmp_path / "store"))
