import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seatrial.optimize.quantization.histogram import Histogram
from seatrial.optimize.quantization.smooth import divisors
from seatrial.optimize.quantization.statistics import Statistics

Array = np.ndarray[Any, np.dtype[Any]]
MAGNITUDES = arrays(np.float64, 12, elements=st.floats(0, 1e4))


def of(values: Array) -> Statistics:
    return Statistics(tensors={"x": Histogram.of(values)}, channels={"x": np.abs(values).max(axis=0)})


def test_statistics_of_batches_are_those_of_the_whole_and_survive_the_note() -> None:
    values = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    merged = of(values[:20]).merge(of(values[20:]))
    assert merged.to_json() == of(values).to_json()
    assert Statistics.from_json(json.loads(json.dumps(merged.to_json()))).to_json() == merged.to_json()


def test_a_note_of_another_schema_is_no_note() -> None:
    assert not Statistics.from_json({"schema": 0, "tensors": {}}).tensors
    assert not Statistics.from_json(None).tensors


def test_ranges_are_made_per_tensor() -> None:
    both = of(np.array([[0.0], [2.0]])).merge(Statistics(tensors={"y": Histogram.of(np.array([-1.0, 3.0]))}))
    assert both.ranges("minmax", symmetric=False, percentile=99.9) == {"x": (0.0, 2.0), "y": (-1.0, 3.0)}
    assert both.ranges("minmax", symmetric=True, percentile=99.9) == {"x": (-2.0, 2.0), "y": (-3.0, 3.0)}


@settings(deadline=None)
@given(MAGNITUDES, MAGNITUDES, st.floats(0.05, 0.95))
@pytest.mark.slow
def test_divisors_are_usable_numbers_and_leave_dead_channels_alone(
    activations: Array, weights: Array, strength: float
) -> None:
    found = divisors(activations, weights, strength)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert (found[(activations == 0) | (weights == 0)] == 1).all()


@settings(deadline=None)
@given(arrays(np.float64, 12, elements=st.floats(0.1, 100)), arrays(np.float64, 12, elements=st.floats(0.1, 100)))
@pytest.mark.slow
def test_at_one_half_both_sides_reach_equally_far(activations: Array, weights: Array) -> None:
    divisor = divisors(activations, weights, 0.5)
    np.testing.assert_allclose(activations / divisor, weights * divisor, rtol=1e-5)


def test_strength_says_who_carries_the_outliers() -> None:
    activations, weights = np.array([100.0, 1.0]), np.array([1.0, 1.0])
    spreads = [np.ptp(activations / divisors(activations, weights, strength)) for strength in (0.1, 0.5, 0.9)]
    assert spreads == sorted(spreads, reverse=True)
