"""Calibration: whether a model's confidence is the share of its answers that are right. Pure.

ECE with equal-mass bins (Nguyen & O'Connor 2015; Nixon et al. 2019): bins of equal width leave most bins of a
confident model empty. A perfectly calibrated model still has an ECE of the order of ``sqrt(bins / n)`` from sampling
alone, which cancels between arms and not in a level.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from seatrial.optimize.samples import Samples

from ..checks import Check, Plot, informational
from .evidence import Evidence, class_labels, named_arms
from .metrics import predicted
from .quantities import Array, Quantity, Scores, SetStatistic

_UNPROMPTED: tuple[Literal["ece", "nll"], ...] = ("ece", "nll")
_SUM = 1e-3  # rows of probabilities add up to 1 within this


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCheck(Check):
    """Calibration of confidence: expected calibration error over equal-mass bins, Brier score, or NLL."""

    kind: Literal["calibration"] = "calibration"
    statistic: Literal["ece", "brier", "nll"] = "ece"
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    output: str | None = None

    @property
    def label(self) -> str:
        return f"calibration {self.statistic}"

    @property
    def higher_is_better(self) -> bool:
        return False

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """ECE as a set statistic, Brier score and NLL as per-sample scores; lower is better.

        Raises:
            SourceError: no class labels, or no row of outputs per sample.
        """
        known = evidence.classes()
        first, second = (None if each is None else probabilities(each) for each in evidence.outputs(self.output))
        if second is None:
            raise ValueError("the candidate has no answers")
        if self.statistic == "ece":
            return SetStatistic(
                name="ece",
                base=None if first is None else ece_rows(first, known, self.bins),
                candidate=ece_rows(second, known, self.bins),
                combine=ece,
                higher_is_better=False,
            )
        score = brier if self.statistic == "brier" else negative_log_likelihood
        return Scores(
            name=self.statistic,
            base=None if first is None else score(first, known),
            candidate=score(second, known),
            higher_is_better=False,
        )

    def note(self, evidence: Evidence) -> str:
        """Return the best temperature."""
        _, output = evidence.outputs(self.output)
        return f" The best temperature for its logits is {temperature(output, evidence.classes()):.2f}."

    def plot(self, evidence: Evidence) -> Plot:
        """Return the reliability diagram of both arms."""
        from . import on_plotly

        known = evidence.classes()
        arms = named_arms(evidence.outputs(self.output))
        return Plot(
            title="Reliability",
            lead="Confidence against accuracy, in bins of equal size. Points below the line are overconfident.",
            data={name: reliability(output, known, self.bins) for name, output in arms.items()},
            draw=on_plotly.reliability,
        )

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[CalibrationCheck, ...]":
        """Return ECE and NLL where labels are classes."""
        rule = informational(against=against, low=True)
        return tuple(cls(statistic=each, **rule) for each in _UNPROMPTED) if class_labels(samples) else ()


def probabilities(output: Array) -> Array:
    """Rows that are probabilities already as they are, logits through softmax, one logit through a sigmoid."""
    predicted(output)
    if output.shape[1] == 1:
        output = np.concatenate([np.zeros_like(output), output], axis=1)
    if ((output >= 0) & (output <= 1 + _SUM)).all() and np.allclose(output.sum(axis=1), 1, atol=_SUM):
        return output
    return softmax(output)


def softmax(logits: Array) -> Array:
    """Softmax over the last axis; infinite logits share a row, and a row of nothing but minus infinity is uniform."""
    peak = logits.max(axis=-1, keepdims=True)
    bounded = np.where(np.isfinite(peak), logits, np.where(logits == peak, 0.0, -np.inf))
    shifted = np.exp(bounded - np.where(np.isfinite(peak), peak, 0.0))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def ece_rows(given: Array, known: Array, bins: int) -> Array:
    """Per sample: right minus confidence, in the column of its bin; float [n, bins]. Bins hold equally many samples."""
    confidence = given.max(axis=1)
    gap = (given.argmax(axis=1) == known) - confidence
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    return np.asarray(np.eye(bins)[np.searchsorted(edges, confidence, side="right")] * gap[:, None])


def ece(means: Array) -> Array:
    """Expected calibration error: the bins' absolute gaps, weighted by their share of samples."""
    return np.asarray(np.abs(means).sum(axis=-1))


def brier(given: Array, known: Array) -> Array:
    """Squared distance between the probabilities and the truth, per sample (0 to 2)."""
    truth = np.eye(given.shape[1])[known]
    return np.asarray(((given - truth) ** 2).sum(axis=1))


def negative_log_likelihood(given: Array, known: Array) -> Array:
    """Minus the logarithm of the label's probability, per sample; probabilities below 1e-12 count as that."""
    return np.asarray(-np.log(np.maximum(given[np.arange(len(known)), known], 1e-12)))


def temperature(output: Array, known: Array) -> float:
    """The factor by which dividing the logits minimises the NLL (Guo et al. 2017): above 1 where overconfident."""
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities(output), 1e-12))
    found = minimize_scalar(partial(_nll_at, logits, known), bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def _nll_at(logits: Array, known: Array, log_temperature: float) -> float:
    """Return the mean negative log-likelihood, in nats, of logits [n, classes] and labels [n] at a temperature."""
    return float(negative_log_likelihood(softmax(logits / np.exp(log_temperature)), known).mean())


def reliability(output: Array, known: Array, bins: int) -> tuple[Array, Array]:
    """Mean confidence and share right of each equal-mass bin, for a plot; empty bins are left out."""
    given = probabilities(output)
    confidence, right = given.max(axis=1), given.argmax(axis=1) == known
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    where = np.searchsorted(edges, confidence, side="right")
    used = np.unique(where)
    return np.array([confidence[where == b].mean() for b in used]), np.array([right[where == b].mean() for b in used])
