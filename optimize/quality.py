"""Quality: the recipe's metric as one score per sample, higher is better; nothing is judged here.

A metric is one of `recipe.metrics` or the user's ``metric(outputs, labels) -> [n]``. Scores per sample, not one mean,
so that two models can be compared pair by pair on the same samples.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .errors import ConfigError, SourceError
from .recipe.metrics import METRICS
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


def _chosen(outputs: Mapping[str, Array], output: str | None) -> Array:
    """Return one output, [n, ...]: the named one, or the first."""
    if output is None:
        return next(iter(outputs.values()))
    if output not in outputs:
        raise ConfigError(f"the metric names output {output!r}", next_step=f"the model has {', '.join(outputs)}")
    return outputs[output]


def _checked(result: object, outputs: Mapping[str, Array], name: str) -> Array:
    """Return the scores that a user's metric gave as float64 [n]; anything of another shape is refused."""
    rows = len(next(iter(outputs.values())))
    array = np.asarray(result, dtype=np.float64)
    if array.shape != (rows,):
        raise SourceError(
            f"the metric returned shape {array.shape} for {rows} samples", where=name, next_step="return one score each"
        )
    return array
