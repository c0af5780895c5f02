"""The 2:4 pattern on arrays, and the proof that it is (or is not) in an ONNX file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seatrial.optimize.pruning.on_graphs import sparse_weights
from seatrial.optimize.pruning.pattern import fits, holds, mask
from seatrial.optimize.samples import Array

weights = arrays(np.float32, st.sampled_from([(3, 8), (2, 4, 3, 3), (1, 12, 1)]), elements=st.floats(-4, 4, width=32))


@given(weights)
def test_the_mask_keeps_the_two_largest_of_every_four(weight: Array) -> None:
    chosen = mask(weight)
    assert chosen.shape == weight.shape
    assert holds(weight * chosen)
    groups = np.moveaxis(np.abs(weight), 1, -1).reshape(-1, 4)
    stays = np.moveaxis(chosen, 1, -1).reshape(-1, 4)
    assert (stays.sum(1) == 2).all()
    assert (np.where(stays, groups, np.inf).min(1) >= np.where(stays, -np.inf, groups).max(1)).all()


@given(weights)
def test_masking_twice_changes_nothing(weight: Array) -> None:
    once = weight * mask(weight)
    assert np.array_equal(once, once * mask(once))


def test_three_of_four_break_it_and_odd_widths_do_not_fit() -> None:
    assert not holds(np.array([[1.0, 2.0, 3.0, 0.0]]))
    assert holds(np.array([[1.0, 0.0, 3.0, 0.0]]))
    assert not fits((8, 3, 3, 3), 1)
    assert not holds(np.zeros((8, 3)))


def graph(path: Path, transposed: bool, damage: bool) -> Path:
    """Conv and either Gemm with a transposed weight or MatMul, all 2:4 unless damaged."""
    random = np.random.default_rng(0)
    conv = random.normal(size=(8, 4, 1)).astype(np.float32)
    dense = random.normal(size=(4, 8)).astype(np.float32)
    conv, dense = conv * mask(conv), dense * mask(dense)
    if damage:
        dense[0, :4] = 1
    stored = dense if transposed else dense.T.copy()
    last = (
        onnx.helper.make_node("Gemm", ["flat", "dense"], ["y"], name="last", transB=1)
        if transposed
        else onnx.helper.make_node("MatMul", ["flat", "dense"], ["y"], name="last")
    )
    nodes = [
        onnx.helper.make_node("Conv", ["x", "conv"], ["c"], name="first"),
        onnx.helper.make_node("Flatten", ["c"], ["flat"], name="flat"),
        last,
    ]
    kind = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, [1, 4, 1])],
        [onnx.helper.make_tensor_value_info("y", kind, [1, 4])],
        [onnx.numpy_helper.from_array(conv, "conv"), onnx.numpy_helper.from_array(stored, "dense")],
    )
    onnx.save_model(onnx.helper.make_model(made), str(path))
    return path


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("damage", [True, False])
def test_the_checker_reads_the_input_axis_of_every_operator(tmp_path: Path, transposed: bool, damage: bool) -> None:
    found = {weight.node: weight.holds for weight in sparse_weights(graph(tmp_path / "m.onnx", transposed, damage))}
    assert found == {"first": True, "last": not damage}
