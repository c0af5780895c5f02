"""The statistics: exact values from tables, symmetries, and coverage by seeded simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from seatrial.bench import decision, stats

ORDER = (1, -1, -1, 1, 1, -1)
pairs_of_values = st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)), min_size=4, max_size=12).filter(
    lambda rows: len(rows) % 2 == 0
)


def order_of(n: int) -> list[int]:
    return [1 if i % 2 else -1 for i in range(n)]


def test_t_interval_equals_least_squares_with_an_order_term() -> None:
    d = np.array([0.02, 0.05, 0.01, 0.04, 0.03, -0.01])
    design = np.column_stack([np.ones(6), ORDER])
    solution, residual, _, _ = np.linalg.lstsq(design, d, rcond=None)
    estimate = stats.paired(d, ORDER)
    assert estimate.effect == pytest.approx(solution[0])
    assert estimate.order_effect == pytest.approx(solution[1])
    se = math.sqrt(float(residual[0]) / 4 / 6)
    assert stats.upper_bound(estimate, 0.05) == pytest.approx(solution[0] + reference.t.ppf(0.95, 4) * se)
    assert stats.lower_bound(estimate, 0.01) == pytest.approx(solution[0] - reference.t.ppf(0.99, 4) * se)


def test_an_order_effect_does_not_widen_the_interval() -> None:
    noise = np.array([0.01, -0.01, 0.005, -0.005, 0.0, 0.0])
    plain, shifted = stats.paired(noise, ORDER), stats.paired(noise + 0.5 * np.array(ORDER), ORDER)
    assert shifted.sd == pytest.approx(plain.sd)
    assert shifted.order_effect == pytest.approx(plain.order_effect + 0.5)


@given(pairs_of_values, st.floats(0.1, 10.0))
def test_swapping_the_arms_flips_the_interval_and_units_do_not_matter(
    rows: list[tuple[float, float]], scale: float
) -> None:
    base, candidate = np.array(rows).T
    order = order_of(len(rows))
    there = stats.paired(stats.log_ratios(base, candidate, 1), order)
    back = stats.paired(stats.log_ratios(candidate, base, 1), [-o for o in order])
    scaled = stats.paired(stats.log_ratios(base * scale, candidate * scale, 1), order)
    for alpha in (0.01, 0.05):
        up, down = stats.upper_bound(there, alpha), stats.lower_bound(back, alpha)
        if there.method == back.method:
            assert up == pytest.approx(-down, abs=1e-9)
        if there.method == scaled.method:
            assert stats.upper_bound(scaled, alpha) == pytest.approx(up, abs=1e-9)


@given(pairs_of_values, st.floats(0.0, 0.2))
def test_pass_and_fail_exclude_each_other(rows: list[tuple[float, float]], margin: float) -> None:
    base, candidate = np.array(rows).T
    estimate = stats.paired(stats.log_ratios(base, candidate, 1), order_of(len(rows)))
    passes = stats.upper_bound(estimate, 0.05) < margin
    assert not (passes and stats.p_exceeds(estimate, margin) <= 0.05)


def test_higher_is_better_turns_the_sign() -> None:
    assert stats.log_ratios([100.0], [80.0], -1)[0] == pytest.approx(math.log(1.25))


@pytest.mark.parametrize("order", [[1, -1, 1], [1, 1, 1, -1], [1, -1], [2, -2, 1, -1]])
def test_designs_that_cannot_be_analysed_are_refused(order: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        stats.paired([0.1] * len(order), order)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_log_ratios_refuse_what_has_no_logarithm(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        stats.log_ratios([1.0, bad], [1.0, 1.0], 1)


def test_the_instrument_bounds_the_standard_error_from_below() -> None:
    estimate = stats.paired([0.0] * 6, ORDER, se_floor=0.01)
    assert estimate.se == 0.01
    assert stats.upper_bound(estimate, 0.05) == pytest.approx(0.01 * reference.t.ppf(0.95, 4))


def test_an_outlier_brings_in_the_rank_interval_from_eight_pairs_on() -> None:
    d = np.array([0.010, 0.012, 0.009, 0.011, 0.010, 0.013, 0.008, 3.0])
    estimate = stats.paired(d, order_of(8))
    assert estimate.method == "signed-rank"
    assert estimate.effect == pytest.approx(0.0115, abs=0.002)
    assert stats.paired(d[-6:], ORDER).method == "t"


def test_signed_rank_p_and_bounds_agree_with_scipy() -> None:
    d = np.array([0.010, 0.021, 0.0094, -0.0112, 0.0103, 0.0131, 0.0082, 3.0])
    estimate = stats.paired(d, order_of(8))
    assert estimate.method == "signed-rank"
    for margin in (-0.01, 0.0, 0.005, 0.009):
        expected = reference.wilcoxon(np.array(estimate.adjusted) - margin, alternative="greater", method="exact")
        assert stats.p_exceeds(estimate, margin) == pytest.approx(min(1.0, stats.LOOKED * float(expected.pvalue)))
    low = stats.lower_bound(estimate, 0.05)
    assert stats.p_exceeds(estimate, low - 1e-9) <= 0.05 < stats.p_exceeds(estimate, low + 1e-9)


@pytest.mark.parametrize(
    ("delta", "sd", "expected"),
    [(0.02, 0.01, 6), (0.02, 0.02, 12), (0.05, 0.03, 6), (0.05, 0.05, 12), (0.10, 0.08, 8), (0.03, 0.05, 26)],
)
def test_pairs_needed_is_the_published_table(delta: float, sd: float, expected: int) -> None:
    assert stats.pairs_needed(sd, math.log1p(delta), alpha=0.05 / stats.KEPT) == expected


def test_pairs_needed_says_when_it_is_hopeless() -> None:
    assert stats.pairs_needed(0.5, math.log1p(0.01), alpha=0.05) is None
    assert stats.pairs_needed(0.01, 0.0, alpha=0.05) is None


def test_margins_follow_their_formulas() -> None:
    estimate = stats.paired([0.02, -0.02, 0.02, -0.02, 0.02, -0.02], [1, 1, -1, -1, 1, -1])
    t95, t99, t90 = (reference.t.ppf(level, 4) for level in (0.95, 0.99, 0.90))
    assert stats.certifiable_margin(estimate, alpha=0.05) == pytest.approx(math.expm1((t95 + t90) * estimate.se))
    assert stats.blocking_effect(estimate, 0.05, alpha=0.01) == pytest.approx(
        math.expm1(0.05 + (t99 + t90) * estimate.se)
    )


def test_holm_steps_down() -> None:
    assert decision.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert decision.holm([]) == ()


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    for count in (1, 2, 7, 20):
        p = np.random.default_rng(count).random(count) ** 2
        assert decision.benjamini_hochberg(list(p)) == pytest.approx(reference.false_discovery_control(p))
    assert decision.benjamini_hochberg([]) == ()


def simulate(reps: int, n: int, sd: float, effect: float, seed: int, outliers: bool = False) -> tuple[float, float]:
    """Shares of runs whose 95 % upper and lower bounds cover the true effect."""
    random, order = np.random.default_rng(seed), np.array(order_of(n))
    covered = [0, 0]
    for _ in range(reps):
        d = effect + 0.01 * order + random.normal(0, sd, n)
        if outliers:
            d += random.choice([0.0, -10 * sd, 10 * sd], n, p=[0.9, 0.05, 0.05])
        estimate = stats.paired(d, order)
        covered[0] += stats.upper_bound(estimate, 0.05) >= effect
        covered[1] += stats.lower_bound(estimate, 0.05) <= effect
    return covered[0] / reps, covered[1] / reps


@pytest.mark.parametrize("n", [8, 10, 20])
@pytest.mark.slow
def test_hardly_any_normal_sample_looks_wild_and_every_spoiled_one_does(n: int) -> None:
    random, order = np.random.default_rng(n), np.array(order_of(n), dtype=np.float64)
    samples = random.normal(0.0, 1.0, (4000, n))
    wild = sum(stats.has_outlier(sample, order) for sample in samples)
    spoiled = samples + 60.0 * (np.arange(n) == 1)
    assert 0.005 <= wild / 4000 <= 0.03
    assert sum(stats.has_outlier(sample, order) for sample in spoiled) >= 0.98 * 4000


@pytest.mark.parametrize(("n", "outliers"), [(6, False), (10, True)])
@pytest.mark.slow
def test_bounds_cover_as_often_as_they_say(n: int, outliers: bool) -> None:
    for share in simulate(2000, n, 0.03, 0.02, seed=7, outliers=outliers):
        assert 0.93 <= share <= (0.995 if outliers else 0.97)


def test_false_alarms_at_the_margin_stay_below_alpha() -> None:
    random, margin, failed = np.random.default_rng(3), math.log1p(0.05), 0
    for _ in range(2000):
        estimate = stats.paired(random.normal(margin, 0.04, 6), ORDER)
        failed += stats.p_exceeds(estimate, margin) <= 0.01
    assert failed / 2000 <= 0.018


# Proportions


@pytest.mark.parametrize(("lost", "gained", "n", "drop"), [(1, 0, 44, 0.05), (7, 3, 100, -0.02), (0, 5, 60, 0.1)])
def test_tango_uses_the_constrained_maximum_likelihood(lost: int, gained: int, n: int, drop: float) -> None:
    """The score statistic's variance, with the nuisance share found by search instead of by the closed form."""
    q = np.linspace(max(0.0, -drop) + 1e-7, (1 - drop) / 2 - 1e-7, 400_001)
    terms = [(lost, q + drop), (gained, q), (n - lost - gained, 1 - 2 * q - drop)]
    likelihood = sum(count * np.log(share) for count, share in terms if count)
    best = float(q[int(np.argmax(likelihood))])
    expected = (lost - gained - n * drop) / math.sqrt(n * (2 * best + drop * (1 - drop)))
    assert stats.tango_statistic(lost, gained, n, drop) == pytest.approx(expected, rel=1e-3)


def test_tango_without_a_discordant_sample_still_has_width() -> None:
    low, high = stats.tango_bounds(0, 0, 1000, 0.05)
    z = float(reference.norm.ppf(0.95))
    assert high == pytest.approx(z**2 / (1000 + z**2), rel=1e-6)
    assert low == pytest.approx(-high, rel=1e-6)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(80, 400))
@settings(max_examples=60)
def test_tango_flips_when_the_arms_are_swapped_and_holds_the_estimate(lost: int, gained: int, n: int) -> None:
    low, high = stats.tango_bounds(lost, gained, n, 0.05)
    other_low, other_high = stats.tango_bounds(gained, lost, n, 0.05)
    assert (low, high) == pytest.approx((-other_high, -other_low), abs=1e-6)
    assert low <= (lost - gained) / n <= high


def test_tango_covers() -> None:
    random, n, missed = np.random.default_rng(11), 500, 0
    bounds: dict[tuple[int, int], float] = {}
    for lost, gained in random.multinomial(n, [0.03, 0.02, 0.95], 2000)[:, :2].tolist():
        if (lost, gained) not in bounds:
            bounds[lost, gained] = stats.tango_bounds(lost, gained, n, 0.05)[1]
        missed += bounds[lost, gained] < 0.01
    assert 0.03 <= missed / 2000 <= 0.07


def test_paired_drop_of_binary_scores() -> None:
    base, candidate = np.ones(1000), np.ones(1000)
    candidate[:30] = 0
    worse = stats.paired_drop(base, candidate, 0.01, alpha=0.05)
    assert worse.drop == pytest.approx(0.03)
    assert worse.method == "tango"
    assert worse.lower > 0.01
    assert worse.p_exceeds < 0.001
    same = stats.paired_drop(base, base, 0.01, alpha=0.05)
    assert 0 < same.upper < 0.01


def test_paired_drop_of_other_scores_uses_t_and_never_claims_certainty() -> None:
    random = np.random.default_rng(5)
    base = random.uniform(0.3, 0.7, 200)
    drop = stats.paired_drop(base, base - 0.02 + random.normal(0, 0.01, 200), 0.01, alpha=0.05)
    assert drop.method == "paired t"
    assert drop.lower > 0.015
    assert drop.p_exceeds < 1e-6
    same = stats.paired_drop(base, base, 0.01, alpha=0.05)
    assert same.upper == pytest.approx(1 - 0.05 ** (1 / 200))


def test_clopper_pearson_is_exact() -> None:
    assert stats.clopper_pearson(0, 300, 0.05)[1] == pytest.approx(1 - 0.05 ** (1 / 300))
    low, high = stats.clopper_pearson(7, 40, 0.05)
    assert reference.binom.sf(6, 40, low) == pytest.approx(0.05)
    assert reference.binom.cdf(7, 40, high) == pytest.approx(0.05)


def test_level_against_a_limit() -> None:
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0]
    level = stats.level(values, 2.0, alpha=0.05)
    assert level.upper < 2.0
    assert level.p_above > 0.99
    share = stats.level([1.0] * 90 + [0.0] * 10, 0.95, alpha=0.05)
    assert share.p_below == pytest.approx(float(reference.binom.cdf(90, 100, 0.95)))
    constant = stats.level([2.0, 2.0, 2.0], 1.0, alpha=0.05)
    assert (constant.p_above, constant.p_below) == (0.0, 1.0)
