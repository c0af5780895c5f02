import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import SourceError
from seatrial.optimize.samples import Samples, checked

INPUTS = {"a": np.arange(12, dtype=np.float32).reshape(6, 2), "b": np.arange(6)}


@given(st.integers(1, 7))
def test_batches_cover_everything_once(size: int) -> None:
    samples = Samples(split="train", inputs=INPUTS, labels=np.arange(6))
    parts = list(samples.batches(size))
    assert np.array_equal(np.concatenate([part.inputs["a"] for part in parts]), INPUTS["a"])
    assert all(len(part) == size for part in parts[:-1])


def test_the_digest_sees_every_byte_and_only_bytes() -> None:
    samples = Samples(split="train", inputs=INPUTS, labels=None)
    same = Samples(split="other", inputs={name: array.copy() for name, array in reversed(INPUTS.items())}, labels=None)
    assert samples.digest == same.digest
    other = {name: array.copy() for name, array in INPUTS.items()}
    other["a"][5, 1] += 1
    assert Samples(split="train", inputs=other, labels=None).digest != samples.digest


@pytest.mark.parametrize(
    ("loaded", "why"),
    [
        (None, "NoneType"),
        (({}, None), "tuple"),
        (({"a": np.zeros((2, 1))}, np.zeros(3)), "the same number of rows"),
        (({"a": np.zeros((0, 1))}, None), "the same number of rows"),
        (({"a": np.array([[1.0], [np.nan]])}, None), "NaN"),
        (({"a": np.array([object()])}, None), "Python objects"),
    ],
)
def test_an_unusable_loader_is_named(loaded: object, why: str) -> None:
    with pytest.raises(SourceError, match=r"loader\.py:load") as caught:
        checked("train", loaded, "loader.py:load")
    assert why in caught.value.what


def test_columns_come_with_the_samples_and_only_then_change_the_digest() -> None:
    labels = np.arange(6)
    plain = checked("evaluation", (INPUTS, labels), "l.py:load")
    site = np.array(["a", "b"] * 3)
    told = checked("evaluation", (INPUTS, labels, {"site": site}), "l.py:load")
    assert plain.columns == {}
    assert plain.digest == checked("evaluation", (INPUTS, labels, {}), "l.py:load").digest != told.digest
    assert told.take(1, 3).columns["site"].tolist() == ["b", "a"]
    for wrong in ({"site": site[:2]}, {"site": site.reshape(3, 2)}, {"site": np.array([None] * 6)}, ["site"]):
        with pytest.raises(SourceError):
            checked("evaluation", (INPUTS, labels, wrong), "l.py:load")
