"""Edits of ONNX graphs that others wrote: bodies, names, opsets, weights of any shape; judged by ONNX Runtime alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scripts.benchmarks.workshop import Result, apart, outputs, run_stage, saturates
from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.recipe.configs import Override, QuantizeConfig
from seatrial.optimize.samples import Array
from tests.support.graphs import constant, value

pytestmark = pytest.mark.system
FLOAT = TensorProto.FLOAT


def normal(*shape: int, spread: float = 0.3) -> Array:
    return np.random.default_rng(list(shape)).normal(0, spread, shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    ins: list[onnx.ValueInfoProto],
    outs: list[onnx.ValueInfoProto],
    constants: Mapping[str, Any],
    opset: int = 17,
    ir: int = 8,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", ins, outs, [constant(name, np.asarray(one)) for name, one in constants.items()]
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def quantized(source: onnx.ModelProto, inputs: Mapping[str, Array], **fields: Any) -> Result:
    return run_stage(QuantizeConfig(kind="quantize", **{"target": "auto", **fields}), source, inputs)


def near(source: onnx.ModelProto, made: onnx.ModelProto, inputs: Mapping[str, Array], limit: float) -> None:
    onnx.checker.check_model(made)
    for optimize in (False,) if saturates(made) else (True, False):
        got = outputs(made, inputs, optimize=optimize)
        errors = {name: apart(values, got[name]) for name, values in outputs(source, inputs).items()}
        assert max(errors.values()) <= limit, errors


def kinds(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node]


X = {"x": normal(32, 16, spread=1.0)}
METHODS: list[dict[str, Any]] = [
    {},
    {"smooth": 0.5, "bias_correction": True},
    {"target": "tensorrt"},
    {"method": "dynamic"},
    {"method": "weight-only", "block_size": 16},
    {"method": "weight-only", "storage": "channels"},
]


def branching(inner: str = "t") -> onnx.ModelProto:
    """A product behind a normalization that the branches of an If read too, and the product's weight with them."""
    branches = [
        helper.make_graph(
            [
                helper.make_node("Mul", ["n", f"f{number}"], [inner], f"mul{number}"),
                helper.make_node("MatMul", [inner, "w"], [f"b{number}"], f"inner{number}"),
            ],
            f"branch{number}",
            [],
            [value(f"b{number}", FLOAT, ["n", 16])],
            [constant(f"f{number}", np.array(0.01, np.float32))],
        )
        for number in (0, 1)
    ]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "s"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w"], ["y"], "product"),
        helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0),
        helper.make_node("IsNaN", ["top"], ["odd"], "odd"),
        helper.make_node("If", ["odd"], ["z"], "branch", then_branch=branches[0], else_branch=branches[1]),
    ]
    scale = np.ones(16, np.float32)
    scale[:2] = 20
    constants = {"g": scale, "s": normal(16), "w": normal(16, 16)}
    sides = [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 16]), value("z", FLOAT, ["n", 16])]
    return model(nodes, *sides, constants)


@pytest.mark.parametrize("fields", METHODS, ids=str)
@pytest.mark.parametrize("inner", ["t", "n_smoothed", "w_quantized", "n_scale"])
def test_what_a_branch_reads_stays_what_it_was(fields: dict[str, Any], inner: str) -> None:
    source = branching(inner)
    made = quantized(source, X, **fields).model
    near(source, made, X, 0.05)


@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_tensors_called_as_the_quantizer_calls_its_own_are_kept_apart(fields: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x_scale"], ["h"], "one"),
        helper.make_node("Mul", ["h", "h_scale"], ["h_DequantizeLinear_Output"], "scaled"),
        helper.make_node("MatMul", ["h_DequantizeLinear_Output", "w_quantized"], ["y"], "two"),
        helper.make_node("MatMul", ["h", "w"], ["y_scale"], "three"),
    ]
    constants = {"x_scale": normal(16, 16), "h_scale": normal(16), "w": normal(16, 8), "w_quantized": normal(16, 4)}
    source = model(
        nodes,
        [value("x", FLOAT, ["n", 16])],
        [value("y", FLOAT, ["n", 4]), value("y_scale", FLOAT, ["n", 8])],
        constants,
    )
    near(source, quantized(source, X, **fields).model, X, 0.05)


def chain() -> onnx.ModelProto:
    """Products and biases that fuse; the names are the user's."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "body"),
        helper.make_node("Add", ["a", "b1"], ["ab"], "body_bias"),
        helper.make_node("Relu", ["ab"], ["r"], "act"),
        helper.make_node("MatMul", ["r", "w2"], ["c"], "head[0]"),
        helper.make_node("Add", ["c", "b2"], ["y"], "head_bias"),
    ]
    constants = {"w1": normal(16, 24), "b1": normal(24), "w2": normal(24, 8), "b2": normal(8)}
    return model(nodes, [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 8])], constants)


def integer_shapes(made: onnx.ModelProto) -> set[tuple[int, ...]]:
    return {
        tuple(one.dims) for one in made.graph.initializer if one.data_type == TensorProto.INT8 and len(one.dims) > 1
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"exclude": ("head[[]*",)},
        {"exclude": ("head[0]",)},
        {"exclude": ("head_bias",)},
        {"overrides": (Override(match="head*", activations="float"),)},
        {"exclude": ("head[0]",), "method": "dynamic", "operators": ("MatMul",)},
        {"exclude": ("head*",), "method": "weight-only", "storage": "channels"},
        {"exclude": ("head*",), "operators": ("MatMul",)},
    ],
    ids=str,
)
def test_names_are_the_users_through_fusion(fields: dict[str, Any]) -> None:
    assert integer_shapes(quantized(chain(), X, **fields).model) == {(16, 24)}


def test_operators_are_the_users_through_fusion() -> None:
    assert integer_shapes(quantized(chain(), X, operators=("MatMul",)).model) == {(16, 24), (24, 8)}
    with pytest.raises(StageError, match="nothing was quantized"):
        quantized(chain(), X, exclude_operators=("MatMul", "Relu"))


@pytest.mark.parametrize(
    "fields",
    [
        {"exclude": ("hed*",)},
        {"overrides": (Override(match="haed", weights="float"),)},
        {"exclude_operators": ("Matmul",)},
        {"overrides": (Override(operator="Conv", weights="float"),)},
        {"operators": ("Matmul",)},
    ],
    ids=str,
)
def test_what_names_nothing_is_refused_with_what_is_there(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        quantized(chain(), X, **fields)
    assert "head" in caught.value.next_step or "MatMul" in caught.value.next_step


@pytest.mark.parametrize("shape", [(1, 8), (1,), (1, 1)])
@pytest.mark.parametrize("fields", METHODS, ids=str)
def test_a_bias_of_two_axes_or_one_number_is_a_bias(shape: tuple[int, ...], fields: dict[str, Any]) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", alpha=0.5)]
    sides = [value("x", FLOAT, ["n", 16])], [value("y", FLOAT, ["n", 8])]
    source = model(nodes, *sides, {"w": normal(16, 8), "b": normal(*shape)})
    near(source, quantized(source, X, **fields).model, X, 0.05)


@pytest.mark.parametrize("fields", [*METHODS[:4], METHODS[5]], ids=str)
def test_factors_that_are_no_matrix(fields: dict[str, Any]) -> None:
    """Three axes, a vector, and a constant on the left, each beside a plain product."""
    inputs = {"x": normal(8, 4, 6, 16, spread=1.0)}
    nodes = [
        helper.make_node("MatMul", ["x", "heads"], ["h"], "heads"),
        helper.make_node("MatMul", ["left", "h"], ["l"], "left"),
        helper.make_node("MatMul", ["l", "w"], ["p"], "plain"),
        helper.make_node("MatMul", ["p", "vector"], ["y"], "vector"),
    ]
    constants = {"heads": normal(4, 16, 12), "left": normal(5, 6), "w": normal(12, 10), "vector": normal(10)}
    sides = [value("x", FLOAT, ["n", 4, 6, 16])], [value("y", FLOAT, ["n", 4, 5])]
    source = model(nodes, *sides, constants)
    result = quantized(source, inputs, **fields)
    near(source, result.model, inputs, 0.1)
    assert result.made.notes["integer_weights"] >= 2


def test_a_scale_per_channel_of_three_axes_is_refused_by_name() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "heads")]
    source = model(
        nodes, [value("x", FLOAT, ["n", 4, 6, 16])], [value("y", FLOAT, ["n", 4, 6, 8])], {"w": normal(4, 16, 8)}
    )
    with pytest.raises(StageError, match="heads"):
        quantized(source, {"x": normal(8, 4, 6, 16)}, overrides=(Override(match="heads", per_channel=True),))


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("fields", [{"method": "dynamic"}, {"method": "weight-only", "storage": "channels"}], ids=str)
def test_recurrent_layers_hold_integers(operator: str, direction: str, fields: dict[str, Any]) -> None:
    gates, ways = {"LSTM": 4, "GRU": 3}[operator], {"forward": 1, "bidirectional": 2}[direction]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2]),
        helper.make_node(operator, ["t", "W", "R", "B"], ["y"], "cell", hidden_size=16, direction=direction, layout=0),
    ]
    constants = {
        "W": normal(ways, gates * 16, 8),
        "R": normal(ways, gates * 16, 16),
        "B": normal(ways, 2 * gates * 16, spread=0.1),
    }
    source = model(nodes, [value("x", FLOAT, ["n", 5, 8])], [value("y", FLOAT, [5, ways, "n", 16])], constants)
    inputs = {"x": normal(9, 5, 8, spread=1.0)}
    result = quantized(source, inputs, operators=(operator,), **fields)
    near(source, result.model, inputs, 0.05)
    assert result.made.notes["integer_weights"] == 2
    assert ("DynamicQuantizeLSTM" in kinds(result.model)) == (operator == "LSTM" and fields["method"] == "dynamic")


@pytest.mark.parametrize("fields", [{"method": "dynamic"}, {"method": "weight-only", "storage": "channels"}], ids=str)
def test_an_embedding_holds_integers_row_by_row(fields: dict[str, Any]) -> None:
    table = normal(50, 16) * np.logspace(-3, 0, 50, dtype=np.float32)[:, None]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], "look")]
    source = model(
        nodes, [value("ids", TensorProto.INT64, ["n", 3])], [value("y", FLOAT, ["n", 3, 16])], {"table": table}
    )
    inputs = {"ids": np.arange(48).reshape(16, 3)}
    made = quantized(source, inputs, operators=("Gather",), **fields).model
    expected, got = outputs(source, inputs)["y"], outputs(made, inputs)["y"]
    assert (np.abs(expected - got).max(-1) <= 0.01 * np.abs(expected).max(-1)).all()


@pytest.mark.parametrize("per_channel", [True, False])
def test_fused_attention_multiplies_in_integers(per_channel: bool) -> None:
    nodes = [
        helper.make_node("Attention", ["x", "w", "b"], ["y"], "attention", domain="com.microsoft", num_heads=2),
    ]
    sides = [value("x", FLOAT, ["n", 4, 16])], [value("y", FLOAT, ["n", 4, 16])]
    source = model(nodes, *sides, {"w": normal(16, 48), "b": normal(48)})
    inputs = {"x": normal(8, 4, 16, spread=1.0)}
    result = quantized(source, inputs, method="dynamic", per_channel=per_channel)
    assert "QAttention" in kinds(result.model)
    near(source, result.model, inputs, 0.05)


def test_a_named_convolution_multiplies_in_integers_at_run_time() -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", pads=[1, 1, 1, 1])]
    sides = [value("x", FLOAT, ["n", 3, 6, 6])], [value("y", FLOAT, ["n", 8, 6, 6])]
    source = model(nodes, *sides, {"w": normal(8, 3, 3, 3), "b": normal(8)})
    inputs = {"x": normal(8, 3, 6, 6, spread=1.0)}
    result = quantized(source, inputs, method="dynamic", operators=("Conv",))
    assert "ConvInteger" in kinds(result.model)
    near(source, result.model, inputs, 0.05)


def masked(lowest: float) -> onnx.ModelProto:
    """Scores with a mask added before a softmax."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "scores"),
        helper.make_node("Mul", ["m", "lowest"], ["low"], "scale"),
        helper.make_node("Add", ["s", "low"], ["t"], "masked"),
        helper.make_node("Softmax", ["t"], ["p"], "soft"),
        helper.make_node("MatMul", ["p", "v"], ["y"], "mix"),
    ]
    constants = {"w": normal(16, 12), "lowest": np.float32(lowest), "v": normal(12, 8)}
    sides = [value("x", FLOAT, ["n", 16]), value("m", FLOAT, ["n", 12])], [value("y", FLOAT, ["n", 8])]
    return model(nodes, *sides, constants)


@pytest.mark.parametrize("lowest", [-1e4, -1e9, float(np.finfo(np.float32).min)])
def test_a_masked_sum_stays_in_float(lowest: float) -> None:
    source = masked(lowest)
    mask = (np.random.default_rng(1).random((32, 12)) < 0.4).astype(np.float32)
    mask[:, 0] = 0
    inputs = X | {"m": mask}
    result = quantized(source, inputs)
    left = {name: why for name, why in result.made.notes["in_float"].items() if "masked" in name}
    assert left
    assert all("no 8-bit scale" in why for why in left.values())
    near(source, result.model, inputs, 0.1)


def old(opset: int) -> onnx.ModelProto:
    """A convolution, Upsample as that opset has it, and a softmax over all axes from the first."""
    up: dict[str, Any] = {"mode": "nearest"} | ({"scales": [1.0, 1.0, 2.0, 2.0]} if opset < 9 else {})
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Upsample", ["a", *(["s"] if opset == 9 else [])], ["u"], "up", **up),
        helper.make_node("Softmax", ["u"], ["y"], "soft", axis=1),
    ]
    constants = {"w": normal(4, 3, 3, 3), "b": normal(4)} | (
        {"s": np.array([1, 1, 2, 2], np.float32)} if opset == 9 else {}
    )
    sides = [value("x", FLOAT, ["n", 3, 4, 4])], [value("y", FLOAT, ["n", 4, 8, 8])]
    made = model(nodes, *sides, constants, opset=opset, ir=3)
    made.graph.input.extend(value(one.name, one.data_type, list(one.dims)) for one in made.graph.initializer)
    return made


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_old_graphs_with_constants_among_the_inputs(opset: int) -> None:
    inputs = {"x": normal(8, 3, 4, 4, spread=1.0)}
    near(old(opset), quantized(old(opset), inputs).model, inputs, 0.1)


def test_half_precision_becomes_integers_with_its_borders_as_they_were() -> None:
    source = chain()
    for tensor in source.graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for one in (*source.graph.input, *source.graph.output):
        one.type.tensor_type.elem_type = TensorProto.FLOAT16
    inputs = {"x": X["x"].astype(np.float16)}
    made = quantized(source, inputs).model
    assert {one.type.tensor_type.elem_type for one in (*made.graph.input, *made.graph.output)} == {TensorProto.FLOAT16}
    assert integer_shapes(made) == {(16, 24), (24, 8)}
    near(source, made, inputs, 0.05)
