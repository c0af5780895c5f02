"""Rows: any number of samples through models that take one sample, or one size of batch, a run."""

from collections.abc import Mapping

import numpy as np
import pytest

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import StageError
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.rows import fixed_rows, in_runs, single


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


class Runs:
    """Doubles what it is given, and keeps the shapes."""

    def __init__(self) -> None:
        self.shapes: list[dict[str, tuple[int, ...]]] = []

    def __call__(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        self.shapes.append({name: array.shape for name, array in arrays.items()})
        return {name: 2 * array for name, array in arrays.items()}


def floats(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_model_that_batches_runs_once() -> None:
    run, x = Runs(), floats(5, 3)
    np.testing.assert_array_equal(in_runs([spec("x", "n", 3)], {"x": x}, run)["x"], 2 * x)
    assert run.shapes == [{"x": (5, 3)}]


@pytest.mark.parametrize(("size", "rows", "runs"), [(1, 3, 3), (4, 6, 2), (4, 4, 1), (4, 8, 2)])
def test_a_fixed_batch_is_filled_up_and_the_surplus_dropped(size: int, rows: int, runs: int) -> None:
    run, x = Runs(), floats(rows, 3)
    np.testing.assert_array_equal(in_runs([spec("x", size, 3)], {"x": x}, run)["x"], 2 * x)
    assert run.shapes == [{"x": (size, 3)}] * runs


def test_whole_tensors_are_run_one_by_one() -> None:
    run = Runs()
    given = {"x": floats(3, 1, 4), "state": floats(3, 2, 1, 5), "rate": floats(3)}
    inputs = [spec("x", "a", "b"), spec("state", 2, "a", 5), spec("rate")]
    found = in_runs(inputs, given, run)
    assert run.shapes == [{"x": (1, 4), "state": (2, 1, 5), "rate": ()}] * 3
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], 2 * array)


def test_outputs_of_many_shapes_cannot_be_joined() -> None:
    def ragged(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": np.zeros(int(arrays["x"][0]))}

    with pytest.raises(StageError, match="another shape for every sample"):
        in_runs([spec("x", 1)], {"x": np.array([[1.0], [2.0]])}, ragged)


def test_a_fixed_batch_whose_output_has_other_rows_is_refused() -> None:
    with pytest.raises(StageError, match="expected as many rows"):
        in_runs([spec("x", 1, 2)], {"x": floats(3, 2)}, lambda arrays: {"y": arrays["x"].reshape(-1)})


def test_what_a_run_takes_is_read_off_the_ranks() -> None:
    inputs = [spec("x", 1, 4), spec("s", 2, 1)]
    assert single(inputs, {"x": floats(3, 1, 4), "s": floats(3, 2, 1)})
    assert not single(inputs, {"x": floats(1, 4), "s": floats(2, 1)})
    assert fixed_rows(inputs) is None
    assert fixed_rows([spec("x", 4, 4), spec("s", 4)]) == 4
    assert fixed_rows([spec("x", "n", 4)]) is None
