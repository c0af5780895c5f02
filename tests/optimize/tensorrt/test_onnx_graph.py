"""Walks of graphs with graphs inside: readers, names, order, renaming."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.graphs.on_onnx import (
    add_constant,
    captured,
    constants,
    consumers,
    detach,
    drop_unused,
    every_node,
    fresh,
    graphs,
    name_nodes,
    names,
    opset,
    rename,
    separate_constants,
    sort,
)
from seatrial.optimize.tensorrt.on_onnx import describe, quantized
from tests.support.graphs import constant, value


def body(name: str, nodes: list[onnx.NodeProto], output: str, inits: Any = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [value(output, TensorProto.FLOAT, ["n", 4])], list(inits))


def model() -> onnx.ModelProto:
    """An If whose branches read `h` and `w` from outside, one of them through an If of its own; both make a `t`."""
    deep = body("deep", [helper.make_node("Mul", ["t", "w"], ["d"], "deep")], "d")
    flat = body("flat", [helper.make_node("Identity", ["h"], ["f"], "flat")], "f")
    then = body(
        "then",
        [
            helper.make_node("Add", ["h", "k"], ["t"], "plus"),
            helper.make_node("If", ["yes"], ["a"], "inner", then_branch=deep, else_branch=flat),
        ],
        "a",
        [constant("k", np.ones(4, np.float32))],
    )
    other = body("else", [helper.make_node("Relu", ["h"], ["t"], "relu")], "t")
    nodes = [
        helper.make_node("If", ["yes"], ["y"], "branch", then_branch=then, else_branch=other),
        helper.make_node("Abs", ["x"], ["h"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [
            constant("w", np.ones(4, np.float32)),
            constant("unread", np.ones(4, np.float32)),
            constant("yes", np.array(True)),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_node_reads_what_its_bodies_read_from_outside() -> None:
    made = model()
    assert captured(made.graph.node[0]) == ["h", "yes", "w"]
    assert [node.op_type for node in consumers(made)["w"]] == ["If"]
    assert [node.op_type for node in consumers(made)["y"]] == [""]
    assert {"deep", "t", "k", "flat"} <= names(made)
    assert len(list(graphs(made.graph))) == 5
    assert sorted(node.op_type for node in every_node(made)) == ["Abs", "Add", "Identity", "If", "If", "Mul", "Relu"]


def test_order_counts_what_bodies_read() -> None:
    made = model()
    sort(made.graph)
    assert [node.op_type for node in made.graph.node] == ["Abs", "If"]
    onnx.checker.check_model(made)


def test_only_what_nothing_reads_is_dropped() -> None:
    made = model()
    drop_unused(made)
    assert set(constants(made)) == {"w", "yes"}


def test_renaming_reaches_every_reader_and_no_name_of_a_body() -> None:
    made = model()
    sort(made.graph)
    rename(made, {"h": "hidden", "t": "never", "w": "weights"})
    assert captured(made.graph.node[1]) == ["hidden", "yes", "weights"]
    assert "t" in names(made)
    assert "never" not in names(made)
    onnx.checker.check_model(made)


def test_what_is_added_has_a_name_that_no_body_has() -> None:
    made = model()
    assert add_constant(made, "t", np.zeros(2)) == "t_1"
    assert fresh("a", {"a", "a_1"}) == "a_2"


def test_every_node_gets_a_name_of_its_own() -> None:
    made = model()
    made.graph.node[0].attribute[0].g.node[0].name = "Abs_1"
    name_nodes(made)
    found = [node.name for node in every_node(made)]
    assert all(found)
    assert len(set(found)) == len(found)


def test_constants_among_the_inputs_are_none() -> None:
    made = model()
    made.graph.input.append(value("w", TensorProto.FLOAT, [4]))
    made.ir_version = 3
    separate_constants(made)
    assert [one.name for one in made.graph.input] == ["x"]
    assert made.ir_version == 4
    assert opset(made) == 17


def test_inputs_and_outputs_may_have_another_name_inside() -> None:
    made = model()
    detach(made, {"x": "x_inside", "y": "y_inside"}, "Identity", {})
    sort(made.graph)
    assert [node.op_type for node in made.graph.node] == ["Identity", "Abs", "If", "Identity"]
    assert [one.name for one in (*made.graph.input, *made.graph.output)] == ["x", "y"]
    onnx.checker.check_model(made)


def test_a_description_keeps_tensors_of_one_name_in_two_branches_apart(tmp_path: Any) -> None:
    made = model()
    sort(made.graph)
    onnx.save(made, str(tmp_path / "m.onnx"))
    found = describe(tmp_path / "m.onnx")
    written = [name for node in found.nodes for name in node.outputs]
    assert len(set(written)) == len(written)
    assert next(node for node in found.nodes if node.operator == "Mul").inputs[1] == "w"


@pytest.mark.parametrize(
    ("operator", "is_quantized"),
    [
        ("QLinearConv", True),
        ("DynamicQuantizeLSTM", True),
        ("MatMulIntegerToFloat", True),
        ("MatMulNBits", True),
        ("QAttention", True),
        ("QuickGelu", False),
        ("MatMul", False),
        ("Attention", False),
    ],
)
def test_integers_in_the_place_of_floats_are_found_in_bodies_too(operator: str, is_quantized: bool) -> None:
    made = model()
    made.graph.node[0].attribute[0].g.node[0].op_type = operator
    assert quantized(made) == ((operator,) if is_quantized else ())
