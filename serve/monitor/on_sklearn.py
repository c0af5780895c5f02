"""Estimators of scikit-learn for quality without labels: calibration, and weights that make the reference look alike.

The reference is halved: one half learns the weights, the other is weighted, and then the other way round, so that a
classifier that fits its own rows does not widen or narrow anything.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from .estimate import Hypotheses, under_label_shift
from .quantities import Floats

Places = NDArray[np.int64]
LEAST = 1000  # labelled rows of a reference, below which no calibration is worth the name: chosen
_MOST_PRODUCTS = 30  # features, beyond which their products are left out
_HEAVIEST = 50.0  # times that a row of the reference counts
_BEYOND = 20.0  # times more frequent than in the reference: there is next to nothing to weight
_STRENGTH = 0.02  # inverse of the penalty of the classifier, which keeps weights near 1 where nothing moved


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Answers whose outcome is known: `features` of shape [rows, features], `predicted` and `truth` classes of shape
    [rows], and `confidence`, the probability that the model gave to its prediction.
    """

    features: Floats
    predicted: NDArray[np.int64]
    confidence: Floats
    truth: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Half:
    """What one half of the reference says: the chance of each row to be right, shape [window rows], and the fit."""

    chance: Floats
    effective: float
    separable: float
    unsupported: float


class AccuracyEstimator:
    """The accuracy of windows without labels, by a reference with them."""

    def __init__(self, reference: Labelled, *, seed: int = 0) -> None:
        rows = len(reference.truth)
        if rows < LEAST:
            raise ValueError(f"{rows} labelled rows, and at least {LEAST} are needed")
        self._reference = reference
        self._draw = np.random.default_rng(seed)
        order = self._draw.permutation(rows)
        self._halves = (order[: rows // 2], order[rows // 2 :])
        products = reference.features.shape[1] <= _MOST_PRODUCTS
        self._shape = PolynomialFeatures(2, include_bias=False) if products else None
        self._scale = StandardScaler().fit(self._shaped(reference.features))
        self._inputs = self._scale.transform(self._shaped(reference.features))
        self._correct = (reference.predicted == reference.truth).astype(np.float64)
        self._calibrated = _calibration(reference.confidence, self._correct)
        self._classes = int(max(reference.truth.max(), reference.predicted.max())) + 1

    def hypotheses(self, features: Floats, predicted: NDArray[np.int64], confidence: Floats) -> Hypotheses:
        """Return the accuracy of a window by each hypothesis; arrays as of `Labelled`, without outcomes.

        Raises:
            ValueError: fewer than two rows.
        """
        if len(predicted) < 2:
            raise ValueError("a window of at least two rows is needed")
        rows = len(predicted)
        inputs = self._scale.transform(self._shaped(features))
        order = self._draw.permutation(rows)
        halves = (order[: rows // 2], order[rows // 2 :])
        one = self._weighted(self._halves[0], self._halves[1], inputs, halves, confidence)
        other = self._weighted(self._halves[1], self._halves[0], inputs, halves[::-1], confidence)
        both = (one, other)
        chance = (one.chance + other.chance) / 2
        effective = max(one.effective + other.effective, 10.0)
        label, label_error = under_label_shift(
            self._reference.truth, self._reference.predicted, predicted, max(self._classes, int(predicted.max()) + 1)
        )
        return Hypotheses(
            rows=rows,
            calibrated=float(self._calibrated.predict(confidence).mean()),
            covariate=float(chance.mean()),
            covariate_error=float(np.sqrt((chance * (1 - chance)).mean() * (1 / rows + 1 / effective))),
            label=label,
            label_error=label_error,
            separable=float(np.mean([each.separable for each in both])),
            separable_error=float(np.sqrt((1 / len(self._inputs) + 1 / rows) / 12)),
            unsupported=float(np.mean([each.unsupported for each in both])),
        )

    def _weighted(
        self,
        learn: Places,
        held: Places,
        window: Floats,
        halves: tuple[Places, Places],
        confidence: Floats,
    ) -> "_Half":
        """Learn weights from one half of the reference and of the window, and apply them to the other ones."""
        mine, rest = halves
        model = LogisticRegression(C=_STRENGTH, max_iter=100, tol=1e-3)
        both = np.concatenate([self._inputs[learn], window[mine]])
        model.fit(both, np.repeat([0, 1], [len(learn), len(mine)]))
        odds = len(learn) / len(mine)
        inside, outside = model.decision_function(self._inputs[held]), model.decision_function(window[rest])
        weights = np.clip(np.exp(np.clip(inside, -50, 50)) * odds, 0, _HEAVIEST)
        scaled = _calibration(self._reference.confidence[held], self._correct[held], weights + 1e-6)
        labels = np.repeat([0, 1], [len(inside), len(outside)])
        return _Half(
            chance=scaled.predict(confidence),
            effective=float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-12)),
            separable=float(roc_auc_score(labels, np.concatenate([inside, outside]))),
            unsupported=float((np.exp(np.clip(outside, -50, 50)) * odds > _BEYOND).mean()),
        )

    def _shaped(self, features: Floats) -> Floats:
        """Return features with their squares and products, shape [rows, terms]."""
        if self._shape is None:
            return np.concatenate([features, features**2], axis=1)
        found: Floats = self._shape.fit_transform(features)
        return found


def _calibration(confidence: Floats, correct: Floats, weights: Floats | None = None) -> IsotonicRegression:
    """Return the chance of being right as a rising function of the confidence."""
    return IsotonicRegression(out_of_bounds="clip").fit(confidence, correct, sample_weight=weights)
