"""Expected correctness of answers, by a labelled reference: of each row, and how sure that is by segment.

The chance of an answer to be right follows from its inputs and its confidence (`on_sklearn_causes` learns it), so that
inputs that moved are not mistaken for answers that went wrong. Pure.
"""

from dataclasses import dataclass

import numpy as np

from .quantities import Floats
from .segments import Masks, Segment

_LIMIT = 1.64  # one-sided 95 % of the reference's own error
_RAREST, _MOST = 0.01, 0.95  # ends of an expected error rate


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """How far the error of each segment may lie above what its rows expect, shape [segments].

    `unsure` is the upper end of the reference's own residual. `error` is the reference's error rate and `accuracy` its
    rest for all of it; both are what was observed there.
    """

    segments: tuple[Segment, ...]
    unsure: Floats
    error: Floats

    @property
    def accuracy(self) -> float:
        """The accuracy of the whole reference."""
        return 1.0 - float(self.error[0])


def expectation(segments: tuple[Segment, ...], masks: Masks, correct: Floats, chance: Floats) -> Expectation:
    """Learn from a reference: which of its rows were right, and their chance as learned from other rows; [rows]."""
    residual = chance - correct  # above 0 where there are more errors than expected
    counts = np.maximum(masks.sum(axis=1), 1)
    mean = masks @ residual / counts
    scatter = np.sqrt(np.maximum(masks @ residual**2 / counts - mean**2, 1e-6) / counts)
    return Expectation(
        segments=segments,
        unsure=np.maximum(mean, 0.0) + _LIMIT * scatter,
        error=masks @ (1 - correct) / counts,
    )


def allowed(expected: Expectation, chance: Floats, tolerance: float) -> Floats:
    """Return the highest error rate of each row in each segment that is no news, shape [segments, rows]."""
    found: Floats = np.clip((1 - chance)[None, :] + expected.unsure[:, None] + tolerance, _RAREST, _MOST)
    return found
