"""Bounds by counting: known ranks, coverage by simulation, and streams whose values hang together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.measuring.order_statistics import effective_size, lower_bound, quantiles, upper_bound


def test_the_99th_percentile_gets_a_bound_from_459_values_on_as_in_mlperf() -> None:
    values = np.arange(1.0, 459.0)
    assert upper_bound(values, 0.99, 0.99) is None
    assert upper_bound(np.append(values, 459.0), 0.99, 0.99) == 459.0
    assert upper_bound(np.arange(1.0, 663.0), 0.99, 0.99) == 661.0  # from 662 on, the second highest will do


def test_the_interval_of_a_median_of_ten_is_the_textbook_s() -> None:
    values = np.arange(1.0, 11.0)
    assert lower_bound(values, 0.5, 0.975) == 2.0
    assert upper_bound(values, 0.5, 0.975) == 9.0


@pytest.mark.slow
def test_bounds_cover_as_often_as_they_promise() -> None:
    random = np.random.default_rng(1)
    found = [quantiles(random.exponential(size=1000)) for _ in range(300)]
    truth = -np.log(0.01)
    assert np.mean([each.p99_upper is not None and each.p99_upper >= truth for each in found]) >= 0.97
    assert (
        np.mean([each.interval is not None and each.interval[0] <= np.log(2) <= each.interval[1] for each in found])
        >= 0.9
    )


def test_values_that_hang_together_count_as_fewer() -> None:
    random = np.random.default_rng(2)
    assert effective_size(random.random(4000), 0.5) > 3000
    assert effective_size(np.repeat(random.random(400), 10), 0.5) < 800
    assert effective_size(np.repeat(random.random(1000), 10), 0.99) < 2500


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
@pytest.mark.slow
def test_the_figures_are_in_order_and_scale_with_the_values(values: list[float]) -> None:
    found = quantiles(values)
    assert min(values) <= found.median <= found.p99 <= max(values)
    assert 1 <= found.n_effective <= found.n == len(values)
    assert found.p99_upper is None
    if found.interval:
        assert found.interval[0] <= found.median <= found.interval[1]
    doubled = quantiles([2 * value for value in values])
    assert doubled.median == pytest.approx(2 * found.median)


def test_nothing_is_no_stream() -> None:
    with pytest.raises(ValueError, match="finite"):
        quantiles([])
    with pytest.raises(ValueError, match="finite"):
        quantiles([1.0, float("nan")])
