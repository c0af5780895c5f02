from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seatrial.optimize.quantization.histogram import BINS, Histogram
from seatrial.optimize.quantization.ranges import Method, range_of, squared_error, too_wide
from seatrial.optimize.record import as_json

METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
VALUES = arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32))
BATCHES = st.lists(VALUES, min_size=1, max_size=6)
Array = np.ndarray[Any, np.dtype[Any]]


def same(one: Histogram, other: Histogram) -> bool:
    return bool(as_json(one) == as_json(other))


@settings(deadline=None)
@given(BATCHES, st.randoms())
@pytest.mark.slow
def test_the_histogram_is_a_function_of_the_set_of_values(batches: list[Array], random: Any) -> None:
    whole = Histogram.of(np.concatenate(batches))
    shuffled = random.sample(batches, len(batches))
    assert same(reduce(Histogram.merge, map(Histogram.of, shuffled)), whole)
    assert whole.total == sum(batch.size for batch in batches)
    assert len(whole.counts) <= BINS


@settings(deadline=None)
@given(VALUES)
@pytest.mark.slow
def test_extremes_are_exact_and_notes_read_back(values: Array) -> None:
    histogram = Histogram.of(values)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    assert same(Histogram.from_json(as_json(histogram)), histogram)
    assert histogram.magnitudes().sum() == values.size


def test_memory_is_bounded_whatever_comes() -> None:
    random = np.random.default_rng(0)
    histogram = Histogram.of(np.zeros(3))
    for size in range(1, 80):
        histogram = histogram.merge(Histogram.of(random.normal(0, 1.3**size, 1000).astype(np.float32)))
        assert len(histogram.counts) <= BINS
    assert histogram.total == 79_003


def test_what_is_not_finite_is_counted_apart() -> None:
    empty = Histogram.of(np.array([np.nan, np.inf]))
    assert range_of(empty, "mse", symmetric=False) == (0.0, 0.0)
    both = empty.merge(Histogram.of(np.array([1.0, 2.0])))
    assert (both.low, both.high, both.total, both.not_finite) == (1.0, 2.0, 2, 2)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from(METHODS), st.booleans())
def test_ranges_lie_inside_what_was_seen(values: Array, method: Method, symmetric: bool) -> None:
    histogram = Histogram.of(values)
    low, high = range_of(histogram, method, symmetric=symmetric)
    outer = range_of(histogram, "minmax", symmetric=symmetric)
    assert outer[0] <= low <= high <= outer[1]
    if symmetric:
        assert low == -high


@settings(deadline=None)
@given(VALUES, st.booleans())
def test_the_whole_percentile_is_min_max(values: Array, symmetric: bool) -> None:
    histogram = Histogram.of(values)
    whole = range_of(histogram, "percentile", symmetric=symmetric, percentile=100.0)
    assert whole == range_of(histogram, "minmax", symmetric=symmetric)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.booleans())
@pytest.mark.slow
def test_the_mse_range_is_never_worse_than_min_max(values: Array, symmetric: bool) -> None:
    histogram = Histogram.of(values)
    errors = [
        squared_error(histogram, range_of(histogram, method, symmetric=symmetric), symmetric=symmetric)
        for method in ("mse", "minmax")
    ]
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("method", "most"), [("percentile", 6.0), ("entropy", 10.0), ("mse", 50.0)])
def test_one_far_outlier_is_clipped(method: Method, most: float, symmetric: bool) -> None:
    values = np.append(np.random.default_rng(1).normal(size=200_000), 60.0)
    low, high = range_of(Histogram.of(values), method, symmetric=symmetric, percentile=99.99)
    assert 2.0 < high < most
    assert -most < low < -2.0


def test_the_percentile_of_known_values() -> None:
    histogram = Histogram.of(np.linspace(0, 1, 100_001))
    low, high = range_of(histogram, "percentile", symmetric=False, percentile=98.0)
    assert low == pytest.approx(0.01, abs=2e-3)
    assert high == pytest.approx(0.99, abs=2e-3)


def test_the_squared_error_is_that_of_the_rounding_itself() -> None:
    values = np.random.default_rng(2).normal(size=50_000).astype(np.float32)
    histogram = Histogram.of(values)
    interval = (-2.0, 2.5)
    scale = 4.5 / 255
    zero = np.rint(2.0 / scale)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    assert squared_error(histogram, interval, symmetric=False) == pytest.approx(
        float(np.mean((values - rounded) ** 2)), rel=0.05
    )


def reason(values: Array, method: Method = "minmax", symmetric: bool = False) -> str:
    histogram = Histogram.of(values.astype(np.float32))
    return too_wide(histogram, range_of(histogram, method, symmetric=symmetric), symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("lowest", [-1e3, -1e4, -1e9, float(np.finfo(np.float32).min)])
def test_scores_beside_a_sentinel_have_no_scale(lowest: float, symmetric: bool) -> None:
    random = np.random.default_rng(7)
    scores = random.normal(size=4000)
    scores[random.random(4000) < 0.3] += lowest
    assert reason(scores, symmetric=symmetric)


def test_what_is_not_finite_has_no_scale() -> None:
    assert "not finite" in reason(np.array([0.0, 1.0, -np.inf]))


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=4000),
        np.random.default_rng(1).normal(size=4000) * 1e6,
        np.random.default_rng(1).standard_t(2, size=4000) * 30,
        (np.random.default_rng(1).random(4000) < 0.5).astype(np.float64),
        np.where(np.random.default_rng(1).random(4000) < 0.5, 0.0, -1e4),
        np.where(np.random.default_rng(1).random(4000) < 0.01, 0.9, 1e-4),
        np.zeros(10),
    ],
    ids=["normal", "large", "heavy tails", "switches", "a mask alone", "probabilities", "zeros"],
)
def test_one_cluster_or_exact_levels_have_a_scale(values: Array) -> None:
    assert not reason(values)
    assert not reason(values, symmetric=True)


@settings(deadline=None)
@given(BATCHES)
@pytest.mark.slow
def test_zeros_are_counted_through_merges(batches: list[Array]) -> None:
    whole = reduce(Histogram.merge, map(Histogram.of, batches))
    assert whole.zeros == sum(int((batch == 0).sum()) for batch in batches)
