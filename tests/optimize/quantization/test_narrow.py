"""Weights alone in fp8 and int4: rounding, files that run and are legal, and scaling that helps and never hurts."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.quantization import on_awq, on_narrow
from seatrial.optimize.recipe.configs import Override, QuantizeConfig
from seatrial.optimize.recipe.configs.terms import Shapes
from seatrial.optimize.tensorrt.legality import check
from seatrial.optimize.tensorrt.on_onnx import describe
from tests.support.quantizing import Bench, Graph, kinds, transformer

INT4 = {"target": "tensorrt", "method": "weight-only", "precision": "int4", "block_size": 16}
FP8 = {"target": "tensorrt", "method": "weight-only", "precision": "fp8"}


@given(arrays.arrays(np.float32, (8, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_int4_is_within_half_a_step_of_its_block(weights: Any) -> None:
    codes, scale = on_narrow.rounded(weights, 4)
    assert codes.dtype == np.int8
    assert scale.shape == (2, 3)
    assert np.abs(codes).max() <= 7
    error = np.abs(on_narrow.round_trip(weights, "int4", 4) - weights)
    step = np.where(np.repeat(np.abs(weights).reshape(2, 4, 3).max(axis=1) > 1e-36, 4, axis=0), 1.0, 0.0)
    assert (error <= np.repeat(scale, 4, axis=0) * step * 0.5001 + 1e-35).all()


def test_two_codes_lie_in_a_byte_the_first_in_the_low_half() -> None:
    codes = np.array([1, -7, 7, -1, 3], np.int8)
    tensor = onnx.helper.make_tensor("c", onnx.TensorProto.INT4, [5], on_narrow.packed(codes), raw=True)
    assert onnx.numpy_helper.to_array(tensor).astype(np.int8).tolist() == codes.tolist()


@pytest.mark.parametrize(("fields", "kind", "least"), [(INT4, "int4", 12.0), (FP8, "fp8", 21.0)], ids=["int4", "fp8"])
def test_the_file_runs_near_its_parent_and_is_legal(
    tmp_path: Path, fields: dict[str, Any], kind: str, least: float
) -> None:
    bench = Bench(tmp_path, transformer())
    made, path = bench.quantize(**fields)
    assert bench.sqnr(path) > least
    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    assert "QuantizeLinear" not in kinds(model)
    assert kinds(model)["DequantizeLinear"] == 7
    assert made.requires["gpu"] == "nvidia"
    assert made.notes["precision"] == kind
    profile = {"x": Shapes(min=(1, 12, 64), opt=(8, 12, 64), max=(32, 12, 64))}
    assert check(describe(path), [profile], [1, 8]) == ()


def test_scaling_helps_where_a_few_channels_are_great(tmp_path: Path) -> None:
    bench = Bench(tmp_path, transformer())
    plain = bench.score(**INT4)
    made, path = bench.quantize(**INT4, awq=True)
    assert bench.sqnr(path) > plain + 2
    noted: Any = made.notes["awq"]
    assert noted["error_ratio"] < 0.7
    assert noted["scaled"] > 0
    assert noted["explicit"] < noted["scaled"]  # two norms take the division


@pytest.mark.parametrize("fields", [INT4, FP8], ids=["int4", "fp8"])
def test_scaling_does_not_hurt_where_channels_are_alike(tmp_path: Path, fields: dict[str, Any]) -> None:
    graph = Graph()
    graph.linear("x", "y", 32, 24)
    bench = Bench(tmp_path, graph.model([("x", ["n", 32])], [("y", ["n", 24])]))
    assert bench.score(**fields, awq=True) > bench.score(**fields) - 0.3


@pytest.mark.parametrize("precision", ["int4", "fp8"])
@pytest.mark.parametrize("outlier", [1.0, 30.0])
def test_the_search_never_errs_more_on_its_own_rows(precision: str, outlier: float) -> None:
    random = np.random.default_rng(5)
    graph = Graph()
    graph.linear("x", "y", 32, 16)
    model = graph.model([("x", ["n", 32])], [("y", ["n", 16])])
    rows = random.normal(size=(128, 32)).astype(np.float32)
    rows[:, 3] *= outlier
    nodes = [node.name for node in graph.nodes]
    _, found = on_awq.scaled(model, nodes, {"x": rows}, lambda each: on_narrow.round_trip(each, precision, 16))
    ratio: Any = found["error_ratio"]
    assert ratio <= 1.0
    assert precision == "fp8" or outlier == 1.0 or ratio < 0.5


def test_a_transposed_gemm_keeps_its_layout(tmp_path: Path) -> None:
    graph = Graph()
    weight = graph.constant("w", graph.random.normal(0, 0.2, (24, 32)))
    graph.node("Gemm", ["x", weight, graph.constant("b", graph.random.normal(0, 0.1, 24))], "y", transB=1)
    bench = Bench(tmp_path, graph.model([("x", ["n", 32])], [("y", ["n", 24])]))
    assert bench.score(**INT4) > 15
    assert bench.score(**FP8, awq=True) > 25


def test_what_no_block_divides_stays_in_float(tmp_path: Path) -> None:
    graph = Graph()
    graph.linear("x", "y", 24, 8)
    bench = Bench(tmp_path, graph.model([("x", ["n", 24])], [("y", ["n", 8])]))
    with pytest.raises(StageError, match="24 inputs are no multiple of block_size 16"):
        bench.quantize(**INT4)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": "tensorrt", "precision": "int4"}, "int4 does not apply to method 'static'"),
        ({"target": "x86", "method": "weight-only", "precision": "int4"}, "has no kernels for int4"),
        ({**FP8, "bits": 4}, "bits do not apply"),
        ({**FP8, "block_size": 64}, "block_size do not apply"),
        ({**INT4, "storage": "channels", "block_size": 128}, "storage do not apply"),
        ({**INT4, "coverage": 0.5}, "leave all products in float"),
        ({**INT4, "overrides": (Override(operator="MatMul", weights="int8"),)}, "integers beside int4"),
        ({"target": "tensorrt", "method": "weight-only"}, "has no kernels for method 'weight-only'"),
        ({"awq": True}, "awq scales weights that are rounded alone"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QuantizeConfig(kind="quantize", **fields)
