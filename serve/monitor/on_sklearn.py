"""Estimators of scikit-learn for quality without labels: calibration, and weights that make the reference look alike.

Reference and window are halved: a classifier learns on one half of each how they differ, and is asked about the other,
so that one that fits its own rows does not widen or narrow anything.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from .answering import LEAST, Codes, Labelled
from .estimate import Hypotheses, under_label_shift
from .quantities import Floats

_MOST_PRODUCTS = 30  # features, beyond which their products are left out
_HEAVIEST = 50.0  # times that a row of the reference counts
_BEYOND = 20.0  # times more frequent than in the reference: there is next to nothing to weight
_STRENGTH = 0.02  # inverse of the penalty of the classifier, which keeps weights near 1 where nothing moved


@dataclass(frozen=True, kw_only=True)
class Apart:
    """How a window differs from the reference, by a classifier that has not learned from the rows it is asked about.

    `inside` and `outside` are how many times more frequent each row of reference and window is in the window, shape
    [rows]. `separable` is the area under the curve of telling the two apart.
    """

    inside: Floats
    outside: Floats
    separable: float
    error: float


class Inputs:
    """Inputs of the reference with their squares and products, scaled, against which windows are held."""

    def __init__(self, features: Floats) -> None:
        self._products = PolynomialFeatures(2, include_bias=False) if features.shape[1] <= _MOST_PRODUCTS else None
        self._scale = StandardScaler().fit(self._shaped(features))
        self._reference = self._scale.transform(self._shaped(features))

    def apart(self, window: Floats, draw: np.random.Generator, weights: Floats | None = None) -> Apart:
        """Tell a window from the reference, whose rows count by `weights` where they are given.

        Raises:
            ValueError: fewer than two rows.
        """
        if len(window) < 2:
            raise ValueError("a window of at least two rows is needed")
        reference, inputs = self._reference, self._scale.transform(self._shaped(window))
        counts = np.ones(len(reference)) if weights is None else weights
        halves = [np.array_split(draw.permutation(len(each)), 2) for each in (reference, inputs)]
        inside, outside, areas = np.zeros(len(reference)), np.zeros(len(inputs)), list[float]()
        for learn, held in ((0, 1), (1, 0)):
            mine, rest = halves[0][learn], halves[0][held]
            model = LogisticRegression(C=_STRENGTH, max_iter=100, tol=1e-3)
            model.fit(
                np.concatenate([reference[mine], inputs[halves[1][learn]]]),
                np.repeat([0, 1], [len(mine), len(halves[1][learn])]),
                sample_weight=np.concatenate([counts[mine], np.ones(len(halves[1][learn]))]),
            )
            scores = [model.decision_function(each) for each in (reference[rest], inputs[halves[1][held]])]
            odds = counts[mine].sum() / len(halves[1][learn])
            inside[rest] = np.exp(np.clip(scores[0], -50, 50)) * odds
            outside[halves[1][held]] = np.exp(np.clip(scores[1], -50, 50)) * odds
            areas.append(
                roc_auc_score(
                    np.repeat([0, 1], [len(scores[0]), len(scores[1])]),
                    np.concatenate(scores),
                    sample_weight=np.concatenate([counts[rest], np.ones(len(scores[1]))]),
                )
            )
        effective = float(counts.sum() ** 2 / (counts**2).sum())
        error = float(np.sqrt((1 / effective + 1 / len(inputs)) / 12))
        return Apart(inside=inside, outside=outside, separable=float(np.mean(areas)), error=error)

    def _shaped(self, features: Floats) -> Floats:
        """Return features with their squares and products, shape [rows, terms]."""
        if self._products is None:
            return np.concatenate([features, features**2], axis=1)
        found: Floats = self._products.fit_transform(features)
        return found


class AccuracyEstimator:
    """The accuracy of windows without labels, by a reference with them."""

    def __init__(self, reference: Labelled, *, seed: int = 0) -> None:
        rows = len(reference.truth)
        if rows < LEAST:
            raise ValueError(f"{rows} labelled rows, and at least {LEAST} are needed")
        self._reference = reference
        self._draw = np.random.default_rng(seed)
        self._inputs = Inputs(reference.features)
        self._calibrated = calibration(reference.confidence, reference.correct)
        self._classes = int(max(reference.truth.max(), reference.predicted.max())) + 1

    def hypotheses(self, features: Floats, predicted: Codes, confidence: Floats) -> Hypotheses:
        """Return the accuracy of a window by each hypothesis; arrays as of `Labelled`, without outcomes.

        Raises:
            ValueError: fewer than two rows.
        """
        reference, rows = self._reference, len(predicted)
        apart = self._inputs.apart(features, self._draw)
        weights = np.clip(apart.inside, 0, _HEAVIEST)
        chance = calibration(reference.confidence, reference.correct, weights + 1e-6).predict(confidence)
        usual = self._calibrated.predict(confidence)
        effective = max(float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-12)), 10.0)
        classes = max(self._classes, int(predicted.max()) + 1)
        label, label_error = under_label_shift(reference.truth, reference.predicted, predicted, classes)
        return Hypotheses(
            rows=rows,
            calibrated=float(usual.mean()),
            calibrated_error=float(np.sqrt((usual * (1 - usual)).mean() * (1 / rows + 1 / len(reference.truth)))),
            covariate=float(chance.mean()),
            covariate_error=float(np.sqrt((chance * (1 - chance)).mean() * (1 / rows + 1 / effective))),
            label=label,
            label_error=label_error,
            separable=apart.separable,
            separable_error=apart.error,
            unsupported=float((apart.outside > _BEYOND).mean()),
        )


def calibration(confidence: Floats, correct: Floats, weights: Floats | None = None) -> IsotonicRegression:
    """Return the chance of being right as a rising function of the confidence."""
    return IsotonicRegression(out_of_bounds="clip").fit(confidence, correct, sample_weight=weights)
