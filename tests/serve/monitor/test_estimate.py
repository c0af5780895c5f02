"""Estimated accuracy: the interval covers what is realised under shifts, and says where it cannot."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from seatrial.serve.monitor.answering import Labelled
from seatrial.serve.monitor.estimate import Estimate, Hypotheses, estimated, under_label_shift
from seatrial.serve.monitor.on_sklearn import AccuracyEstimator
from seatrial.serve.monitor.quantities import Floats


def drawn(rows: int, seed: int, *, shift: float = 0.0, prior: float | None = None) -> tuple[Floats, NDArray[np.int64]]:
    """Inputs of shape [rows, 4] and their class: one input matters, and the border bends."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(rows * (6 if prior is not None else 1), 4))
    inputs[:, 0] += shift
    chance = 1 / (1 + np.exp(-(1.5 * inputs[:, 0] + inputs[:, 1] * inputs[:, 2])))
    truth = (random.random(len(inputs)) < chance).astype(np.int64)
    if prior is not None:
        wanted = random.random(rows) < prior
        places = [np.flatnonzero(truth == each) for each in (0, 1)]
        chosen = np.where(wanted, random.choice(places[1], rows), random.choice(places[0], rows))
        return inputs[chosen], truth[chosen]
    return inputs, truth


@cache
def model() -> LogisticRegression:
    return LogisticRegression().fit(*drawn(4000, 1))


def answered(inputs: Floats) -> tuple[NDArray[np.int64], Floats]:
    chances = model().predict_proba(inputs)
    return chances.argmax(axis=1).astype(np.int64), chances.max(axis=1)


@cache
def estimator(seed: int = 2) -> AccuracyEstimator:
    inputs, truth = drawn(8000, seed)
    predicted, confidence = answered(inputs)
    return AccuracyEstimator(Labelled(features=inputs, predicted=predicted, confidence=confidence, truth=truth))


def judged(seed: int, *, shift: float = 0.0, prior: float | None = None) -> tuple[Estimate, float]:
    """The estimate of a window of 1,000 rows, and the accuracy that it really had."""
    inputs, truth = drawn(1000, seed, shift=shift, prior=prior)
    predicted, confidence = answered(inputs)
    found = estimated(estimator(2 + seed % 6).hypotheses(inputs, predicted, confidence), labels=8000)
    return found, float((predicted == truth).mean())


@pytest.mark.parametrize(("shift", "prior"), [(0.0, None), (0.5, None), (1.0, None), (2.0, None), (0.0, 0.8)])
@pytest.mark.slow
def test_the_interval_covers_what_is_realised(shift: float, prior: float | None) -> None:
    found = [judged(100 + seed, shift=shift, prior=prior) for seed in range(36)]
    assert sum(estimate.low <= real <= estimate.high for estimate, real in found) >= 31
    if not shift and prior is None:
        assert max(estimate.high - estimate.low for estimate, _ in found) < 0.08
        assert all(estimate.tells for estimate, _ in found)


def test_far_outside_the_reference_it_cannot_tell() -> None:
    found, _ = judged(5, shift=6.0)
    assert found.unsupported > 0.3
    assert not found.tells
    assert 0 <= found.low <= found.high <= 1
    assert found.assumes == "the answer to the same input has not changed"


def test_label_shift_keeps_the_recall_of_each_class() -> None:
    truth = np.repeat([0, 1], [500, 500])
    predicted = np.where(np.arange(1000) % 10 == 0, 1 - truth, truth)  # nine of ten are right, in each class
    predicted[:250] = 0
    window = np.repeat([0, 1], [100, 900])
    accuracy, error = under_label_shift(truth, predicted, window, 3)
    recall = [(predicted[truth == each] == each).mean() for each in (0, 1)]
    assert min(recall) <= accuracy <= max(recall)
    assert 0 < error < 0.2


def test_what_weighting_changed_widens_the_interval() -> None:
    still = Hypotheses(
        rows=1000,
        calibrated=0.8,
        calibrated_error=0.01,
        covariate=0.8,
        covariate_error=0.01,
        label=0.6,
        label_error=0.01,
        separable=0.5,
        separable_error=0.01,
        unsupported=0.0,
    )
    quiet = estimated(still, labels=1)
    assert quiet.low == pytest.approx(0.8 - 0.0196)
    assert quiet.high == pytest.approx(0.8 + 0.0196)
    moved = estimated(replace(still, separable=0.6), labels=1)
    assert moved.low == pytest.approx(0.6 - 0.0196)
    assert moved.high == quiet.high
    assert estimated(replace(still, calibrated=0.7), labels=1).low < quiet.low


def test_too_few_rows_are_refused() -> None:
    inputs, truth = drawn(50, 1)
    few = Labelled(features=inputs, predicted=truth, confidence=np.ones(50), truth=truth)
    with pytest.raises(ValueError, match="at least 1000"):
        AccuracyEstimator(few)
    with pytest.raises(ValueError, match="at least two rows"):
        estimator().hypotheses(inputs[:1], truth[:1], np.ones(1))
