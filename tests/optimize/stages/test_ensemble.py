"""The stage ensemble: the smallest subset that keeps quality is one graph, and members that do not fit are refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seatrial.optimize.building.build import build, plan
from seatrial.optimize.errors import ConfigError, MissingError, StageError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.stages.ensemble import Candidate, chosen
from seatrial.optimize.stages.halves import Bound
from seatrial.optimize.stages.members import joined
from seatrial.optimize.store import Store
from seatrial.optimize.timing.pace import LatencyRatio

LOADER = """
import numpy as np


def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, len(split)])
    x = random.normal(size=(count or 200, 4)).astype(np.float32)
    return {"x": x}, (x[:, 0] + x[:, 1] > 0).astype(np.int64)
"""
RECIPE = """schema = 1
name = "several"
[source]
onnx = "source.onnx"
[data]
loader = "loader.py:samples"
calibration = 400
evaluation = 100
[[stages]]
kind = "ensemble"
members = ["{first}", "second.onnx"]
max_quality_drop = 0.02
"""
BOTH = (1.0, 1.0, 0.0, 0.0)


def member(path: Path, column: tuple[float, ...], *, opset: int = 18, output: str = "y", dtype: int = 1) -> Array:
    """Write x [n, 4] -> y [n, 2], whose second class is favoured by the weighted sum of columns; returns weights."""
    weights: Array = np.stack([-np.array(column), np.array(column)], axis=1).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Cast", ["h"], [output], to=dtype)]
    graph = helper.make_graph(
        nodes,
        "member",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(output, dtype, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save_model(model, str(path))
    return weights


def recipe(folder: Path, first: str = "first.onnx") -> Path:
    """Write a loader, a good source, a member like it and one that knows nothing; returns the recipe."""
    (folder / "loader.py").write_text(LOADER)
    member(folder / "source.onnx", (1.0, 0.2, 0.3, 0.0))
    member(folder / "first.onnx", BOTH)
    member(folder / "second.onnx", (0.0, 0.0, 0.5, 1.0))
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(first=first))
    return path


def test_one_member_that_is_as_good_as_all_stays_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    loaded = load_recipe(recipe(tmp_path))
    made = build(loaded, store)
    notes = made.artifact.made_by.notes
    assert notes["members"] == ["first.onnx"]
    assert notes["left_out"] == ["source", "second.onnx"]
    assert plan(loaded, store)[1].artifact is not None
    member(tmp_path / "second.onnx", (0.0, 0.0, 0.4, 1.0))
    assert plan(loaded, store)[1].artifact is None, "another member's bytes are another ensemble"


def test_the_joined_graph_gives_the_mean_across_opsets(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.onnx" for number in range(3)]
    weights = [member(path, (number, 1, 2, 3), opset=15 + number) for number, path in enumerate(paths)]
    model = joined([onnx.load(str(path)) for path in paths])
    onnx.checker.check_model(model)
    onnx.save_model(model, str(tmp_path / "joined.onnx"))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    found = OrtSession(tmp_path / "joined.onnx").run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ np.mean(weights, axis=0), rtol=1e-5, atol=1e-5)


def test_a_member_with_another_output_is_refused(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    member(tmp_path / "second.onnx", BOTH, dtype=TensorProto.DOUBLE)
    with pytest.raises(ConfigError, match=r"'y' as float32 \['n', 2\], the member as float64"):
        build(load_recipe(path), Store(tmp_path / "store"))


def test_a_member_that_is_not_there_is_refused_on_loading(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no such file: third\.onnx"):
        load_recipe(recipe(tmp_path, "third.onnx"))


def test_labels_have_no_mean(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    for name in ("source", "first", "second"):
        member(tmp_path / f"{name}.onnx", BOTH, dtype=TensorProto.INT64)
    with pytest.raises(StageError, match="output 'y' holds no floats"):
        build(load_recipe(path), Store(tmp_path / "store"))


def timed(subset: tuple[int, ...], ratio: float) -> Candidate:
    """A candidate that takes that share of all members' time, give or take 0.05."""
    pace = LatencyRatio(
        ratio=ratio, low=ratio - 0.05, high=ratio + 0.05, seconds=1, reference_seconds=1, batch=1, pairs=2
    )
    return Candidate(subset=subset, lost=Bound(mean=0, low=0, high=0), pace=pace)


def test_the_fastest_is_chosen_and_of_equals_the_smallest() -> None:
    assert chosen([]) is None
    slow, fast, alike = timed((0,), 0.9), timed((1, 2), 0.4), timed((3,), 0.44)
    assert chosen([slow, fast]) == fast
    assert chosen([slow, fast, alike]) == alike
