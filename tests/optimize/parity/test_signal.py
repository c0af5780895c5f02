"""Signal to noise of a model's outputs: against its definition, and against what must never count as near."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import StageError
from seatrial.optimize.parity.signal import MOST, SignalToNoise

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 5)).astype(np.float32)


def decibels(expected: np.ndarray, got: np.ndarray, parts: int = 1) -> float:  # type: ignore[type-arg]
    found = SignalToNoise()
    for one, other in zip(np.array_split(expected, parts), np.array_split(got, parts), strict=True):
        found.add({"y": one}, {"y": other})
    return found.decibels


@given(scale=st.floats(1e-3, 10), parts=st.integers(1, 5))
def test_it_is_the_energy_of_outputs_over_that_of_the_difference_however_samples_are_split(
    scale: float, parts: int
) -> None:
    other = X + scale * RANDOM.normal(size=X.shape).astype(np.float32)
    one = X.astype(np.float64)
    expected = 10 * np.log10(np.square(one).sum() / np.square(one - other).sum())
    assert decibels(X, other, parts) == pytest.approx(expected)


def test_the_worst_output_counts() -> None:
    found = SignalToNoise()
    found.add({"a": X, "b": X}, {"a": X, "b": X * 0.9})
    assert found.decibels == pytest.approx(20, abs=1e-3)


def test_equal_outputs_have_the_greatest_ratio_and_numbers_that_are_lost_the_least() -> None:
    masked = X.copy()
    masked[0, 0] = -np.inf
    assert decibels(X, X) == decibels(masked, masked) == MOST
    assert decibels(X, np.where(X[3, 2] == X, np.float32(np.nan), X)) == -MOST
    assert decibels(np.zeros_like(X), X) == -MOST


def test_decisions_are_compared_by_the_fraction_that_differs() -> None:
    labels = np.arange(100)
    assert decibels(labels, np.where(labels < 1, -1, labels)) == pytest.approx(20)
    assert decibels(labels, labels) == MOST


@pytest.mark.parametrize("got", [{}, {"y": X[:, :4]}])
def test_an_output_that_is_missing_or_of_another_shape_is_an_error(got: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    with pytest.raises(StageError, match="output 'y' has shape"):
        SignalToNoise().add({"y": X}, got)
