"""Fp8 in Q/DQ: rounding within its steps, no NaN, graphs that ONNX Runtime runs and the rules of TensorRT allow."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.graphs.coverage import Coverage, coverage, enforce
from seatrial.optimize.quantization.on_fp8 import GREATEST, rounded
from seatrial.optimize.recipe.configs import Override, QuantizeConfig
from seatrial.optimize.recipe.configs.terms import Shapes
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.sessions.on_ort_graph import Exposed
from seatrial.optimize.tensorrt.legality import check
from seatrial.optimize.tensorrt.on_onnx import describe
from tests.support.quantizing import Bench, Graph, kinds, resnet, transformer

FP8 = {"target": "tensorrt", "precision": "fp8"}


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6, width=32)
    ),
    st.sampled_from([None, 0, 1]),
)
def test_rounding_is_within_a_sixteenth_and_never_nan(weights: Any, axis: int | None) -> None:
    codes, scale = rounded(weights, axis)
    shape = [1] * weights.ndim
    if axis is not None:
        shape[axis] = -1
    spread = scale.reshape(shape) if axis is not None else scale
    restored = codes.astype(np.float32) * spread
    assert np.isfinite(restored).all()
    # Three bits of mantissa: half a step is 1/16 of a normal number; below 2^-6 steps are even, of 2^-9.
    allowed = np.maximum(np.abs(weights) / 16, spread * 2.0**-10) * 1.001 + 1e-30
    assert (np.abs(restored - weights) <= allowed).all()


def test_the_greatest_weight_of_each_channel_is_the_greatest_number() -> None:
    weights = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
    codes, scale = rounded(weights, 1)
    assert scale.shape == (5,)
    assert (np.abs(codes.astype(np.float32)).max(axis=0) == GREATEST).all()
    assert rounded(np.zeros((2, 2), np.float32), 1)[1].tolist() == [1.0, 1.0]


def zero_types(model: onnx.ModelProto) -> set[int]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {types[node.input[2]] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}


@pytest.mark.parametrize(
    ("graph", "fields", "least"),
    [(resnet(), {}, 18.0), (transformer(), {"smooth": 0.5}, 15.0)],  # three bits of mantissa: 29 dB a layer
    ids=["resnet", "transformer"],
)
def test_a_graph_in_fp8_stays_near_and_is_legal_for_tensorrt(
    tmp_path: Path, graph: onnx.ModelProto, fields: dict[str, Any], least: float
) -> None:
    bench = Bench(tmp_path, graph)
    made, path = bench.quantize(**FP8, **fields)
    assert bench.sqnr(path) > least
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert zero_types(model) == {onnx.TensorProto.FLOAT8E4M3FN}
    weights = [
        each
        for each in model.graph.initializer
        if each.data_type == onnx.TensorProto.FLOAT8E4M3FN and len(each.dims) > 1
    ]
    assert weights
    assert made.requires == {"gpu": "nvidia", "compute_capability_least": "8.9"}
    assert made.notes["precision"] == "fp8"
    shape = tuple(int(size) for size in bench.shape)
    profile = {"x": Shapes(min=(1, *shape), opt=(8, *shape), max=(32, *shape))}
    assert check(describe(path), [profile], [1, 8]) == ()


def test_onnx_runtime_computes_what_the_format_says(tmp_path: Path) -> None:
    graph = Graph()
    graph.linear("x", "y", 16, 8)
    bench = Bench(tmp_path, graph.model([("x", ["n", 16])], [("y", ["n", 8])]))
    _, path = bench.quantize(**FP8)
    model = onnx.load(str(path))
    kept = {each.name: onnx.numpy_helper.to_array(each) for each in graph.constants}
    quantizer = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scales = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in model.graph.initializer
        if each.name == quantizer.input[1]
    }
    scale = scales[quantizer.input[1]]
    rows = bench.samples("evaluation").inputs["x"]
    codes = np.clip(rows / scale, -GREATEST, GREATEST).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    weights, spread = rounded(kept["y.weight"], 1)
    expected = codes @ (weights.astype(np.float32) * spread) + kept["y.bias"]
    assert np.allclose(OrtSession(path).run({"x": rows})["y"], expected, rtol=1e-4, atol=1e-4)


def test_each_consumer_has_a_pair_of_its_own_and_biases_stay_float(tmp_path: Path) -> None:
    model = onnx.load(str(Bench(tmp_path, resnet(projected=True)).quantize(**FP8)[1]))
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    read = [name for node in model.graph.node for name in node.input if makers.get(name) == "DequantizeLinear"]
    assert len(read) == len(set(read))
    kept = {each.name: each.data_type for each in model.graph.initializer}
    biases = [node.input[2] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {kept[name] for name in biases} == {onnx.TensorProto.FLOAT}


def test_excluded_and_overridden_nodes_stay_in_float(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())
    whole = kinds(onnx.load(str(bench.quantize(**FP8)[1])))
    less = kinds(onnx.load(str(bench.quantize(**FP8, exclude=("stem/*",))[1])))
    override = Override(operator="Gemm", weights="float", activations="float")
    fewest = kinds(onnx.load(str(bench.quantize(**FP8, exclude=("stem/*",), overrides=(override,))[1])))
    assert whole["QuantizeLinear"] > less["QuantizeLinear"] > fewest["QuantizeLinear"] > 0


def test_one_scale_for_a_weight_where_the_recipe_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())
    each, one = (bench.score(**FP8, per_channel=flag) for flag in (True, False))
    model = onnx.load(str(bench.quantize(**FP8, per_channel=False)[1]))
    assert all(not node.attribute for node in model.graph.node if node.op_type == "DequantizeLinear")
    assert each > one - 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": "tensorrt", "precision": "nvfp4"}, "NVFP4 is planned"),
        ({"target": "x86", "precision": "fp8"}, "has no kernels for fp8"),
        ({"target": "auto", "precision": "fp8"}, "has no kernels for fp8"),
        ({"method": "dynamic", "precision": "fp8"}, "does not apply to method 'dynamic'"),
        ({"target": "tensorrt", "precision": "fp8", "ranges": "mse"}, "even steps of integers"),
        (
            {"target": "tensorrt", "precision": "fp8", "overrides": (Override(operator="Conv", weights="int8"),)},
            "integers beside fp8",
        ),
    ],
)
def test_what_no_kernel_runs_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QuantizeConfig(kind="quantize", **fields)


def counted(path: Path, bench: Bench) -> Coverage:
    inputs = {name: array[:2] for name, array in bench.samples("calibration").inputs.items()}
    return coverage(Exposed(path).graph(inputs))


def test_coverage_counts_fp8_as_the_file_asks_for_it_and_names_what_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())
    whole = counted(bench.quantize(**FP8)[1], bench)
    assert whole.share("fp8") == 1.0
    assert (whole.asked, whole.islands) == (("fp8",), ())
    assert Coverage.to_json(whole)["asked"] == ["fp8"]
    less = counted(bench.quantize(**FP8, exclude=("stem/*",))[1], bench)
    stem = 16 * 3 * 9 * 256 / (16 * 9 * 256 * (3 + 16 + 16) + 160)
    assert less.share("fp8") == pytest.approx(1 - stem)
    with pytest.raises(StageError, match="run in fp8, the stage requires 100"):
        enforce(less, 1.0, "here", "fp8")


def test_an_fp8_weight_under_a_float_input_is_no_fp8(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())
    path = bench.quantize(**FP8)[1]
    model = onnx.load(str(path))
    pair = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    restored = next(node for node in model.graph.node if pair.output[0] in node.input)
    reader = next(node for node in model.graph.node if restored.output[0] in node.input)
    reader.input[0] = pair.input[0]
    onnx.save(model, str(path))
    found = counted(path, bench)
    assert 0 < found.share("fp8") < 1
    assert [island.reason for island in found.islands] == [
        "only its weights are quantized, its input is float; its weights are dequantized on every run"
    ]


def test_a_build_holds_the_coverage_of_fp8_on_a_machine_without_a_gpu() -> None:
    config = QuantizeConfig(kind="quantize", target="tensorrt", precision="fp8", coverage=0.9)
    assert (config.required_coverage, config.covered_precision) == (0.9, "fp8")
    assert QuantizeConfig(kind="quantize").covered_precision == "int8"


@pytest.mark.parametrize("projected", [False, True])
def test_fusions_around_fp8_do_not_change_the_sums(tmp_path: Path, projected: bool) -> None:
    bench = Bench(tmp_path, resnet(projected=projected))
    path, rows = bench.quantize(**FP8)[1], bench.samples("evaluation").inputs
    fused, plain = (OrtSession(path, optimize=optimize).run(rows)["y"] for optimize in (True, False))
    assert np.allclose(fused, plain, rtol=1e-3, atol=1e-3)
