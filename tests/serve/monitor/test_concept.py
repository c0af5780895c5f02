"""Evidence from outcomes: what a wrong segment does to it, and what quiet outcomes do not; bets that are fair."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import nchypergeom_fisher

from seatrial.serve.monitor import concept
from seatrial.serve.monitor.concept import RATIOS, Bounds, ErrorState
from seatrial.serve.monitor.expectation import Expectation, allowed, expectation
from seatrial.serve.monitor.label_power import detectable, labels_needed, share_interval
from seatrial.serve.monitor.quantities import Floats
from seatrial.serve.monitor.segments import Masks, Segment

SEGMENTS = (
    Segment(weight=0.2),
    Segment(column="region", value="north", group=True, weight=0.4),
    Segment(column="region", value="south", group=True, weight=0.4),
)
EXPECTED = Expectation(segments=SEGMENTS, unsure=np.full(3, 0.005), error=np.full(3, 0.1))
BOUNDS = Bounds(tolerance=0.01, gap=0.05)
THRESHOLD = 8766.0


def hour(draw: np.random.Generator, *, north: float = 0.1, south: float = 0.1) -> tuple[Floats, Floats, Masks]:
    """An hour of 200 outcomes with an expected error of a tenth: right, chance, segments."""
    masks = np.zeros((3, 200), np.bool_)
    masks[0], masks[1, :60], masks[2, 60:] = True, True, True
    correct = (draw.random(200) >= np.where(masks[1], north, south)).astype(float)
    return correct, np.full(200, 0.9), masks


def watched(hours: int, seed: int, **errors: float) -> tuple[ErrorState, int | None]:
    """The state after the first alarm, or after all hours, and when that was."""
    draw, state = np.random.default_rng(seed), concept.fresh(EXPECTED)
    for at in range(hours):
        state = concept.step(EXPECTED, state, *hour(draw, **errors), BOUNDS)
        if concept.total(EXPECTED, state) >= THRESHOLD:
            return state, at + 1
    return state, None


@pytest.mark.slow
def test_a_segment_that_went_wrong_is_named_and_quiet_ones_are_not() -> None:
    for seed in range(5):
        state, at = watched(40, seed, north=0.25)
        assert at is not None
        assert at <= 16
        first = concept.drifting(EXPECTED, state)[0]
        assert str(first.segment) == "region = north"
        assert first.observed > 0.15 > first.expected
    assert watched(700, 9)[1] is None


def test_a_group_that_falls_behind_within_the_tolerance_of_errors_is_found_by_its_distance() -> None:
    bounds = Bounds(tolerance=0.4, gap=0.02)  # errors themselves are allowed to rise
    draw, state = np.random.default_rng(3), concept.fresh(EXPECTED)
    for _ in range(60):
        state = concept.step(EXPECTED, state, *hour(draw, north=0.3), bounds)
    first = concept.drifting(EXPECTED, state)[0]
    assert (first.gap, str(first.segment)) == (True, "region = north")
    assert "distance to the others" in str(first)
    assert concept.total(EXPECTED, state) > THRESHOLD
    both = concept.fresh(EXPECTED)
    for _ in range(60):
        both = concept.step(EXPECTED, both, *hour(draw, north=0.3, south=0.3), bounds)
    assert concept.total(EXPECTED, both) < THRESHOLD  # all got worse alike: no distance grew


def test_no_bet_on_errors_is_worth_more_than_one_where_the_rate_is_allowed() -> None:
    chance = np.array([0.97, 0.8, 0.55])
    one = replace(EXPECTED, segments=SEGMENTS[:1], unsure=EXPECTED.unsure[:1], error=EXPECTED.error[:1])
    rates = allowed(one, chance, BOUNDS.tolerance)[0]
    total = np.zeros(len(RATIOS) + len(concept.RISES))
    for wrong in product((0.0, 1.0), repeat=3):
        errors = np.array(wrong)
        log = concept._bets(rates[None, :], errors, np.ones((1, 3), np.bool_))[:, 0]
        total += np.exp(log) * np.prod(np.where(errors == 1, rates, 1 - rates))
    assert total == pytest.approx(np.ones(len(total)), rel=1e-9)


def test_bets_on_a_group_follow_fishers_noncentral_hypergeometric_distribution() -> None:
    group, rest, errors = 6, 14, 5
    for ratio in (0.7, 2.5):
        normal = concept._normalizer((group, rest), errors, float(np.log(ratio)))
        for count in range(errors + 1):
            ways = concept._log_choose(group, np.array([count])) + concept._log_choose(rest, np.array([errors - count]))
            mine = float(np.exp(ways[0] + count * np.log(ratio) - normal))
            assert mine == pytest.approx(nchypergeom_fisher.pmf(count, group + rest, group, errors, ratio), rel=1e-6)


def test_outcomes_of_one_hour_in_many_batches_earn_no_more_evidence() -> None:
    correct, chance, masks = hour(np.random.default_rng(4))
    whole = concept.step(EXPECTED, concept.fresh(EXPECTED), correct, chance, masks, BOUNDS)
    state = concept.fresh(EXPECTED)
    for at in range(0, 200, 20):
        part = slice(at, at + 20)
        bounds = replace(BOUNDS, elapsed=1.0 if not at else 0.0)
        state = concept.step(EXPECTED, state, correct[part], chance[part], masks[:, part], bounds)
    assert state.errors == pytest.approx(whole.errors)


def test_the_reference_says_how_unsure_it_is() -> None:
    draw = np.random.default_rng(1)
    correct, masks = (draw.random(5000) < 0.9).astype(float), np.ones((2, 5000), np.bool_)
    masks[1, 250:] = False
    found = expectation(SEGMENTS[:2], masks, correct, np.full(5000, 0.9))
    assert found.unsure[1] > 2 * found.unsure[0] > 0
    assert found.accuracy == pytest.approx(0.9, abs=0.02)


def test_the_power_of_labels_agrees_with_simulation() -> None:
    needed = labels_needed(0.9, 0.05)
    assert 200 < needed < 500
    assert labels_needed(0.9, 0.02) > 4 * needed
    assert detectable(0.9, needed) == pytest.approx(0.05, rel=0.02)
    assert detectable(0.9, 0) == 0.9
    draw = np.random.default_rng(2)
    limit = 0.9 - 1.645 * np.sqrt(0.9 * 0.1 / needed)
    assert 0.85 < float((draw.binomial(needed, 0.85, 4000) / needed < limit).mean()) < 0.95
    assert float((draw.binomial(needed, 0.9, 4000) / needed < limit).mean()) < 0.07


def test_an_exact_interval_holds_at_the_ends() -> None:
    assert share_interval(0, 0) == (0.0, 1.0)
    assert share_interval(0, 50)[0] == 0.0
    assert share_interval(50, 50)[1] == 1.0
    low, high = share_interval(45, 50)
    assert low < 0.9 < high
