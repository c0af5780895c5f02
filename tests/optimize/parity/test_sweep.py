import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.parity.sweep import Point, at, batches, lengths, points
from seatrial.optimize.recipe.configs import CompileConfig, Shapes
from seatrial.optimize.samples import Samples

IDS = TensorSpec(name="ids", dtype="int64", shape=("n", "words"))
MASK = TensorSpec(name="mask", dtype="int64", shape=("n", "words"))
IMAGE = TensorSpec(name="image", dtype="float32", shape=("n", 3, "height", "width"))


def samples(rows: int = 40, words: int = 7) -> Samples:
    ids = np.arange(rows * words).reshape(rows, words)
    image = np.zeros((rows, 3, 5, 6), np.float32)
    return Samples(split="golden", inputs={"ids": ids, "mask": ids + 1, "image": image}, labels=None)


def test_sizes_come_from_the_samples_where_nothing_else_says() -> None:
    assert lengths([IDS, MASK, IMAGE], samples()) == {"words": 7, "height": 5, "width": 6}
    found = points([IDS, MASK], samples())
    assert [str(each) for each in found] == ["batch 1", "batch 2", "batch 32", "batch 8, words 1", "batch 8, words 2"]
    assert {each.source for each in found} == {"samples"}
    assert [each.batch for each in batches(samples(3))] == [1, 2, 3]


@pytest.mark.parametrize(
    "stage",
    [
        CompileConfig(kind="compile", batch=(1, 4, 64), dynamic={"words": (1, 16, 32)}),
        CompileConfig(
            kind="compile",
            profiles=({name: Shapes(min=(1, 1), opt=(4, 16), max=(64, 32)) for name in ("ids", "mask")},),
        ),
    ],
)
def test_sizes_come_from_the_compile_stage_where_there_is_one(stage: CompileConfig) -> None:
    found = points([IDS, MASK], samples(), [stage])
    assert [each.batch for each in found if not each.lengths] == [1, 2, 4, 64]
    assert [each.lengths["words"] for each in found if each.lengths] == [1, 2, 16, 32]
    assert {each.source for each in found} == {"compile stage"}


def test_a_range_that_is_missing_leaves_the_samples(caplog: pytest.LogCaptureFixture) -> None:
    found = points([IDS], samples(), [CompileConfig(kind="compile", batch=(1, 4, 8))])
    assert {each.source for each in found} == {"samples"}


@given(st.integers(1, 90), st.integers(1, 20))
def test_samples_are_cut_or_go_on_by_repetition(batch: int, words: int) -> None:
    found = at(Point(batch=batch, lengths={"words": words}), [IDS, MASK], samples())
    ids = found.inputs["ids"]
    assert ids.shape == found.inputs["mask"].shape
    assert ids.shape[1] == words
    assert len(found) >= batch
    assert found.inputs["image"].shape[1:] == (3, 5, 6)
    assert (ids[0] == np.arange(words) % 7).all()
    assert (found.inputs["mask"] == ids + 1).all()


def test_the_expected_batch_takes_every_sample() -> None:
    assert len(at(Point(batch=32), [IDS], samples())) == 40
    assert len(at(Point(batch=2), [IDS], samples())) == 8
    assert len(at(Point(batch=32), [IDS], samples(), most=33)) == 33
