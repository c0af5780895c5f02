"""Quality: the recipe's metric as one score per sample, higher is better; nothing is judged here.

A metric is a name below or the user's ``metric(outputs, labels) -> [n]``. Scores per sample, not one mean, so that
two models can be compared pair by pair on the same samples.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .errors import ConfigError, SourceError
from .recipe.recipe import Recipe
from .samples import Array, Samples
from .sessions.session import Session

Score = Callable[[Mapping[str, Array], Array | None], Array]


def metric(recipe: Recipe) -> Score:
    """The recipe's metric as a function of outputs and labels."""
    name, output = recipe.metric.name, recipe.metric.output
    if ":" in name:
        reference = recipe.reference(name)
        return lambda outputs, labels: _checked(reference.call(outputs, labels), outputs, name)
    score = METRICS[name]
    return lambda outputs, labels: score(_chosen(outputs, output), labels)


def scores(session: Session, samples: Samples, score: Score, *, batch: int = 64) -> Array:
    """One score per sample, float64 [n]."""
    parts = (
        score(session.run(part.copied()), None if part.labels is None else part.labels.copy())
        for part in samples.batches(batch)
    )
    return np.concatenate(list(parts)).astype(np.float64)


def accuracy(output: Array, labels: Array | None) -> Array:
    """1 where the argmax over the last axis is the label, else 0; [n, classes] and [n] give [n].

    Raises:
        SourceError: there are no labels, or they are not one class per sample.
    """
    return np.asarray(output.argmax(axis=-1) == _classes(output, labels), dtype=np.float64)


def top5(output: Array, labels: Array | None) -> Array:
    """1 where the label is among the five highest scores, else 0; [n, classes] and [n] give [n]."""
    best = np.argsort(-output, axis=-1, kind="stable")[..., :5]
    return np.asarray((best == _classes(output, labels)[:, None]).any(axis=-1), dtype=np.float64)


def log_likelihood(output: Array, labels: Array | None) -> Array:
    """Log of the label's softmax probability from logits [n, classes], [n]: changes before a decision flips."""
    known, logits = _classes(output, labels), output.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted[np.arange(len(known)), known] - np.log(np.exp(shifted).sum(axis=-1)), dtype=np.float64)


METRICS: Mapping[str, Callable[[Array, Array | None], Array]] = {
    "accuracy": accuracy,
    "top5": top5,
    "log_likelihood": log_likelihood,
}


def _classes(output: Array, labels: Array | None) -> Array:
    if labels is None or labels.shape != output.shape[:1] or labels.dtype.kind not in "iu":
        raise SourceError(
            f"this metric needs one integer label per sample, got {None if labels is None else labels.shape}",
            next_step="return labels from the loader, or name another metric",
        )
    return labels


def _chosen(outputs: Mapping[str, Array], output: str | None) -> Array:
    if output is None:
        return next(iter(outputs.values()))
    if output not in outputs:
        raise ConfigError(f"the metric names output {output!r}", next_step=f"the model has {', '.join(outputs)}")
    return outputs[output]


def _checked(result: object, outputs: Mapping[str, Array], name: str) -> Array:
    rows = len(next(iter(outputs.values())))
    array = np.asarray(result, dtype=np.float64)
    if array.shape != (rows,):
        raise SourceError(
            f"the metric returned shape {array.shape} for {rows} samples", where=name, next_step="return one score each"
        )
    return array
