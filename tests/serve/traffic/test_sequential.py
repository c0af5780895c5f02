"""The sequential tests: what holds at every look, and what is found soon enough to matter."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.serve.traffic.rollout.sequential import (
    MIN_BLOCKS,
    blocks_needed,
    event_evidence,
    event_safety,
    latency_evidence,
    rate_interval,
)

MARGIN = math.log(1.05)
finite = st.floats(-1, 1, allow_nan=False)


def test_identical_arms_are_seldom_told_apart_however_often_one_looks() -> None:
    random = np.random.default_rng(1)
    crossed = sum(latency_evidence(random.normal(0, 0.1, 300), 0.0, alpha=0.05).evidence >= 20 for _ in range(400))
    assert crossed <= 0.05 * 400


@pytest.mark.slow
def test_the_interval_covers_at_every_block_at_once() -> None:
    random = np.random.default_rng(2)
    missed = 0
    for _ in range(200):
        d = random.normal(0.03, 0.1, 60)
        looks = [latency_evidence(d[:n], MARGIN, alpha=0.1) for n in range(MIN_BLOCKS, 61)]
        missed += any(not look.low <= 0.03 <= look.high for look in looks)
    assert missed <= 0.1 * 200


def test_a_shift_is_found_and_one_within_the_margin_is_safe() -> None:
    random = np.random.default_rng(3)
    worse = latency_evidence(random.normal(math.log(1.2), 0.06, 30), MARGIN, alpha=0.01)
    same = latency_evidence(random.normal(0, 0.06, 60), MARGIN, alpha=0.01)
    assert worse.evidence > 100
    assert worse.low > MARGIN
    assert same.high < MARGIN
    assert same.safety > 100
    assert same.evidence < 100


def test_autocorrelated_blocks_are_paid_for() -> None:
    steps = np.random.default_rng(4).normal(0, 0.1, 200)
    walk = np.array([steps[max(0, i - 3) : i + 1].mean() for i in range(200)])
    correlated, shuffled = (
        latency_evidence(walk, MARGIN, alpha=0.01),
        latency_evidence(np.random.default_rng(5).permutation(walk), MARGIN, alpha=0.01),
    )
    assert correlated.inflation > 2 > shuffled.inflation
    assert correlated.high - correlated.low > shuffled.high - shuffled.low


@given(st.lists(finite, min_size=0, max_size=40), st.floats(-0.5, 0.5))
def test_evidence_grows_only(differences: list[float], margin: float) -> None:
    looks = [latency_evidence(differences[:n], margin, alpha=0.01) for n in range(len(differences) + 1)]
    assert all(one.evidence <= other.evidence for one, other in pairwise(looks))
    assert all(look.low <= look.shift <= look.high for look in looks)


@given(st.lists(finite, min_size=MIN_BLOCKS, max_size=30), st.floats(-0.3, 0.3))
def test_interval_and_evidence_are_one_test(differences: list[float], margin: float) -> None:
    look = latency_evidence(differences, margin, alpha=0.01)
    if look.low > margin:
        assert look.evidence >= 100 * (1 - 1e-6)
    if look.high < margin:
        assert look.safety >= 100 * (1 - 1e-6)


def test_more_errors_are_found_and_equal_ones_are_not() -> None:
    random = np.random.default_rng(6)
    same = [event_evidence(random.poisson(0.1, 360), random.poisson(0.1, 360), 0.5) for _ in range(300)]
    worse = [event_evidence(random.poisson(0.4, 360), random.poisson(0.1, 360), 0.5) for _ in range(50)]
    assert np.mean([e >= 100 for e in same]) <= 0.01
    assert np.mean([e >= 100 for e in worse]) == 1


def test_a_changing_share_is_no_evidence() -> None:
    random = np.random.default_rng(7)
    share = np.repeat([0.01, 0.05, 0.25, 0.5], 60)
    found = [
        event_evidence(random.poisson(20 * share), random.poisson(20 * (1 - share)), share) >= 100 for _ in range(200)
    ]
    assert np.mean(found) <= 0.02


def test_clustered_events_count_less_than_scattered_ones() -> None:
    clustered = event_evidence([0, 0, 0, 0, 0, 24] * 4, [1, 0, 0, 1, 0, 0] * 4, 0.5)
    scattered = event_evidence([4] * 24, [1, 0, 0, 1, 0, 0] * 4, 0.5)
    assert clustered < scattered


@given(st.integers(0, 50), st.integers(1, 500), st.sampled_from([0.01, 0.05]))
def test_a_rate_lies_in_its_interval(events: int, extra: int, alpha: float) -> None:
    requests = events + extra
    low, high = rate_interval(events, requests, alpha=alpha)
    assert 0 <= low <= events / requests <= high <= 1
    wider = rate_interval(events, requests, alpha=alpha / 10)
    assert wider[0] <= low
    assert wider[1] >= high


def test_without_errors_safety_comes_with_requests() -> None:
    _, few = event_safety([0], 500, [0], 500, alpha=0.01)
    _, many = event_safety([0], 50_000, [0], 50_000, alpha=0.01)
    assert few > 0.001 > many


def test_the_forecast_is_where_the_interval_gets_there() -> None:
    d = np.random.default_rng(8).normal(0.0, 0.1, 20)
    look = latency_evidence(d, MARGIN, alpha=0.01)
    needed = blocks_needed(look, MARGIN, alpha=0.01)
    assert needed is not None
    assert needed > 20
    assert blocks_needed(latency_evidence(d + 0.2, MARGIN, alpha=0.01), MARGIN, alpha=0.01) is None


@pytest.mark.parametrize("bad", [([1], [1, 2], 0.5), ([-1], [0], 0.5), ([1], [0], 0.0), ([1], [0], 1.0)])
def test_what_cannot_be_counted_is_refused(bad: tuple[list[int], list[int], float]) -> None:
    with pytest.raises(ValueError, match="share"):
        event_evidence(*bad)
