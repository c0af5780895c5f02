"""The task metrics that this project has, one class each. Pure."""

from typing import ClassVar

import numpy as np

from seatrial.optimize.errors import ConfigError

from .evidence import Evidence
from .metrics import (
    MetricCheck,
    TaskMetric,
    confusion_rows,
    f1_macro,
    neighbours,
    predicted,
    r2,
    regression_rows,
    rmse,
    targets,
)
from .quantities import Array, Quantity, Scores, SetStatistic

_MOST = 20_000_000  # samples times classes that F1 is computed over: half a gigabyte


class Score(TaskMetric):
    """The recipe's own metric."""

    name: ClassVar[str] = "score"

    def quantity(self, check: MetricCheck, evidence: Evidence) -> Quantity:
        """Return the scores that were taken with the outputs."""
        base, candidate = evidence.scores()
        return Scores(name="score", base=base, candidate=candidate)


class Accuracy(TaskMetric):
    """Share of samples whose class is right."""

    name: ClassVar[str] = "accuracy"

    def scores(self, check: MetricCheck, output: Array, evidence: Evidence) -> Array:
        """Return 1 where the highest output is the label's, else 0: [n, classes] gives [n]."""
        known = evidence.classes()
        return np.asarray(predicted(output) == known, dtype=np.float64)


class TopK(TaskMetric):
    """Share of samples whose class is among the `k` highest outputs."""

    name: ClassVar[str] = "top_k"
    takes_k: ClassVar[bool] = True

    def scores(self, check: MetricCheck, output: Array, evidence: Evidence) -> Array:
        """Return 1 where the label is among the `k` highest outputs, else 0: [n, classes] gives [n]."""
        known = evidence.classes()
        predicted(output)
        best = np.argsort(-output, axis=1, kind="stable")[:, : check.k]
        return np.asarray((best == known[:, None]).any(axis=1), dtype=np.float64)


class F1Macro(TaskMetric):
    """Unweighted mean of the classes' F1."""

    name: ClassVar[str] = "f1_macro"

    def quantity(self, check: MetricCheck, evidence: Evidence) -> Quantity:
        """Return F1 as a function of means.

        Raises:
            ConfigError: too many samples and classes.
        """
        first, second = evidence.outputs(check.output)
        known = evidence.classes()
        count = int(max(known.max() + 1, second.shape[-1]))
        if len(known) * count > _MOST:
            raise ConfigError(f"{len(known)} samples of {count} classes are too many for F1", where=check.label)
        return SetStatistic(
            name="f1_macro",
            base=None if first is None else confusion_rows(predicted(first), known, count),
            candidate=confusion_rows(predicted(second), known, count),
            combine=f1_macro,
            higher_is_better=True,
        )


class Rmse(TaskMetric):
    """Root mean squared error."""

    name: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def quantity(self, check: MetricCheck, evidence: Evidence) -> Quantity:
        """Return it as a function of means."""
        first, second = evidence.outputs(check.output)
        return SetStatistic(
            name=self.name,
            base=None if first is None else regression_rows(first, evidence.labels),
            candidate=regression_rows(second, evidence.labels),
            combine=r2 if self.higher_is_better else rmse,
            higher_is_better=self.higher_is_better,
        )


class R2(Rmse):
    """Coefficient of determination."""

    name: ClassVar[str] = "r2"
    higher_is_better: ClassVar[bool] = True


class Mae(TaskMetric):
    """Mean absolute error."""

    name: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False

    def scores(self, check: MetricCheck, output: Array, evidence: Evidence) -> Array:
        """Return the mean absolute error of each sample in the target's unit: [n, ...] gives [n]."""
        known, given = targets(output, evidence.labels)
        return np.asarray(np.abs(given - known).mean(axis=1))


class Retrieval(TaskMetric):
    """Share of samples with a neighbour of the same label among the `k` nearest."""

    name: ClassVar[str] = "retrieval"
    takes_k: ClassVar[bool] = True

    def scores(self, check: MetricCheck, output: Array, evidence: Evidence) -> Array:
        """Return 1 where one of the `k` nearest samples has the same label, else 0: [n, size] gives [n]."""
        known = evidence.classes()
        if len(known) <= check.k:
            raise ConfigError(f"{len(known)} samples are too few for {check.k} neighbours each", where=check.label)
        return neighbours(output, known, check.k)
