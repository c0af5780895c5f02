"""Class balance and group fairness: rates by group, the worst group and the widest gap, with intervals. Pure.

Groups are disjoint, so a gap within one model is a difference of independent proportions (Newcombe's hybrid score
interval, Statistics in Medicine 17:873-890, 1998); what the candidate changed is paired within each group.
"""

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples

from .. import stats
from ..checks import Check, Plot, informational
from .evidence import Evidence, class_labels
from .metrics import predicted
from .quantities import Array, Estimate, Quantity, Scores, Worst

_GROUPS = 20  # a column with more values is no grouping
_MOST = 40  # groups whose gaps are looked at pair by pair


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Gap between the rates of two groups; each `Scores` holds one group's samples."""

    high: Scores
    low: Scores
    higher_is_better: bool = False

    @property
    def name(self) -> str:
        """Both groups."""
        return f"{self.high.name} over {self.low.name}"

    @property
    def paired(self) -> bool:
        """Return whether there is a base to compare with."""
        return self.high.paired and self.low.paired

    def level(self, limit: float, alpha: float) -> Estimate:
        """Newcombe's interval for rates, a normal one with both variances for other scores."""
        one, other = self.high.candidate, self.low.candidate
        value = float(one.mean() - other.mean())
        spread = math.sqrt(one.var(ddof=1) / one.size + other.var(ddof=1) / other.size)
        if stats.is_binary(one) and stats.is_binary(other):
            counts = (int(one.sum()), one.size, int(other.sum()), other.size)
            z = _z(alpha)
            lower, upper, p = *newcombe(*counts, z), _newcombe_p(counts, limit)
            return self._estimate(value, lower, upper, p, spread, "newcombe")
        return self._normal(value, spread, limit, alpha)

    def worsening(self, margin: float, alpha: float) -> Estimate:
        """Estimate the growth of the gap: the paired change of one group minus that of the other."""
        (up, first), (down, second) = _change(self.high), _change(self.low)
        return self._normal(up - down, math.hypot(first, second), margin, alpha)

    def _normal(self, value: float, se: float, limit: float, alpha: float) -> Estimate:
        reach, excess = _z(alpha) * se, value - limit
        p = 0.5 * math.erfc(excess / se / math.sqrt(2)) if se > 0 else float(excess <= 0)
        return self._estimate(value, value - reach, value + reach, p, se, "difference of groups")

    def _estimate(self, value: float, lower: float, upper: float, p: float, se: float, method: str) -> Estimate:
        base = None
        if self.high.base is not None and self.low.base is not None:
            base = float(self.high.base.mean() - self.low.base.mean())
        return Estimate(
            value=value,
            lower=lower,
            upper=upper,
            p=p,
            n=self.high.candidate.size + self.low.candidate.size,
            se=se,
            method=method,
            about=self.name,
            base=base,
            candidate=float(self.high.candidate.mean() - self.low.candidate.mean()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessCheck(Check):
    """Rates by group: `by` is one of the loader's columns, or ``class`` for the label itself (class balance).

    `rate`: the recipe's `score`, or, for the class `positive`, the share selected (`selection`), `tpr` or `fpr`.
    `statistic`: the `worst` group's rate, or the `gap` between the best and the worst group. Groups with fewer than
    `minimum` samples are left out.
    """

    kind: Literal["fairness"] = "fairness"
    by: str = "class"
    rate: Literal["score", "selection", "tpr", "fpr"] = "score"
    positive: int = 1
    statistic: Literal["worst", "gap"] = "worst"
    minimum: Annotated[int, Field(ge=2)] = 30
    output: str | None = None

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        if self.statistic == "worst" and self.rate in ("selection", "fpr"):
            raise ConfigError(
                f"statistic = worst does not apply to {self.rate}", where=self.label, next_step="use statistic = gap"
            )
        if self.by == "class" and self.rate != "score":
            raise ConfigError(
                f"{self.rate} by class is not meaningful", where=self.label, next_step="name a column in by"
            )

    @property
    def label(self) -> str:
        return f"fairness {self.statistic} {self.rate} by {self.by}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "worst"

    def ready(self, samples: Samples) -> None:
        """Check that the column is there.

        Raises:
            ConfigError: it is not.
        """
        known = ("class", *samples.columns)
        if self.by not in known:
            raise ConfigError(
                f"there is no column {self.by!r} in the samples",
                where=self.label,
                next_step=f"available columns: {', '.join(known)}; a loader returns more as its third value",
            )

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The worst group's rate, or the widest gap over all pairs of groups.

        Raises:
            ConfigError: no such column, or fewer than two groups large enough.
        """
        parts = groups(self, evidence)
        if self.statistic == "worst":
            return Worst(name=self.label, parts=parts)
        if len(parts) > _MOST:
            raise ConfigError(
                f"{len(parts)} groups make too many pairs", where=self.label, next_step='use statistic = "worst"'
            )
        gaps = [Gap(high=one, low=other) for one, other in permutations(parts, 2)]
        return Worst(name=self.label, parts=gaps)

    def plot(self, evidence: Evidence) -> Plot | None:
        """Return the rate of every group in both arms."""
        from . import on_plotly

        if self.statistic != "worst":
            return None
        data = [part.means for part in groups(self, evidence)]
        title = f"{self.rate.capitalize()} by {self.by}"
        return Plot(title=title, lead="The rate of every group in both arms.", data=data, draw=on_plotly.groups)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[FairnessCheck, ...]":
        """Return the class balance, and both statistics of every column that groups the samples."""
        worst, gap = informational(against=against), informational(against=against, low=True)
        found = [cls(by="class", **worst)] if class_labels(samples) else []
        for name, column in samples.columns.items():
            if 2 <= len(np.unique(column)) <= _GROUPS:
                found += [cls(by=name, **worst), cls(by=name, statistic="gap", **gap)]
        return tuple(found)


def groups(check: FairnessCheck, evidence: Evidence) -> list[Scores]:
    """Each group's rate as a quantity, groups in order.

    Raises: as `FairnessCheck.quantity`.
    """
    known = evidence.classes() if check.by == "class" else evidence.columns.get(check.by)
    if known is None:
        there = ", ".join(["class", *evidence.columns])
        raise ConfigError(
            f"no column {check.by!r} in the samples",
            where=check.label,
            next_step=f"available columns: {there}; a loader returns more as its third value",
        )
    base, candidate, counted = _rates(check, evidence)
    parts = []
    for value in np.unique(known):
        member = (known == value) & counted
        if member.sum() >= check.minimum:
            first = None if base is None else base[member]
            parts.append(Scores(name=f"{check.by} {value}", base=first, candidate=candidate[member]))
    if len(parts) < 2:
        raise ConfigError(
            f"only {len(parts)} groups by {check.by!r} have {check.minimum} samples",
            where=check.label,
            next_step="use more evaluation samples, or lower minimum",
        )
    return parts


def _rates(check: FairnessCheck, evidence: Evidence) -> tuple[Array | None, Array, Array]:
    """Values of the rate in both arms, [samples], and which samples count for it, [samples]."""
    everyone = np.ones(len(evidence.labels), dtype=bool)
    if check.rate == "score":
        base, candidate = evidence.scores()
        return base, candidate, everyone
    first, second = evidence.outputs(check.output)
    selected = [None if each is None else (predicted(each) == check.positive).astype(np.float64) for each in (first,)]
    chosen = (predicted(second) == check.positive).astype(np.float64)
    if check.rate == "selection":
        return selected[0], chosen, everyone
    positive = evidence.classes() == check.positive
    return selected[0], chosen, positive if check.rate == "tpr" else ~positive


def wilson(successes: int, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion, `z` standard errors to either side."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials are impossible")
    p, square = successes / n, z * z
    middle = (p + square / (2 * n)) / (1 + square / n)
    reach = z / (1 + square / n) * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def newcombe(successes: int, n: int, others: int, m: int, z: float) -> tuple[float, float]:
    """Newcombe's interval of the difference of two independent proportions, from their Wilson intervals."""
    one, other = successes / n, others / m
    (low, high), (floor, top) = wilson(successes, n, z), wilson(others, m, z)
    return (
        one - other - math.hypot(one - low, top - other),
        one - other + math.hypot(high - one, other - floor),
    )


def _newcombe_p(counts: tuple[int, int, int, int], limit: float) -> float:
    """The confidence at which the lower bound reaches the limit, as a p-value against "the gap is at most that"."""
    if counts[0] / counts[1] - counts[2] / counts[3] <= limit:
        return 1.0 - 0.5 * math.erfc(_crossing(counts, limit, 1) / math.sqrt(2))
    return 0.5 * math.erfc(_crossing(counts, limit, 0) / math.sqrt(2))


def _crossing(counts: tuple[int, int, int, int], limit: float, side: int) -> float:
    """Return the number of standard errors at which a one-sided bound of the difference reaches the limit."""
    low, high = 0.0, 40.0
    for _ in range(60):
        z = (low + high) / 2
        bound = newcombe(*counts, z)[side]
        inside = bound > limit if side == 0 else bound < limit
        low, high = (z, high) if inside else (low, z)
    return low


def _change(group: Scores) -> tuple[float, float]:
    """The mean change of one group's score and its standard error.

    For scores of 0 and 1 with one half added to each cell of the 2x2 table (Agresti & Min, Statistics in Medicine
    24:729-740, 2005), so that a group in which nothing changed is not thereby known exactly.
    """
    if group.base is None:
        raise ValueError(f"{group.name} has no base to compare with")
    difference, n = group.candidate - group.base, group.candidate.size
    mean = float(difference.mean())
    if stats.is_binary(group.base) and stats.is_binary(group.candidate):
        discordant, size = float((difference != 0).sum()) + 1, n + 2.0
        middle = float(difference.sum()) / size
        return mean, math.sqrt((discordant / size - middle**2) / size)
    return mean, float(difference.std(ddof=1)) / math.sqrt(n)


def _z(alpha: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha))
