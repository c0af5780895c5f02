"""Bound buffers: allocated once, written, run and read; here on the CPU, the same code as on a GPU."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.errors import StageError
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.engine import Bindable
from seatrial.optimize.sessions.on_ort import OrtSession
from tests.support.linear import linear

RANDOM = np.random.default_rng(3)


def rows(count: int) -> Array:
    return RANDOM.normal(size=(count, 8)).astype(np.float32)


def test_a_bound_session_computes_what_an_unbound_one_does_on_whatever_is_written(tmp_path: Path) -> None:
    session, first, second = OrtSession(linear(tmp_path / "linear.onnx")), rows(5), rows(5)
    assert isinstance(session, Bindable)
    bound = session.bind({"x": first})
    np.testing.assert_array_equal(bound.read()["y"], session.run({"x": first})["y"])
    kept = bound.read()["y"]
    bound.write({"x": second})
    np.testing.assert_array_equal(bound.read()["y"], kept)  # nothing ran yet
    bound.run()
    np.testing.assert_array_equal(bound.read()["y"], session.run({"x": second})["y"])
    np.testing.assert_array_equal(kept, session.run({"x": first})["y"])  # what was read is a copy


def test_buffers_stay_where_they_are_over_runs(tmp_path: Path) -> None:
    bound = OrtSession(linear(tmp_path / "linear.onnx")).bind({"x": rows(5)})
    places = [value.data_ptr() for value in (*bound._inputs.values(), *bound._outputs.values())]  # type: ignore[attr-defined]
    for _ in range(3):
        bound.write({"x": rows(5)})
        bound.run()
    assert places == [value.data_ptr() for value in (*bound._inputs.values(), *bound._outputs.values())]  # type: ignore[attr-defined]


def test_a_caller_that_changes_its_array_changes_no_buffer(tmp_path: Path) -> None:
    session, given = OrtSession(linear(tmp_path / "linear.onnx")), rows(2)
    expected, bound = session.run({"x": given})["y"], session.bind({"x": given})
    given[:] = 0
    bound.run()
    np.testing.assert_array_equal(bound.read()["y"], expected)


@pytest.mark.parametrize("given", [{}, {"x": rows(4)}, {"x": rows(5).astype(np.float64)}])
def test_inputs_that_do_not_fit_the_buffers_are_refused(tmp_path: Path, given: dict[str, Array]) -> None:
    bound = OrtSession(linear(tmp_path / "linear.onnx")).bind({"x": rows(5)})
    with pytest.raises(StageError, match=r"input 'x' is bound to float32 \[5, 8\]"):
        bound.write(given)


@pytest.mark.parametrize(
    "given", [{"z": rows(2)}, {}, {"x": rows(2).astype(np.int64)}, {"x": RANDOM.normal(size=(2, 3)).astype(np.float32)}]
)
def test_inputs_that_the_model_refuses_are_refused(tmp_path: Path, given: dict[str, Array]) -> None:
    with pytest.raises(StageError, match="ONNX Runtime refused the bound inputs"):
        OrtSession(linear(tmp_path / "linear.onnx")).bind(given)


def test_texts_cannot_be_bound(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "texts", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, str(tmp_path / "texts.onnx"))
    with pytest.raises(StageError, match="input 'x' holds no numbers"):
        OrtSession(tmp_path / "texts.onnx").bind({"x": np.array(["a"], object)})
