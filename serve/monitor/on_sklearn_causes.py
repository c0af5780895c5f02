"""Estimators of scikit-learn for causes: the chance of each answer to be right, and signs of each kind of shift.

The chance is learned from inputs and confidence, on one half of the reference for the other, so that its own
residuals are as honest as those of a window.
"""

import numpy as np
from scipy.stats import binom
from sklearn.ensemble import HistGradientBoostingClassifier

from .answering import Codes, Labelled
from .attribution import Residual, Signs
from .on_sklearn import Inputs, calibration
from .quantities import Floats
from .segments import Masks, Segment

_BEYOND = 10.0  # times more frequent than in the reference, beyond which a label says nothing of concept drift
_FEWEST = 15  # labels of a segment


class Correctness:
    """The chance of an answer to be right, from its inputs and its confidence; `held_out` that of the reference's rows.

    Averages the two halves' models for rows that neither has seen.
    """

    def __init__(self, reference: Labelled, *, seed: int = 0) -> None:
        rows = len(reference.truth)
        halves = np.array_split(np.random.default_rng(seed).permutation(rows), 2)
        inputs, correct = _inputs(reference.features, reference.confidence), reference.correct
        self._models = [_fitted(inputs[half], correct[half]) for half in halves]
        self.held_out = np.zeros(rows)
        for model, half in zip(self._models, halves[::-1], strict=True):
            self.held_out[half] = _chance(model, inputs[half])

    def chance(self, features: Floats, confidence: Floats) -> Floats:
        """Return the chance of each row's answer to be right, shape [rows]."""
        inputs = _inputs(features, confidence)
        found: Floats = np.mean([_chance(model, inputs) for model in self._models], axis=0)
        return found


class CauseFinder:
    """Signs of each kind of shift, by a labelled reference; `masks` are its segments, shape [segments, rows]."""

    def __init__(
        self, reference: Labelled, segments: tuple[Segment, ...], masks: Masks, model: Correctness, *, seed: int = 0
    ) -> None:
        self._reference, self._segments, self._masks, self._model = reference, segments, masks, model
        self._inputs = Inputs(reference.features)
        self._draw = np.random.default_rng(seed)

    def signs(self, window: Labelled, masks: Masks, others: Floats) -> Signs:
        """Return the signs of a random sample with labels, and of `others`, features of the same time without, [n, f].

        Raises:
            ValueError: fewer than two labels.
        """
        labels = len(window.truth)
        everything = np.concatenate([window.features, others]) if len(others) else window.features
        apart = self._inputs.apart(everything, self._draw)
        shares, moved = self._shares(window.truth)
        given = self._inputs.apart(everything, self._draw, shares)
        inside = apart.outside[:labels] <= _BEYOND
        return Signs(
            labels=labels,
            supported=int(inside.sum()),
            inputs=(apart.separable - 0.5) / apart.error,
            given_classes=(given.separable - 0.5) / given.error,
            classes=moved,
            outcomes=self._misfit(window, shares),
            residuals=self._residuals(window, masks & inside, np.minimum(apart.inside, _BEYOND)),
        )

    def _shares(self, truth: Codes) -> tuple[Floats, float]:
        """Return the weights that give the reference the window's shares of classes, and how far the shares moved."""
        known = self._reference.truth
        classes = int(max(known.max(), truth.max())) + 1
        before, after = (np.bincount(each, minlength=classes) / len(each) for each in (known, truth))
        error = np.sqrt(np.maximum(before * (1 - before), 1e-4) * (1 / len(truth) + 1 / len(known)))
        weights = after / np.maximum(before, 1e-9)
        return np.maximum(weights[known], 1e-6), float((np.abs(after - before) / error).max())

    def _misfit(self, window: Labelled, weights: Floats) -> float:
        """Return how far errors differ from what the reference expects once its classes have the window's shares."""
        reference = self._reference
        chance = np.full(len(window.truth), np.nan)
        for answer in np.unique(window.predicted):
            mine, theirs = window.predicted == answer, reference.predicted == answer
            if theirs.sum() >= 2:
                scale = calibration(reference.confidence[theirs], reference.correct[theirs], weights[theirs])
                chance[mine] = scale.predict(window.confidence[mine])
        known = np.isfinite(chance)
        spread = np.sqrt(max(float((chance * (1 - chance))[known].sum()), 1.0))
        return float(abs((window.correct - chance)[known].sum()) / spread) + float((~known).mean() * 10)

    def _residuals(self, window: Labelled, masks: Masks, weights: Floats) -> tuple[Residual, ...]:
        """Return the errors beyond what inputs explain; the reference's own residual, weighted, is taken off."""
        wrong = 1 - self._model.chance(window.features, window.confidence)
        own = (1 - self._reference.correct) - (1 - self._model.held_out)
        found = []
        for segment, mine, theirs in zip(self._segments, masks, self._masks, strict=True):
            count = int(mine.sum())
            if count < _FEWEST or not theirs.any():
                continue
            weight = weights[theirs]
            bias = float((weight * own[theirs]).sum() / weight.sum())
            unsure = float(np.sqrt((weight**2 * own[theirs] ** 2).sum()) / weight.sum())
            expected = float(np.clip(wrong[mine].mean() + bias + unsure, 0.01, 0.99))
            errors = int((1 - window.correct)[mine].sum())
            found.append(
                Residual(
                    segment=str(segment),
                    labels=count,
                    observed=errors / count,
                    expected=expected,
                    chance=float(binom.sf(errors - 1, count, expected)),
                )
            )
        return tuple(found)


def _inputs(features: Floats, confidence: Floats) -> Floats:
    return np.concatenate([features, confidence[:, None]], axis=1)


def _fitted(inputs: Floats, correct: Floats) -> HistGradientBoostingClassifier | float:
    """Return a model of the chance to be right; the share itself where all are right, or all wrong."""
    if correct.min() == correct.max():
        return float(correct.mean())
    model = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=40, l2_regularization=1.0, random_state=0
    )
    return model.fit(inputs, correct)


def _chance(model: HistGradientBoostingClassifier | float, inputs: Floats) -> Floats:
    found: Floats = np.full(len(inputs), model) if isinstance(model, float) else model.predict_proba(inputs)[:, 1]
    return found
