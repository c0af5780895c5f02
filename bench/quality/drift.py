"""Output drift: how far the candidate's answers are from the reference's on the same samples. Pure.

Needs no labels, so it sees what accuracy forgives: answers that moved and still count as right, or moved both ways.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.parity.measures import beyond, misplaced
from seatrial.optimize.samples import Samples

from ..checks import Check, informational
from ..errors import AnswerError
from .evidence import Evidence, class_labels
from .metrics import predicted
from .quantities import Array, Quantity, Scores, SetStatistic, Worst

Statistic = Literal["flips", "cosine", "difference", "ks", "psi", "jensen_shannon"]
_OF_CLASSES: tuple[Statistic, ...] = ("flips", "jensen_shannon", "cosine", "ks")
_OF_NUMBERS: tuple[Statistic, ...] = ("cosine", "ks")
_BINS = 10  # of a PSI, holding equally many of the reference's values
_POINTS = 50  # thresholds at which two distributions are compared
_COLUMNS = 16  # elements of an output that ks and psi look at, evenly spread


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck(Check):
    """Distance of the candidate's answers from the base's on the same samples; only `at_most` (cosine: `at_least`).

    `flips` is the share of samples whose highest output moved, `cosine` the mean similarity, `difference` the mean
    absolute difference, `ks` and `psi` the largest over the outputs' elements, `jensen_shannon` (base 2) between the
    distributions of predicted classes.
    """

    kind: Literal["drift"] = "drift"
    statistic: Statistic = "flips"
    output: str | None = None

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        if self.max_drop is not None:
            raise ConfigError("drift is already relative to the base", where=self.label, next_step="use at_most")

    @property
    def label(self) -> str:
        return f"drift {self.statistic}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "cosine"

    @property
    def unit(self) -> str:
        """A share of samples, or a distance."""
        return "share" if self.statistic == "flips" else "score"

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The statistic over both arms together: a level by itself, with nothing to compare it with.

        Raises:
            ConfigError: there is no base.
            SourceError: the output is not one row per sample.
            AnswerError: values are NaN, infinite or masked in one arm alone.
        """
        base, candidate = evidence.outputs(self.output)
        if base is None:
            raise ConfigError("a drift check needs a reference", where=self.label, next_step="pass one (--against)")
        given = base, candidate
        base, candidate = _numbers(base, candidate, self.label)
        match self.statistic:
            case "flips":
                moved = predicted(given[0]) != predicted(given[1])
                return Scores(name="flips", base=None, candidate=moved.astype(np.float64), higher_is_better=False)
            case "cosine":
                return Scores(name="cosine", base=None, candidate=cosine(base, candidate))
            case "difference":
                moved = np.abs(base - candidate).reshape(len(base), -1).mean(axis=1)
                return Scores(name="difference", base=None, candidate=moved, higher_is_better=False)
            case "jensen_shannon":
                return _joint("jensen_shannon", class_rows(*given))
            case "ks" | "psi" as name:
                one, other = base.reshape(len(base), -1), candidate.reshape(len(base), -1)
                chosen = np.unique(np.linspace(0, one.shape[1] - 1, min(_COLUMNS, one.shape[1])).astype(int))
                rows = threshold_rows if name == "ks" else bin_rows
                parts = [_joint(name, rows(one[:, at], other[:, at]), f"{name} of element {at}") for at in chosen]
                return Worst(name=self.label, parts=parts)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[DriftCheck, ...]":
        """Return the distances that suit the labels, where there is a base."""
        chosen = _OF_CLASSES if class_labels(samples) else _OF_NUMBERS
        return tuple(
            cls(statistic=each, **informational(against=False, low=each != "cosine")) for each in chosen if against
        )


def _numbers(base: Array, candidate: Array, where: str) -> tuple[Array, Array]:
    """Both arms' outputs, [n, ...] each, without what is not finite, or stands for it, in both: 0 there."""
    if base.shape != candidate.shape or not base.size:
        return base, candidate
    one, other = (array.reshape(len(array), -1) for array in (base, candidate))
    wrong, ok = misplaced(one, other, beyond(one))
    if wrong:
        raise AnswerError(
            f"{wrong} of {base.size} values are NaN, infinite or masked in only one arm",
            where=where,
            next_step="inspect the candidate's outputs: seatrial parity --bisect names the first wrong node",
        )
    held = (np.where(ok, array, 0.0).reshape(base.shape) for array in (one, other))
    first, second = held
    return first, second


def _joint(name: str, rows: Array, text: str = "") -> SetStatistic:
    """Return the statistic over both arms' indicators, `rows` [samples, 2 * bins], the base's first."""
    combine = {"ks": ks, "psi": psi, "jensen_shannon": jensen_shannon}[name]
    return SetStatistic(name=text or name, base=None, candidate=rows, combine=combine, higher_is_better=False)


def cosine(base: Array, candidate: Array) -> Array:
    """Cosine similarity of both answers, per sample; 1 where both are zero."""
    one, other = base.reshape(len(base), -1), candidate.reshape(len(base), -1)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    same = (np.abs(one - other).max(axis=1) == 0).astype(np.float64)
    return np.asarray(np.divide((one * other).sum(axis=1), norms, out=same, where=norms > 0))


def threshold_rows(base: Array, candidate: Array) -> Array:
    """Per sample, whether each arm's value is below each threshold; float [n, 2 * thresholds]."""
    points = np.unique(np.quantile(np.concatenate([base, candidate]), np.linspace(0, 1, _POINTS + 2)[1:-1]))
    below = np.concatenate([base[:, None] <= points, candidate[:, None] <= points], axis=1)
    return np.asarray(below, dtype=np.float64)


def ks(means: Array) -> Array:
    """Kolmogorov-Smirnov distance, the largest over the thresholds: [..., 2 * thresholds] of both arms gives [...]."""
    one, other = np.split(means, 2, axis=-1)
    return np.asarray(np.abs(one - other).max(axis=-1))


def bin_rows(base: Array, candidate: Array) -> Array:
    """Per sample, the bin of each arm's value, bins by the base's deciles; float [n, 2 * bins]."""
    edges = np.unique(np.quantile(base, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.eye(len(edges) + 1)
    return np.concatenate([bins[np.searchsorted(edges, each, side="right")] for each in (base, candidate)], axis=1)


def psi(means: Array) -> Array:
    """Population stability index ``sum (q - p) ln(q / p)``: [..., 2 * bins] gives [...]; empty bins count as 1e-4."""
    one, other = (np.maximum(each, 1e-4) for each in np.split(means, 2, axis=-1))
    return np.asarray(((other - one) * np.log(other / one)).sum(axis=-1))


def class_rows(base: Array, candidate: Array) -> Array:
    """Per sample, the class that each arm predicts; float [n, 2 * classes]."""
    classes = np.eye(max(2, base.shape[-1]))
    return np.concatenate([classes[predicted(base)], classes[predicted(candidate)]], axis=1)


def jensen_shannon(means: Array) -> Array:
    """Jensen-Shannon divergence in bits, 0 where equal, 1 where disjoint: [..., 2 * bins] of both arms gives [...]."""
    one, other = np.split(means, 2, axis=-1)
    middle = (one + other) / 2

    def information(of: Array) -> Array:
        share = np.divide(of, middle, out=np.ones_like(of), where=of > 0)
        return np.asarray((of * np.log2(share)).sum(axis=-1))

    return np.asarray((information(one) + information(other)) / 2)
