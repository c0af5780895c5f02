"""Widths: how many units of each layer stay, and which ones. Pure arithmetic on scores; touches no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..samples import Array

Scope = Literal["layer", "global"]
_TRIFLE = 1e-8
_SLACK = 1e-9  # a share of exactly m / width must keep m, whatever the last bit of the float says


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthReduction:
    """Reduction of widths: at most ``1 - share`` of each `original` count stays, in a multiple of `multiple`.

    Under the `scope` ``layer`` every layer loses that share of its own, under ``global`` all of them together.
    """

    share: float
    original: Mapping[str, int]
    multiple: int
    scope: Scope

    def kept(self, name: str, multiple: int) -> int:
        """Return the units of the layer `name` that stay, in a multiple of its own `multiple`."""
        return kept(self.original[name], self.share, multiple)


def kept(width: int, share: float, multiple: int) -> int:
    """Return how many of `width` units stay when at least `share` is removed: a multiple, never 0, at most `width`."""
    count = int(width * (1 - share) + _SLACK * width)
    return min(width, max(count - count % multiple, multiple))


def rungs(layers: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """The shares, ascending, at which the width of any (width, multiple) layer changes under `kept`.

    Every smaller model that a single share can reach is reached at one of them. Each lies a trifle below the exact
    share, so that no rounding of floats loses a whole multiple.
    """
    shares = {round(1 - count / width, 9) for width, step in layers for count in range(step, width, step)}
    return tuple(share - _TRIFLE for share in sorted(shares))


def choose(scores: Sequence[Array], counts: Sequence[int], multiple: int | Sequence[int], scope: Scope) -> list[Array]:
    """Indices that stay in every layer, ascending: those with the highest scores [units].

    `counts` says how many stay per layer. Under ``global`` only their sum matters: scores are divided by their layer's
    mean, ranked together, and every layer's number is rounded to its multiple (at least one multiple stays).
    """
    multiples = [multiple] * len(scores) if isinstance(multiple, int) else multiple
    if scope == "global":
        relative = [score / max(float(score.mean()), 1e-30) for score in scores]
        ranked = np.sort(np.concatenate(relative))[::-1]
        limit = ranked[sum(counts) - 1]
        wanted = [int((score >= limit).sum()) for score in relative]
        counts = [
            min(len(score), max(step, step * round(count / step)))
            for score, count, step in zip(scores, wanted, multiples, strict=True)
        ]
    return [np.sort(np.argsort(-score, kind="stable")[:count]) for score, count in zip(scores, counts, strict=True)]
