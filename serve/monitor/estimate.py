"""Estimated quality without labels: what the accuracy would be under each kind of shift, and an interval that holds.

Two hypotheses explain inputs that moved: covariate shift (the same input still has the same answer) and label shift (a
class still looks the same, and is more or less frequent). Neither can be proven without labels, so the interval covers
both, and it widens with the part of the traffic that the reference did not have. Pure: `on_sklearn` finds the parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .quantities import Floats

_NORMAL = 1.96  # two-sided 95 %
_SEPARABLE = (
    0.9  # area under the curve of telling window from reference, beyond which weights are extrapolation: chosen
)
_EXTRAPOLATED = 0.02  # added to the half-width there
_MOVED = 3.0  # standard errors by which window and reference must differ, before label shift is considered
WIDEST = 0.2
"""Width of an interval, beyond which it says nothing that a decision could rest on: chosen."""
ASSUMES = "the answer to the same input has not changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypotheses:
    """The accuracy of one window by each hypothesis, with standard errors.

    `calibrated` takes the confidences as they were calibrated on the reference; its error is that of the calibration
    and of the window. `covariate` weights the reference to look like the window, `label` takes the classes' shares from
    the predictions. `separable` is the area under the curve of a classifier that tells the window from the reference,
    0.5 where nothing moved. `unsupported` is the share of the window where the reference had next to nothing.
    """

    rows: int
    calibrated: float
    calibrated_error: float
    covariate: float
    covariate_error: float
    label: float
    label_error: float
    separable: float
    separable_error: float
    unsupported: float

    @property
    def moved(self) -> bool:
        """Whether the window differs from the reference."""
        return self.separable - 0.5 > _MOVED * self.separable_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimated accuracy: the middle of its 95 % interval, which ends between 0 and 1.

    It rests on `assumes`, last checked with `labels` outcomes at `checked` (seconds of the Unix epoch, None: never
    since the baseline was learned).
    """

    value: float
    low: float
    high: float
    unsupported: float
    labels: int
    checked: float | None = None
    assumes: str = ASSUMES

    @property
    def tells(self) -> bool:
        """Whether the interval is narrow enough to decide by; otherwise the answer is that nobody can tell."""
        return self.high - self.low <= WIDEST


def estimated(found: Hypotheses, *, labels: int, checked: float | None = None) -> Estimate:
    """Return the interval that covers every hypothesis that the inputs leave open.

    Where the window does not differ from the reference, the calibrated accuracy holds, within 1.96 standard errors: of
    the window, and of the reference that it was calibrated on. Otherwise the half-width around covariate shift also has
    half of the part without support, and label shift is in the interval. What weighting changed widens both by half.
    """
    middle, error = found.calibrated, found.calibrated_error
    gap = abs(found.covariate - found.calibrated)
    half = 0.5 * gap
    if found.moved:
        middle, error = found.covariate, found.covariate_error
        half += 0.5 * found.unsupported + (_EXTRAPOLATED if found.separable > _SEPARABLE else 0.0)
    half += _NORMAL * error
    low, high = middle - half, middle + half
    if found.moved:
        low = min(low, found.label - _NORMAL * found.label_error)
        high = max(high, found.label + _NORMAL * found.label_error)
    low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(
        value=(low + high) / 2,
        low=low,
        high=high,
        unsupported=found.unsupported,
        labels=labels,
        checked=checked,
    )


def under_label_shift(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], window: NDArray[np.int64], classes: int
) -> tuple[float, float]:
    """Return the accuracy and its standard error if only the classes' shares changed.

    `truth` and `predicted` of the reference, shape [rows]; `window` the predictions of the window, shape [window rows].
    The shares follow from the predictions and the reference's confusion matrix (black-box shift estimation: Lipton,
    Wang and Smola, 2018), and a class keeps its recall.
    """
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (predicted, truth), 1.0)
    sizes = confusion.sum(axis=0)
    there = sizes > 0
    likelihood = confusion[:, there] / sizes[there]
    seen = np.bincount(window, minlength=classes) / len(window)
    shares = np.clip(np.linalg.lstsq(likelihood, seen, rcond=None)[0], 0.0, None)
    shares /= max(float(shares.sum()), 1e-12)
    recall = np.diag(confusion)[there] / sizes[there]
    accuracy = float(shares @ recall)
    of_recall = float((shares**2 * recall * (1 - recall) / sizes[there]).sum())
    spread = float((shares * (recall - accuracy) ** 2).sum()) / len(window)
    drawn = accuracy * (1 - accuracy) / len(window)
    return accuracy, float(np.sqrt(of_recall + _amplified(likelihood) * spread + drawn))


def _amplified(likelihood: Floats) -> float:
    """Return by how much the inverse of the confusion matrix amplifies noise of the predicted shares."""
    smallest = float(np.linalg.svd(likelihood, compute_uv=False)[-1])
    return 1 / max(smallest, 0.05) ** 2
