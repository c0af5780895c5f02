"""Cast at the ends of the range and beside what it cannot type, judged by ONNX Runtime alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scripts.benchmarks.workshop import Result, apart, outputs, run_stage
from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.recipe.configs import CastConfig
from seatrial.optimize.samples import Array
from tests.support.graphs import constant, value

pytestmark = pytest.mark.system
FLOAT = TensorProto.FLOAT
X = {"x": np.random.default_rng(3).normal(size=(32, 16)).astype(np.float32)}
SERVED = {"x": np.concatenate([np.zeros((2, 16), np.float32), X["x"]])}  # calibration has no row of zeros
QUIET = {"x": X["x"] * np.float32(1e-4)}
WEIGHT = np.random.default_rng(4).normal(0, 0.3, (16, 6)).astype(np.float32)


def model(nodes: list[onnx.NodeProto], constants: Mapping[str, Any], *, outs: Any = (), opset: int = 17) -> Any:
    """Nodes from x [n, 16] to `g`, and a product behind them."""
    every = [*nodes, helper.make_node("MatMul", ["g", "w"], ["y"], "out")]
    inits = [constant(name, np.asarray(one, np.float32)) for name, one in {**constants, "w": WEIGHT}.items()]
    sides = [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 6]), *outs]
    graph = helper.make_graph(every, "g", *sides, inits)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def cast(source: onnx.ModelProto, **fields: Any) -> Result:
    return run_stage(CastConfig(kind="cast", **fields), source, X)


def near(source: onnx.ModelProto, made: onnx.ModelProto, inputs: Mapping[str, Array] = SERVED) -> None:
    for optimize in (True, False):
        got = outputs(made, inputs, optimize=optimize)
        errors = {name: apart(values, got[name]) for name, values in outputs(source, inputs).items()}
        assert max(errors.values()) <= 0.01, errors


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], f"{operator.lower()}_{output}", **attributes)


SQUARES = [node("Mul", ["x", "x"], "q"), node("ReduceMean", ["q"], "m", axes=[-1], keepdims=1)]
GUARDS = {
    "added to a root": [
        *SQUARES,
        node("Sqrt", ["m"], "r"),
        node("Add", ["r", "eps"], "s"),
        node("Div", ["x", "s"], "g"),
    ],
    "under a root": [*SQUARES, node("Add", ["m", "eps"], "s"), node("Sqrt", ["s"], "r"), node("Div", ["x", "r"], "g")],
    "the greater": [*SQUARES, node("Sqrt", ["m"], "r"), node("Max", ["r", "eps"], "s"), node("Div", ["x", "s"], "g")],
    "of a logarithm": [node("Abs", ["x"], "a"), node("Add", ["a", "eps"], "s"), node("Log", ["s"], "g")],
    "of a reciprocal": [
        *SQUARES,
        node("Sqrt", ["m"], "r"),
        node("Add", ["r", "eps"], "s"),
        node("Reciprocal", ["s"], "t"),
        node("Mul", ["x", "t"], "g"),
    ],
}


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("eps", [1e-8, 1e-12])
def test_a_guard_that_would_vanish_keeps_its_division_in_fp32(guard: str, eps: float) -> None:
    source = model(GUARDS[guard], {"eps": eps})
    result = cast(source)
    near(source, result.model)
    near(source, result.model, QUIET)
    assert "out" not in result.made.notes["in_fp32"]


def test_a_guard_that_holds_is_cast() -> None:
    source = model(GUARDS["added to a root"], {"eps": 1e-3})
    result = cast(source)
    near(source, result.model)
    assert not result.made.notes["in_fp32"]


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_a_detour_beyond_the_range_stays_in_fp32(factor: float) -> None:
    nodes = [node("Mul", ["x", "there"], "far"), node("Tanh", ["far"], "h"), node("Mul", ["far", "back"], "g")]
    source = model(nodes, {"there": factor, "back": 1 / factor})
    near(source, cast(source).model)


@pytest.mark.parametrize("operator", ["Gelu", "QuickGelu", "BiasGelu"])
def test_foreign_operators_stay_in_fp32_with_casts_around(operator: str) -> None:
    bias = {"bias": np.ones(16)} if operator == "BiasGelu" else {}
    act = helper.make_node(operator, ["h", *bias], ["g"], "act", domain="com.microsoft")
    source = model([node("MatMul", ["x", "v"], "h"), act], {"v": np.eye(16), **bias})
    result = cast(source)
    near(source, result.model)
    assert set(result.made.notes["in_fp32"]) == {"act"}
    types = {one.name: one.data_type for one in result.model.graph.initializer}
    assert types["v_low"] == types["w_low"] == TensorProto.FLOAT16


@pytest.mark.parametrize("name", ["t", "h_low", "h_cast", "w_low"])
def test_bodies_read_fp32(name: str) -> None:
    branches = [
        helper.make_graph(
            [node("Mul", ["h", "v0"], name), node("MatMul", [name, "w"], f"b{number}")],
            f"branch{number}",
            [],
            [value(f"b{number}", FLOAT, ["n", 6])],
        )
        for number in (0, 1)
    ]
    nodes = [
        node("MatMul", ["x", "v"], "h"),
        node("Relu", ["h"], "g"),
        node("ReduceMax", ["x"], "top", keepdims=0),
        node("IsNaN", ["top"], "odd"),
        helper.make_node("If", ["odd"], ["z"], "branch", then_branch=branches[0], else_branch=branches[1]),
    ]
    source = model(nodes, {"v": np.eye(16), "v0": np.ones(16)}, outs=[value("z", FLOAT, ["n", 6])])
    result = cast(source)
    near(source, result.model)
    assert set(result.made.notes["in_fp32"]) == {"branch"}
    onnx.checker.check_model(result.model)


def test_a_constant_in_any_attribute_is_cast_with_its_reader() -> None:
    numbers = helper.make_node("Constant", [], ["k"], "k", value_floats=[2.0] * 16)
    number = helper.make_node("Constant", [], ["l"], "l", value_float=0.5)
    source = model([numbers, number, node("Mul", ["x", "k"], "a"), node("Mul", ["a", "l"], "g")], {})
    result = cast(source)
    near(source, result.model)
    assert not result.made.notes["in_fp32"]


def test_names_and_operators_to_keep_are_matched_or_refused() -> None:
    source = model([node("Relu", ["x"], "g")], {})
    assert set(cast(source, keep_operators=("Relu",)).made.notes["in_fp32"]) == {"relu_g"}
    with pytest.raises(ConfigError, match="fits no node") as caught:
        cast(source, keep=("rleu*",))
    assert "relu_g" in caught.value.next_step
    with pytest.raises(ConfigError, match="no operator"):
        cast(source, keep_operators=("relu",))


def test_nothing_to_cast_is_said() -> None:
    with pytest.raises(StageError, match="nothing was cast"):
        cast(model([node("Relu", ["x"], "g")], {}), keep=("*",))


def test_constants_among_the_inputs_are_cast() -> None:
    source = model([node("Relu", ["x"], "g")], {}, opset=11)
    source.graph.input.append(value("w", FLOAT, [16, 6]))
    source.ir_version = 3
    result = cast(source)
    near(source, result.model)
    assert [one.name for one in result.model.graph.input] == ["x"]
