"""Task metrics as quantities: means of per-sample scores where they are that, functions of means where they are not.

Pure. Held against scikit-learn in the tests; not computed by it, because intervals need hundreds of resamples.
"""

import numpy as np

from seatrial.optimize.errors import ConfigError, SourceError

from ..checks import MetricCheck
from .evidence import Evidence
from .quantities import Array, Quantity, Scores, SetStatistic

_ANOTHER = "choose an output that is finite"
_BLOCK = 256  # rows of the similarity matrix at once
_MOST = 20_000_000  # samples times classes that F1 is computed over: half a gigabyte


def quantity(check: MetricCheck, evidence: Evidence) -> Quantity:
    """The metric that a check names, over the clean samples.

    Raises:
        SourceError: labels or outputs are not what the metric is about.
    """
    if check.metric == "score":
        base, candidate = evidence.scores()
        return Scores(name="score", base=base, candidate=candidate)
    first, second = evidence.outputs(check.output)
    if check.metric == "f1_macro":
        known = evidence.classes()
        count = int(max(known.max() + 1, second.shape[-1]))
        if len(known) * count > _MOST:
            raise ConfigError(f"{len(known)} samples of {count} classes are too many for F1", where=check.label)
        rows = [None if each is None else confusion_rows(predicted(each), known, count) for each in (first, second)]
        return SetStatistic(
            name="f1_macro", base=rows[0], candidate=_given(rows[1]), combine=f1_macro, higher_is_better=True
        )
    if check.metric in ("rmse", "r2"):
        rows = [None if each is None else regression_rows(each, evidence.labels) for each in (first, second)]
        return SetStatistic(
            name=check.metric,
            base=rows[0],
            candidate=_given(rows[1]),
            combine=rmse if check.metric == "rmse" else r2,
            higher_is_better=check.metric == "r2",
        )
    scores = [None if each is None else _scores(check, each, evidence) for each in (first, second)]
    return Scores(
        name=check.metric, base=scores[0], candidate=_given(scores[1]), higher_is_better=check.higher_is_better
    )


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
    """Unweighted mean of the classes' F1 ``2 tp / (chosen + present)``, over classes that occur at all."""
    right, chosen, present = np.split(means, 3, axis=-1)
    whole = chosen + present
    each = np.divide(2 * right, whole, out=np.zeros_like(right), where=whole > 0)
    return np.asarray(each.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))


def regression_rows(output: Array, labels: Array) -> Array:
    """Per sample: squared error, label, squared label; float [n, 3]; several targets are averaged per sample."""
    known, given = _targets(output, labels)
    shifted = known - known.mean()  # a variance from raw moments of large numbers would cancel
    return np.stack([((given - known) ** 2).mean(axis=1), shifted.mean(axis=1), (shifted**2).mean(axis=1)], axis=1)


def rmse(means: Array) -> Array:
    """Root mean squared error."""
    return np.asarray(np.sqrt(means[..., 0]))


def r2(means: Array) -> Array:
    """Coefficient of determination: 1 minus squared error over the labels' variance."""
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


def _scores(check: MetricCheck, output: Array, evidence: Evidence) -> Array:
    if check.metric == "mae":
        known, given = _targets(output, evidence.labels)
        return np.asarray(np.abs(given - known).mean(axis=1))
    known = evidence.classes()
    if check.metric == "retrieval":
        if len(known) <= check.k:
            raise ConfigError(f"{len(known)} samples are too few for {check.k} neighbours each", where=check.label)
        return neighbours(output, known, check.k)
    if check.metric == "accuracy":
        return np.asarray(predicted(output) == known, dtype=np.float64)
    predicted(output)
    best = np.argsort(-output, axis=1, kind="stable")[:, : check.k]
    return np.asarray((best == known[:, None]).any(axis=1), dtype=np.float64)


def _targets(output: Array, labels: Array) -> tuple[Array, Array]:
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


def _given(rows: Array | None) -> Array:
    if rows is None:
        raise ValueError("the candidate has no answers")
    return rows
