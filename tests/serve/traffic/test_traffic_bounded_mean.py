"""Bounds on a mean: they hold at every look, they are where they should be, and a forecast is what happens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.serve.traffic.rollout.sequential import rate_interval
from seatrial.serve.traffic.shadow.bounded_mean import mean_interval, values_needed

UNIT = st.lists(st.floats(0, 1), max_size=60)


@given(UNIT, st.floats(0.001, 0.5))
@pytest.mark.slow
def test_the_interval_holds_the_mean_and_mirrors_with_the_values(values: list[float], alpha: float) -> None:
    low, high = mean_interval(values, alpha=alpha)
    assert 0.0 <= low <= high <= 1.0
    if values:
        assert low - 1e-9 <= float(np.mean(values)) <= high + 1e-9
    mirrored = mean_interval([1.0 - value for value in values], alpha=alpha)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low), abs=1e-7)


@given(UNIT.filter(bool), st.floats(0.01, 0.2))
@pytest.mark.slow
def test_less_confidence_is_a_narrower_interval_and_order_does_not_matter(values: list[float], alpha: float) -> None:
    wide, narrow = mean_interval(values, alpha=alpha / 2), mean_interval(values, alpha=alpha)
    assert wide[0] <= narrow[0] + 1e-9
    assert narrow[1] <= wide[1] + 1e-9
    assert mean_interval(values[::-1], alpha=alpha) == pytest.approx(narrow, abs=1e-8)


def test_nothing_seen_says_nothing_and_a_value_out_of_range_is_an_error() -> None:
    assert mean_interval([], alpha=0.1) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 to 1"):
        mean_interval([0.5, 1.5], alpha=0.1)
    with pytest.raises(ValueError, match="0 to 1"):
        mean_interval([float("nan")], alpha=0.1)


@pytest.mark.parametrize("law", ["rate of 2 %", "cosines", "shares of four rows"])
@pytest.mark.slow
def test_the_mean_is_covered_at_all_looks_together(law: str) -> None:
    """100 runs of 2000 values, each looked at 12 times; alpha 10 %: 10 may miss, and chance makes it 19 at most."""
    random = np.random.default_rng(7)
    draws: dict[str, Callable[[], Any]] = {
        "rate of 2 %": lambda: (random.random(2000) < 0.02).astype(float),
        "cosines": lambda: random.beta(60, 1, 2000).round(4),
        "shares of four rows": lambda: random.binomial(4, 0.97, 2000) / 4,
    }
    mean = {"rate of 2 %": 0.02, "cosines": 60 / 61, "shares of four rows": 0.97}[law]
    missed = 0
    for _ in range(100):
        values = draws[law]()
        bounds = [mean_interval(values[:look], alpha=0.1) for look in np.geomspace(10, 2000, 12).astype(int)]
        missed += any(not low <= mean <= high for low, high in bounds)
    assert missed <= 19


def test_it_needs_no_more_values_than_the_interval_for_rates_near_one() -> None:
    kept = np.ones(1000)
    assert mean_interval(kept, alpha=0.01)[0] > rate_interval(1000, 1000, alpha=0.01)[0]


@settings(max_examples=30)
@given(st.integers(0, 8), st.floats(0.9, 0.985))
def test_a_forecast_is_where_the_bound_crosses(misses: int, limit: float) -> None:
    values = [1.0] * (1000 - misses) + [0.0] * misses
    needed = values_needed(values, limit, alpha=0.01)
    if needed is None:
        return
    times = needed / 1000
    if times < 1:
        return
    more, less = values * (int(times) + 2), values * max(int(times) - 1, 1)
    assert mean_interval(more, alpha=0.01)[0] > limit
    if len(less) < needed:
        assert mean_interval(less, alpha=0.01)[0] <= limit


def test_no_number_of_values_proves_what_is_not_so() -> None:
    assert values_needed([1.0] * 90 + [0.0] * 10, 0.95, alpha=0.01) is None
    assert values_needed([1.0] * 90, 1.0, alpha=0.01) is None
    assert values_needed([], 0.5, alpha=0.01) is None
