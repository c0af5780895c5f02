"""Edits of quantized sources, local functions, scans and branches: every graph inside a graph is seen."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from scripts.benchmarks.workshop import run_stage
from seatrial.optimize.errors import StageError
from seatrial.optimize.recipe.configs import CastConfig
from tests.support.graphs import constant, value
from tests.system.test_graph_edits import FLOAT, METHODS, X, chain, model, near, normal, quantized

pytestmark = pytest.mark.system


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_what_is_quantized_already_is_refused(fields: dict[str, Any]) -> None:
    once = quantized(chain(), X).model
    with pytest.raises(StageError, match="already quantized"):
        quantized(once, X, **fields)


def test_libraries_write_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    nodes = [helper.make_node("MatMul", ["x", "v"], ["y"], "score")]
    source = model(nodes, [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n"])], {"v": normal(16)})
    quantized(source, X)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def with_function() -> onnx.ModelProto:
    """A product and a bias within a local function that is called twice."""
    function = helper.make_function(
        "own",
        "Dense",
        ["a", "w", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "w"], ["p"], "m"), helper.make_node("Add", ["p", "b"], ["c"], "plus")],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Dense", ["x", "w1", "b1"], ["h"], "first", domain="own"),
        helper.make_node("Dense", ["h", "w2", "b2"], ["y"], "second", domain="own"),
    ]
    constants = {"w1": normal(16, 24), "b1": normal(24), "w2": normal(24, 8), "b2": normal(8)}
    made = model(nodes, [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 8])], constants)
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_local_functions_are_looked_into(fields: dict[str, Any]) -> None:
    result = quantized(with_function(), X, **fields)
    near(with_function(), result.model, X, 0.05)
    assert result.made.notes["integer_weights"] >= 2


def test_local_functions_are_cast() -> None:
    result = run_stage(CastConfig(kind="cast"), with_function(), X)
    near(with_function(), result.model, X, 0.01)
    assert not result.made.notes["in_fp32"]


def scanning() -> onnx.ModelProto:
    """A Scan whose body multiplies by an outer weight, which a product outside reads as well."""
    inner = helper.make_graph(
        [
            helper.make_node("MatMul", ["row", "w"], ["p"], "step"),
            helper.make_node("Add", ["state", "p"], ["next"], "sum"),
            helper.make_node("Identity", ["next"], ["out"], "out"),
        ],
        "body",
        [value("state", FLOAT, [1, 16]), value("row", FLOAT, [1, 16])],
        [value("next", FLOAT, [1, 16]), value("out", FLOAT, [1, 16])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "product"),
        helper.make_node("Unsqueeze", ["h", "one"], ["rows"], "rows"),
        helper.make_node("Scan", ["zero", "rows"], ["last", "y"], "scan", body=inner, num_scan_inputs=1),
    ]
    sides = [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 1, 16]), value("last", FLOAT, [1, 16])]
    made = model(nodes, *sides, {"w": normal(16, 16, spread=0.1), "zero": np.zeros((1, 16), np.float32)})
    made.graph.initializer.append(constant("one", np.array([1], np.int64)))
    return made


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_a_scan_reads_the_weight_that_became_integers(fields: dict[str, Any]) -> None:
    near(scanning(), quantized(scanning(), X, **fields).model, X, 0.05)


def clamped() -> onnx.ModelProto:
    """A convolution whose ReLU goes into the rounding behind it, read by an If as well."""
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["r", f"f{number}"], [f"b{number}"], f"mul{number}")],
            f"branch{number}",
            [],
            [value(f"b{number}", FLOAT, ["n", 4, 6, 6])],
            [constant(f"f{number}", np.array(0.5, np.float32))],
        )
        for number in (0, 1)
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["y"], "next"),
        helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0),
        helper.make_node("IsNaN", ["top"], ["odd"], "odd"),
        helper.make_node("If", ["odd"], ["z"], "branch", then_branch=branches[0], else_branch=branches[1]),
    ]
    sides = [value("x", FLOAT, ["n", 3, 8, 8])], [value("y", FLOAT, ["n", 5, 4, 4]), value("z", FLOAT, ["n", 4, 6, 6])]
    return model(nodes, *sides, {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(5, 4, 3, 3)})


@pytest.mark.parametrize("target", ["x86-vnni", "x86", "arm64", "tensorrt"])
def test_a_branch_reads_what_an_activation_left_not_what_it_took(target: str) -> None:
    inputs = {"x": normal(8, 3, 8, 8, spread=1.0)}
    near(clamped(), quantized(clamped(), inputs, target=target).model, inputs, 0.05)
