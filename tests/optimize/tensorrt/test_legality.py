"""The linter's rules one by one, and on generated descriptions against their restatement in one expression."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from seatrial.optimize.errors import StageError
from seatrial.optimize.recipe.configs import Shapes
from seatrial.optimize.tensorrt.legality import QUANTIZER_TYPES, UNSUPPORTED, Description, Node, Tensor, check, enforce
from seatrial.optimize.tensorrt.on_onnx import describe

pytestmark = pytest.mark.experimental("TensorRT")

PROFILE = {"x": Shapes(min=(1, 3), opt=(8, 3), max=(32, 3))}


def graph(
    *nodes: Node, tensors: Mapping[str, Tensor] = {}, opset: int = 20, inputs: tuple[str, ...] = ("x",)
) -> Description:
    known = {"x": Tensor(name="x", dtype="float32", shape=("batch", 3))} | dict(tensors)
    return Description(opset=opset, nodes=nodes, tensors=known, inputs=inputs, outputs=("y",))


def node(operator: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **more: Any) -> Node:
    return Node(name=operator.lower(), operator=operator, inputs=inputs, outputs=outputs, **more)


def constant(name: str, dtype: str = "float32", **more: Any) -> Tensor:
    values: dict[str, Any] = {"name": name, "dtype": dtype, "shape": (), "constant": True}
    return Tensor(**(values | more))


def pair(
    scale: Tensor, point: Tensor, *, axis: int = 1, source: str = "x", target: str = "y"
) -> tuple[tuple[Node, ...], dict[str, Tensor]]:
    """Q and DQ around `source`, with the types that follow from the zero point's."""
    names = ("scale", "point")
    nodes = (
        node("QuantizeLinear", source, *names, outputs=("q",), attributes={"axis": axis}),
        node("DequantizeLinear", "q", *names, outputs=(target,), attributes={"axis": axis}),
    )
    return nodes, {"scale": scale, "point": point, "q": Tensor(name="q", dtype=point.dtype)}


def rules(description: Description, profiles: Any = (PROFILE,), serves: tuple[int, ...] = ()) -> list[str]:
    return [breach.rule for breach in check(description, profiles, serves)]


def test_a_plain_float_graph_is_legal() -> None:
    assert not check(graph(node("Relu", "x")), (PROFILE,), (1, 32))


@pytest.mark.parametrize(
    ("description", "rule"),
    [
        (graph(node("Relu", "x"), opset=6), "opset"),
        (graph(node("Attention", "x", "x", "x", outputs=("y", "keys"))), "outputs"),
        (graph(node("Attention", "x", "x", "x", attributes={"softmax_precision": 1})), "attribute"),
        (graph(node("Clip", "f"), tensors={"f": Tensor(name="f", dtype="float8e4m3fn")}), "placement"),
        (graph(node("Min", "i"), tensors={"i": Tensor(name="i", dtype="int8")}), "placement"),
        (graph(node("Relu", "x"), opset=25), "opset"),
        (graph(node("DynamicQuantizeLinear", "x")), "operator"),
        (graph(node("FusedMatMul", "x", "x", domain="com.microsoft")), "operator"),
        (graph(node("MaxPool", "x", outputs=("y", "where"))), "outputs"),
        (graph(node("ReduceSum", "x", "axes"), tensors={"axes": Tensor(name="axes", dtype="int64")}), "axes"),
        (graph(node("Relu", "x"), tensors={"w": constant("w", "float64")}), "dtype"),
        (graph(node("Relu", "x"), tensors={"w": constant("w", "uint16")}), "dtype"),
        (graph(node("Relu", "u"), tensors={"u": Tensor(name="u", dtype="uint8")}), "dtype"),
        (graph(node("Relu", "i"), tensors={"i": Tensor(name="i", dtype="int8")}), "placement"),
        (graph(node("Relu", "x"), tensors={"w": constant("w", stored="w.bin", missing=True)}), "weights"),
    ],
)
def test_each_rule_alone(description: Description, rule: str) -> None:
    assert rules(description) == [rule]


@pytest.mark.parametrize(("operator", "legal"), [("Cast", True), ("Reshape", True), ("Add", False), ("Max", False)])
def test_uint8_may_be_an_input_of_the_network_and_is_not_computed_with(operator: str, legal: bool) -> None:
    picture = Tensor(name="x", dtype="uint8", shape=("batch", 3))
    found = rules(graph(node(operator, "x"), tensors={"x": picture}))
    assert found == ([] if legal else ["dtype"])
    sum_ = Tensor(name="y", dtype="uint8", shape=("batch", 3))
    assert rules(graph(node(operator, "x"), tensors={"y": sum_})) == ([] if legal else ["dtype"])


@pytest.mark.parametrize("operator", ["Max", "Clip"])
def test_int8_is_compared_without_being_dequantized(operator: str) -> None:
    assert not rules(graph(node(operator, "i"), tensors={"i": Tensor(name="i", dtype="int8")}))


@pytest.mark.parametrize("opset", [7, 8, 9, 24])
def test_opsets_that_were_built_are_legal(opset: int) -> None:
    assert not rules(graph(node("Relu", "x"), opset=opset))


def test_attention_with_one_output_is_legal() -> None:
    assert not rules(graph(node("Attention", "x", "x", "x", attributes={"is_causal": 1}), opset=23))


def test_local_functions_and_types_that_are_not_known_are_not_judged() -> None:
    own = graph(node("Norm", "x", domain="mine"), tensors={"z": Tensor(name="z")})
    assert rules(own) == ["operator"]
    assert not rules(replace(own, functions=frozenset({"mine:Norm"})))


@given(
    dtype=st.sampled_from([*QUANTIZER_TYPES, "int16", "float8e5m2"]),
    zero=st.booleans(),
    fixed=st.booleans(),
    positive=st.booleans(),
    shape=st.sampled_from([(), (1,), (3,)]),
    opset=st.integers(7, 24),
)
def test_a_quantizer_is_legal_exactly_where_one_expression_says_so(
    dtype: str, zero: bool, fixed: bool, positive: bool, shape: tuple[int, ...], opset: int
) -> None:
    point = constant("point", dtype, constant=fixed, zero=zero)
    nodes, tensors = pair(constant("scale", positive=positive, shape=shape), point)
    legal = zero and positive and math.prod(shape) <= 1 and opset >= QUANTIZER_TYPES.get(dtype, 99)
    assert (not rules(graph(*nodes, tensors=tensors, opset=opset))) == legal


@given(
    operator=st.sampled_from(["Conv", "ConvTranspose", "MatMul", "Gemm"]),
    flipped=st.booleans(),
    axis=st.integers(-2, 1),
    index=st.sampled_from([1, 2]),
    prequantized=st.booleans(),
)
def test_weights_have_their_scales_on_the_output_channels_and_a_bias_has_none(
    operator: str, flipped: bool, axis: int, index: int, prequantized: bool
) -> None:
    nodes, tensors = pair(
        constant("scale", positive=True, shape=(4,)),
        constant("point", "int8", zero=True),
        axis=axis,
        source="w",
        target="dq",
    )
    weights = {"w": constant("w", shape=(4, 4))}
    if prequantized:
        nodes, weights = nodes[1:], {"q": constant("q", "int8", shape=(4, 4))}
    inputs = ["x", "dq"] if index == 1 else ["x", "x", "dq"]
    user = node(operator, *inputs, attributes={"transB": int(flipped)})
    first = {"Conv": True, "ConvTranspose": False, "MatMul": False, "Gemm": flipped}[operator]
    legal = index == 1 and axis % 2 == (0 if first else 1)
    assert (not rules(graph(*nodes, user, tensors={**tensors, **weights}))) == legal


@given(st.sampled_from([*UNSUPPORTED, "Relu", "Conv", "Softmax", "QuantizeLinear2"]))
def test_the_documented_list_decides_of_operators(operator: str) -> None:
    assert (not rules(graph(node(operator, "x")))) == (operator not in UNSUPPORTED)


@given(
    least=st.tuples(st.integers(0, 4), st.integers(2, 4)),
    best=st.tuples(st.integers(0, 4), st.integers(2, 4)),
    most=st.tuples(st.integers(0, 4), st.integers(2, 4)),
    served=st.integers(1, 5),
)
def test_a_profile_is_legal_exactly_where_one_expression_says_so(
    least: tuple[int, int], best: tuple[int, int], most: tuple[int, int], served: int
) -> None:
    profile = {"x": Shapes(min=least, opt=best, max=most)}
    legal = 1 <= least[0] <= best[0] <= most[0] and least[1] == best[1] == most[1] == 3
    legal = legal and least[0] <= served <= most[0]
    assert (not rules(graph(node("Relu", "x")), (profile,), (served,))) == legal


@pytest.mark.parametrize(
    ("profiles", "served", "said"),
    [
        ((), (), "no profile covers"),
        (({},), (), "gives no range for this dynamic input"),
        (({**PROFILE, "z": PROFILE["x"]},), (), "no such input"),
        (({"x": Shapes(min=(1,), opt=(1,), max=(1,))},), (), "2 axes, the profile's shapes 1"),
        ((PROFILE,), (64,), "batch size 64"),
        (({**PROFILE, "m": Shapes(min=(1,), opt=(8,), max=(16,))},), (), "different ranges"),
    ],
)
def test_profiles_that_leave_something_open(profiles: Any, served: tuple[int, ...], said: str) -> None:
    two = graph(node("Relu", "x"))
    if profiles and "m" in profiles[0]:
        mask = Tensor(name="m", dtype="float32", shape=("batch",))
        two = graph(node("Add", "x", "m"), tensors={"m": mask}, inputs=("x", "m"))
    found = check(two, profiles, served)
    assert any(said in breach.found for breach in found)


def test_fixed_shapes_need_no_profile_and_two_profiles_share_the_batches() -> None:
    still = graph(node("Relu", "x"), tensors={"x": Tensor(name="x", dtype="float32", shape=(4, 3))})
    assert not rules(still, ())
    single = {"x": Shapes(min=(1, 3), opt=(1, 3), max=(1, 3))}
    many = {"x": Shapes(min=(16, 3), opt=(32, 3), max=(64, 3))}
    assert not rules(graph(node("Relu", "x")), (single, many), (1, 32))
    assert rules(graph(node("Relu", "x")), (single, many), (8,)) == ["batch"]


def test_the_error_lists_rule_node_reason_and_mend() -> None:
    with pytest.raises(StageError) as caught:
        enforce(check(graph(node("NonExistent", "x", domain="other")), (PROFILE,)), "net")
    assert (
        "operator at nonexistent: other.NonExistent is not an ONNX operator; fix: export the graph" in caught.value.what
    )
    assert caught.value.exit_code == 1
    enforce((), "net")


def test_a_file_is_described(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"], name="last")],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            [weights],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "inside.onnx")
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    inside, outside = describe(tmp_path / "inside.onnx"), describe(tmp_path / "net.onnx")
    assert [n.name for n in inside.nodes] == ["MatMul 0", "last"]
    assert inside.tensors["h"] == Tensor(name="h", dtype="float32", shape=("batch", 3))
    assert not inside.tensors["w"].stored
    assert not check(inside, (PROFILE,))
    assert outside.tensors["w"].stored == "net.bin"
    assert not check(outside, (PROFILE,))
    (tmp_path / "net.bin").unlink()
    assert [breach.rule for breach in check(describe(tmp_path / "net.onnx"), (PROFILE,))] == ["weights"]
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(StageError, match="not an ONNX model"):
        describe(tmp_path / "text.onnx")


@pytest.mark.parametrize(("count", "legal"), [(1, True), (3840, True), (3841, False), (4000, False)])
def test_the_top_has_a_limit(count: int, legal: bool) -> None:
    top = node("TopK", "x", "k", outputs=("y", "places"))
    found = graph(top, tensors={"k": constant("k", "int64", greatest=float(count))})
    assert rules(found) == ([] if legal else ["top"])
    assert rules(graph(node("TopK", "x", attributes={"k": count}))) == ([] if legal else ["top"])


def test_a_top_that_is_counted_at_run_time_is_not_judged() -> None:
    assert not rules(graph(node("TopK", "x", "k"), tensors={"k": Tensor(name="k", dtype="int64", shape=(1,))}))


@pytest.mark.parametrize(("axis", "legal"), [(0, False), (1, True), (-1, True), (-5, False)])
def test_the_top_is_along_the_last_four_axes(axis: int, legal: bool) -> None:
    five = Tensor(name="five", dtype="float32", shape=(2, 3, 4, 5, 6))
    top = node("TopK", "five", "k", attributes={"axis": axis})
    found = graph(top, tensors={"five": five, "k": constant("k", "int64", greatest=1.0)})
    assert rules(found) == ([] if legal else ["top"])
