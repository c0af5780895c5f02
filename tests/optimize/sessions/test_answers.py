"""Metrics see outputs in one shape, however a model batches and in whatever order it names them."""

from collections.abc import Mapping

import numpy as np
import pytest

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.samples import Array, Samples
from seatrial.optimize.sessions.answers import answers, part_of, parts

X = np.arange(30, dtype=np.float32).reshape(10, 3)
OUTPUTS = (TensorSpec(name="score", dtype="float32", shape=()), TensorSpec(name="mask", dtype="float32", shape=()))


class Model:
    """Sums and doubles the last axis; takes tensors of this shape alone, and remembers how many rows it was given."""

    def __init__(self, *shape: int | str) -> None:
        self.shape, self.given = shape, list[int]()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        assert x.ndim == len(self.shape)
        assert all(isinstance(size, str) or size == actual for size, actual in zip(self.shape, x.shape, strict=True))
        self.given.append(len(x) if x.ndim == 2 else 1)
        return {"mask": 2 * x, "score": x.sum(axis=-1)}


@pytest.mark.parametrize(
    ("shape", "given"),
    [(("batch", 3), [4, 4, 2]), ((4, 3), [4, 4, 4]), ((1, 3), [1] * 10), ((3,), [1] * 10)],
    ids=["any batch", "batches of four", "batches of one", "no batch axis"],
)
def test_outputs_have_one_shape_and_one_order(shape: tuple[int | str, ...], given: list[int]) -> None:
    model, spec = Model(*shape), TensorSpec(name="x", dtype="float32", shape=shape)
    found = answers(model, (spec,), {"x": X}, 4, OUTPUTS)
    assert list(found) == ["score", "mask"]
    assert np.array_equal(found["score"], X.sum(axis=1))
    assert np.array_equal(found["mask"], 2 * X)
    assert model.given == given


def test_labels_go_with_their_part() -> None:
    samples = Samples(split="evaluation", inputs={"x": X}, labels=np.arange(10))
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    for which, found in parts(Model("batch", 3), (spec,), samples.inputs, 4):
        labels = part_of(samples, which)
        assert labels is not None
        assert np.array_equal(found["score"], X[labels].sum(axis=1))
    assert part_of(Samples(split="evaluation", inputs={"x": X}, labels=None), slice(0, 4)) is None
