"""Quantities against their laws: oracles of scikit-learn and scipy, coverage by simulation, published examples."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics as sklearn_metrics

from seatrial.bench.quality import calibration, drift, fairness, metrics
from seatrial.bench.quality.quantities import Scores, SetStatistic, Worst

Array = np.ndarray[Any, np.dtype[Any]]
seeds = st.integers(0, 2**32 - 1)


def labelled(seed: int, n: int = 200, classes: int = 4) -> tuple[Array, Array]:
    """Labels and logits that are often right."""
    random = np.random.default_rng(seed)
    known = random.integers(0, classes, n)
    return known, random.normal(size=(n, classes)) + 1.5 * np.eye(classes)[known]


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_metrics_are_scikit_learn_s(seed: int) -> None:
    known, logits = labelled(seed)
    chosen = metrics.predicted(logits)
    rows = metrics.confusion_rows(chosen, known, 4)
    assert math.isclose(
        float(metrics.f1_macro(rows.mean(axis=0))), sklearn_metrics.f1_score(known, chosen, average="macro")
    )
    target, output = logits[:, 0] * 3 + 1000, logits[:, :1] + 1000
    rows = metrics.regression_rows(output, target)
    assert math.isclose(float(metrics.r2(rows.mean(axis=0))), sklearn_metrics.r2_score(target, output[:, 0]))
    assert math.isclose(
        float(metrics.rmse(rows.mean(axis=0))), sklearn_metrics.root_mean_squared_error(target, output[:, 0])
    )
    given_ = calibration.probabilities(logits)
    assert math.isclose(
        float(calibration.negative_log_likelihood(given_, known).mean()), sklearn_metrics.log_loss(known, given_)
    )


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_drift_is_scipy_s_and_zero_for_equal_answers(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.normal(size=40), random.normal(0.3, 1, size=40)
    ours = float(drift.ks(drift.threshold_rows(one, other).mean(axis=0)))
    whole = scipy_stats.ks_2samp(one, other).statistic
    assert whole - 2 / 40 <= ours <= whole + 1e-12  # fifty thresholds for eighty values
    left, right = labelled(seed)[1], labelled(seed + 1)[1]
    means = drift.class_rows(left, right).mean(axis=0)
    p, q = np.split(means, 2)
    from scipy.spatial.distance import jensenshannon

    assert math.isclose(float(drift.jensen_shannon(means)), jensenshannon(p, q, base=2) ** 2, abs_tol=1e-12)
    assert float(drift.jensen_shannon(drift.class_rows(left, left).mean(axis=0))) == 0
    assert float(drift.psi(drift.bin_rows(one, one).mean(axis=0))) == 0
    assert np.allclose(drift.cosine(left, 3 * left), 1)
    assert (drift.cosine(np.zeros((3, 2)), np.zeros((3, 2))) == 1).all()


def test_neighbours_of_separated_clusters_are_their_own() -> None:
    vectors = np.repeat(np.eye(3), 5, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(15, 3))
    known = np.repeat(np.arange(3), 5)
    assert metrics.neighbours(vectors, known, 1).all()
    assert not metrics.neighbours(vectors, np.arange(15), 3).any()


def test_temperature_finds_the_factor_that_made_the_model_overconfident() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (6000, 4))
    known = np.array([random.choice(4, p=row) for row in calibration.softmax(logits)])
    assert calibration.temperature(logits, known) == pytest.approx(1.0, rel=0.1)
    assert calibration.temperature(2.5 * logits, known) == pytest.approx(2.5, rel=0.1)
    honest, loud = (
        float(calibration.ece(calibration.ece_rows(calibration.softmax(each), known, 15).mean(axis=0)))
        for each in (logits, 2.5 * logits)
    )
    assert honest < 0.03 < 0.1 < loud


@given(seeds, st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_ece_lies_between_the_overall_gap_and_one(seed: int, bins: int) -> None:
    known, logits = labelled(seed)
    given_ = calibration.probabilities(logits)
    value = float(calibration.ece(calibration.ece_rows(given_, known, bins).mean(axis=0)))
    overall = abs((given_.argmax(axis=1) == known).mean() - given_.max(axis=1).mean())
    assert overall - 1e-12 <= value <= 1


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_bootstrapped_change_covers_the_truth(loss: float) -> None:
    """F1 of two models on the same samples, classes alike, so F1 is accuracy: bounds miss in 5 % on either side."""
    missed, early = 0, 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        known = random.integers(0, 2, 300)
        hard = random.random(300)
        base = np.where(hard < 0.2, 1 - known, known)
        candidate = np.where(random.permutation(hard) < 0.2 + loss, 1 - known, known)
        rows = [metrics.confusion_rows(each, known, 2) for each in (base, candidate)]
        found = SetStatistic(
            name="f1", base=rows[0], candidate=rows[1], combine=metrics.f1_macro, higher_is_better=True
        ).worsening(loss, 0.05)
        missed += not found.lower <= loss <= found.upper
        early += found.p <= 0.05
    assert missed <= 20  # 10 expected; P(more than 20 of 100) = 0.1 %
    assert early <= 12  # 5 expected; P(more than 12) = 0.2 %


def test_newcombe_s_published_example() -> None:
    low, high = fairness.newcombe(56, 70, 48, 80, float(scipy_stats.norm.ppf(0.975)))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@given(st.integers(0, 60), st.integers(0, 40), st.floats(-0.9, 0.9))
@settings(deadline=None)
def test_a_gap_s_p_value_agrees_with_its_bound(successes: int, others: int, limit: float) -> None:
    one = Scores(name="one", base=None, candidate=(np.arange(60) < successes).astype(float))
    other = Scores(name="other", base=None, candidate=(np.arange(40) < others).astype(float))
    found = fairness.Gap(high=one, low=other).level(limit, 0.05)
    assert found.lower <= found.value + 1e-12
    assert found.value <= found.upper + 1e-12
    if abs(found.lower - limit) > 1e-6:
        assert (found.p < 0.05) == (found.lower > limit)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), seeds)
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
def test_the_worst_passes_only_where_each_part_would_and_fails_only_after_correction(
    rates: list[float], seed: int
) -> None:
    random = np.random.default_rng(seed)
    parts = [
        Scores(
            name=str(rate),
            base=(random.random(50) < 0.8).astype(float),
            candidate=(random.random(50) < rate).astype(float),
        )
        for rate in rates
    ]
    worst = Worst(name="worst", parts=parts)
    whole, each = worst.worsening(0.1, 0.05), [part.worsening(0.1, 0.05) for part in parts]
    assert whole.upper == max(one.upper for one in each)
    assert whole.p == min(1.0, len(parts) * min(one.p for one in each))
    assert whole.lower <= max(one.lower for one in each)
    level, levels = worst.level(0.5, 0.05), [part.level(0.5, 0.05) for part in parts]
    assert level.lower == min(one.lower for one in levels)
    assert level.upper >= min(one.upper for one in levels)


@pytest.mark.parametrize("n", [50, 500])
def test_answers_that_never_differ_are_not_thereby_known_exactly(n: int) -> None:
    known = np.arange(n) % 3
    rows = metrics.confusion_rows(known, known, 3)
    found = SetStatistic(
        name="f1", base=rows, candidate=rows, combine=metrics.f1_macro, higher_is_better=True
    ).worsening(0.01, 0.05)
    assert found.upper == pytest.approx(1 - 0.05 ** (1 / n))  # the rule of three
    assert found.p == 1
    loss = np.random.default_rng(n).normal(size=n)
    same = Scores(name="loss", base=loss, candidate=loss, higher_is_better=False).worsening(0.01, 0.05)
    assert same.upper == -same.lower == pytest.approx(found.upper)
