"""The metrics that a recipe may name: one score per sample from a model's output and the labels, higher is better.

Pure. A recipe is checked against these names before any work; others are references to the user's own function.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import SourceError
from ..samples import Array


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
    """Return the labels where there is one whole number per sample, [n]; `output` is [n, ...]."""
    if labels is None or labels.shape != output.shape[:1] or labels.dtype.kind not in "iu":
        raise SourceError(
            f"this metric needs one integer label per sample, got {None if labels is None else labels.shape}",
            next_step="return labels from the loader, or name another metric",
        )
    return labels
