"""Task metrics as quantities: means of per-sample scores where they are that, functions of means where they are not.

Pure. The metrics themselves are `task_metrics`, one of another package is an entry point of the group
``seatrial.metrics``. Held against scikit-learn in the tests; not computed by it, because intervals need hundreds of
resamples.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from seatrial.optimize.errors import SourceError
from seatrial.optimize.registry import Registry, instance_of
from seatrial.optimize.samples import Samples

from ..checks import Check, informational
from ..metrics import GROUP
from .evidence import Evidence, class_labels
from .quantities import Array, Quantity, Scores

_OURS = "seatrial.bench.quality.task_metrics"
_ANOTHER = "choose an output that is finite"
_BLOCK = 256  # rows of the similarity matrix at once


class TaskMetric:
    """Base of all task metrics: a number over outputs and labels, by default the mean of `scores` per sample.

    `takes_k` says that the check's `k` matters.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    takes_k: ClassVar[bool] = False

    def scores(self, check: "MetricCheck", output: Array, evidence: Evidence) -> Array:
        """Return one number per sample, float [n].

        Raises:
            SourceError: labels or outputs are not what the metric is about.
        """
        raise NotImplementedError

    def quantity(self, check: "MetricCheck", evidence: Evidence) -> Quantity:
        """Return what is judged, of both arms."""
        first, second = evidence.outputs(check.output)
        base = None if first is None else self.scores(check, first, evidence)
        candidate = self.scores(check, second, evidence)
        return Scores(name=self.name, base=base, candidate=candidate, higher_is_better=self.higher_is_better)


TASK_METRICS: Registry[TaskMetric] = Registry(
    "metric",
    GROUP,
    {
        "score": f"{_OURS}:Score",
        "accuracy": f"{_OURS}:Accuracy",
        "top_k": f"{_OURS}:TopK",
        "f1_macro": f"{_OURS}:F1Macro",
        "rmse": f"{_OURS}:Rmse",
        "mae": f"{_OURS}:Mae",
        "r2": f"{_OURS}:R2",
        "retrieval": f"{_OURS}:Retrieval",
    },
    instance_of(TaskMetric),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCheck(Check):
    """A task metric; `score` is the recipe's own. `k` belongs to top_k and retrieval (a neighbour with the label)."""

    kind: Literal["metric"] = "metric"
    metric: str = "score"
    k: Annotated[int, Field(ge=1)] = 5
    output: str | None = None

    def __post_init__(self) -> None:
        TASK_METRICS.get(self.metric, where="checks")
        Check.__post_init__(self)

    @property
    def label(self) -> str:
        return f"metric {self.metric}" + (f" k={self.k}" if TASK_METRICS.get(self.metric).takes_k else "")

    @property
    def higher_is_better(self) -> bool:
        return TASK_METRICS.get(self.metric).higher_is_better

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The metric that the check names, over the clean samples.

        Raises:
            SourceError: labels or outputs are not what the metric is about.
        """
        return TASK_METRICS.get(self.metric).quantity(self, evidence)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[MetricCheck, ...]":
        """Return the recipe's score, and F1 where labels are classes."""
        rule = informational(against=against)
        names = ("score", "f1_macro") if class_labels(samples) else ("score",)
        return tuple(cls(metric=name, **rule) for name in names)


def predicted(output: Array) -> Array:
    """The class with the highest output; where there is a single output, whether it is positive.

    Raises:
        SourceError: the output is not one row of numbers per sample.
    """
    if output.ndim != 2:
        raise SourceError(
            f"this check needs an output of shape [n, classes], got {list(output.shape)}",
            next_step="choose another output",
        )
    if output.shape[1] == 1:
        return np.asarray(output[:, 0] > 0, dtype=np.int64)
    return np.asarray(output.argmax(axis=1), dtype=np.int64)


def confusion_rows(chosen: Array, known: Array, classes: int) -> Array:
    """Per sample and class: right, chosen, present; float [n, 3 * classes]. What F1 is a function of."""
    present, picked = np.eye(classes)[known], np.eye(classes)[chosen]
    return np.concatenate([present * picked, picked, present], axis=1)


def f1_macro(means: Array) -> Array:
    """Unweighted mean of F1, ``2 tp / (chosen + present)``, over classes that occur: [..., 3 * classes] gives [...]."""
    right, chosen, present = np.split(means, 3, axis=-1)
    whole = chosen + present
    each = np.divide(2 * right, whole, out=np.zeros_like(right), where=whole > 0)
    return np.asarray(each.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))


def regression_rows(output: Array, labels: Array) -> Array:
    """Per sample: squared error, label, squared label; float [n, 3]; several targets are averaged per sample."""
    known, given = targets(output, labels)
    shifted = known - known.mean()  # a variance from raw moments of large numbers would cancel
    return np.stack([((given - known) ** 2).mean(axis=1), shifted.mean(axis=1), (shifted**2).mean(axis=1)], axis=1)


def rmse(means: Array) -> Array:
    """Root mean squared error, in the target's unit: [..., 1] of mean squares gives [...]."""
    return np.asarray(np.sqrt(means[..., 0]))


def r2(means: Array) -> Array:
    """Coefficient of determination: means [..., 3] of squared error, label and squared label give [...]."""
    variance = means[..., 2] - means[..., 1] ** 2
    return np.asarray(1 - means[..., 0] / np.maximum(variance, np.finfo(np.float64).tiny))


def neighbours(vectors: Array, known: Array, k: int) -> Array:
    """1 where one of the `k` nearest other samples by cosine has the same label, else 0; vectors [n, d] give [n]."""
    flat = vectors.reshape(len(vectors), -1)
    if not np.isfinite(flat).all():
        raise SourceError("the output contains infinities; a cosine needs finite numbers", next_step=_ANOTHER)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    found = np.zeros(len(flat))
    for start in range(0, len(flat), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(flat)))
        likeness = unit[rows] @ unit.T
        likeness[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-likeness, min(k, len(flat) - 1) - 1, axis=1)[:, :k]
        found[rows] = (known[nearest] == known[rows, None]).any(axis=1)
    return found


def targets(output: Array, labels: Array) -> tuple[Array, Array]:
    """Labels and output as float [n, targets].

    Raises:
        SourceError: they do not correspond.
    """
    known = labels.reshape(len(labels), -1).astype(np.float64)
    given = output.reshape(len(output), -1)
    if not np.isfinite(given).all():
        raise SourceError(
            "the output contains infinities; a regression metric needs finite numbers", next_step=_ANOTHER
        )
    if known.shape != given.shape:
        raise SourceError(
            f"labels of shape {list(labels.shape)} do not match an output of shape {list(output.shape)}",
            next_step="provide one label per output number for a regression metric",
        )
    return known, given
