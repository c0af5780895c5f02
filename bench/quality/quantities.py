"""Quantities that quality checks judge: each knows its value in both arms, and bounds for it. Pure.

Three kinds are enough: a mean of per-sample scores, a smooth function of means over the sample set (bootstrapped), and
the worst of several quantities. Which limit they must keep is not their business.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from .. import stats

Array = np.ndarray[Any, np.dtype[Any]]
RESAMPLES = 500  # the standard error of a standard error is then 3 %
_CHUNK = 1 << 22  # weights held as floats at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with one-sided bounds, each with confidence ``1 - alpha``, and the p-value against keeping the limit.

    `about` names the part that it speaks of where the quantity is the worst of several; `base` and `candidate` are that
    part's values.
    """

    value: float
    lower: float
    upper: float
    p: float
    n: int
    se: float
    method: str
    about: str = ""
    base: float | None = None
    candidate: float


class Quantity(Protocol):
    """Something that can be judged: against a limit by itself, or in the candidate against the base."""

    @property
    def name(self) -> str:
        """Return its display name."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Return whether higher values are better."""
        ...

    @property
    def paired(self) -> bool:
        """Return whether there is a base to compare with."""
        ...

    def level(self, limit: float, alpha: float) -> Estimate:
        """The candidate's value; `p` is small where it is beyond the limit."""
        ...

    def worsening(self, margin: float, alpha: float) -> Estimate:
        """Estimate how much worse the candidate is (positive = worse); `p` is small if that exceeds the margin."""
        ...


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The mean of per-sample scores, float [n]; `base` None where there is nothing to compare with."""

    name: str
    base: Array | None
    candidate: Array
    higher_is_better: bool = True

    @property
    def paired(self) -> bool:
        """Return whether there is a base to compare with."""
        return self.base is not None

    @property
    def means(self) -> tuple[str, float | None, float]:
        """Its name, and the mean of both arms."""
        return self.name, None if self.base is None else float(self.base.mean()), float(self.candidate.mean())

    def level(self, limit: float, alpha: float) -> Estimate:
        """t bounds, or exact binomial ones for scores of 0 and 1."""
        scores = np.asarray(self.candidate, dtype=np.float64)
        found = stats.level(scores, limit, alpha=alpha)
        return Estimate(
            value=found.mean,
            lower=found.lower,
            upper=found.upper,
            p=found.p_below if self.higher_is_better else found.p_above,
            n=scores.size,
            se=float(scores.std(ddof=1)) / math.sqrt(scores.size),
            method="level",
            about=self.name,
            base=None if self.base is None else float(self.base.mean()),
            candidate=found.mean,
        )

    def worsening(self, margin: float, alpha: float) -> Estimate:
        """Tango's interval for scores of 0 and 1, else the paired t interval."""
        if self.base is None:
            raise ValueError(f"{self.name} has no base to compare with")
        good, other = (self.base, self.candidate) if self.higher_is_better else (self.candidate, self.base)
        found = stats.paired_drop(good, other, margin, alpha=alpha)
        unseen = _unseen(found.n, alpha) if found.lower == found.upper else 0.0
        return Estimate(
            value=found.drop,
            lower=found.lower - unseen,
            upper=found.upper + unseen,
            p=found.p_exceeds,
            n=found.n,
            se=found.se,
            method=found.method,
            about=self.name,
            base=float(self.base.mean()),
            candidate=float(self.candidate.mean()),
        )


@dataclass(frozen=True, kw_only=True)
class SetStatistic:
    """A function of means over the samples: ``combine(mean(rows)) -> number``, rows float [n, d].

    `combine` takes [..., d] and gives [...], so that resamples are one matrix product. Bounds are normal ones with the
    bootstrap's standard error, both arms resampled together; the seed is fixed, so that a verdict can be repeated.
    """

    name: str
    base: Array | None
    candidate: Array
    combine: Callable[[Array], Array]
    higher_is_better: bool

    @property
    def paired(self) -> bool:
        """Return whether there is a base to compare with."""
        return self.base is not None

    def level(self, limit: float, alpha: float) -> Estimate:
        """The candidate's value."""
        value, drawn = self._value(self.candidate), self._drawn
        sign = -1.0 if self.higher_is_better else 1.0
        found = _normal(value, drawn, alpha, sign * limit, sign, len(self.candidate), self.name)
        return replace(found, base=None if self.base is None else self._value(self.base), candidate=value)

    def worsening(self, margin: float, alpha: float) -> Estimate:
        """Candidate against base, over the same resamples."""
        if self.base is None:
            raise ValueError(f"{self.name} has no base to compare with")
        base, value = self._value(self.base), self._value(self.candidate)
        sign = -1.0 if self.higher_is_better else 1.0
        drawn = sign * (self._drawn - self._drawn_base)
        found = _normal(sign * (value - base), drawn, alpha, margin, 1.0, len(self.candidate), self.name)
        return replace(found, base=base, candidate=value)

    def _value(self, rows: Array) -> float:
        """Return the statistic of rows [samples, columns], in its own unit."""
        return float(self.combine(rows.mean(axis=0)))

    @cached_property
    def _drawn(self) -> Array:
        """The candidate's statistic over the resamples, [RESAMPLES]."""
        return _resampled(self.candidate, self.combine)

    @cached_property
    def _drawn_base(self) -> Array:
        """The base's statistic over the same resamples, [RESAMPLES]; the candidate's where there is no base."""
        return _resampled(self.candidate if self.base is None else self.base, self.combine)


def _resampled(rows: Array, combine: Callable[[Array], Array]) -> Array:
    """A statistic on draws of n samples with replacement: rows [n, columns] give [RESAMPLES]; always the same draws."""
    counts, n = _counts(len(rows)), len(rows)
    size = max(1, _CHUNK // n)
    blocks = [counts[start : start + size] / n for start in range(0, RESAMPLES, size)]
    return np.concatenate([combine(block @ rows) for block in blocks])


@lru_cache(maxsize=2)
def _counts(n: int) -> Array:
    """Draw the counts of each of n samples, uint8 [RESAMPLES, n]."""
    random = np.random.default_rng(0)
    drawn = (np.bincount(random.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
    return np.stack([each.astype(np.uint8) for each in drawn])


def _normal(value: float, drawn: Array, alpha: float, limit: float, sign: float, n: int, name: str) -> Estimate:
    """Normal bounds around a value; `limit` is on the scale where ``sign * value`` is worse when greater.

    Where no resample differs, the bounds reach as far as a share of samples goes that n samples may never show.
    """
    from scipy.stats import norm

    se, excess = float(np.std(drawn, ddof=1)), sign * value - limit
    reach = float(norm.ppf(1 - alpha)) * se if se > 0 else _unseen(n, alpha)
    p = float(norm.sf(excess / se)) if se > 0 else float(excess <= reach)
    return Estimate(
        value=value, lower=value - reach, upper=value + reach, p=p, n=n, se=se, method="bootstrap", about=name,
        candidate=value,
    )  # fmt: skip


def _unseen(n: int, alpha: float) -> float:
    """The largest share of samples of which n draws show none with probability `alpha`."""
    return stats.clopper_pearson(0, n, alpha)[1]


@dataclass(frozen=True, kw_only=True)
class Worst:
    """The worst of several quantities of one orientation.

    "All are within" needs each to be shown within, without correction (intersection-union); "one is beyond" is
    Bonferroni-corrected over the parts, as is the bound on the good side.
    """

    name: str
    parts: Sequence[Quantity]

    @property
    def higher_is_better(self) -> bool:
        """As its parts."""
        return self.parts[0].higher_is_better

    @property
    def paired(self) -> bool:
        """Return whether there is a base to compare with."""
        return all(part.paired for part in self.parts)

    def level(self, limit: float, alpha: float) -> Estimate:
        """The worst part's value in the candidate."""
        whole = [part.level(limit, alpha) for part in self.parts]
        strict = [part.level(limit, alpha / len(whole)) for part in self.parts]
        return _worst(whole, strict, down=self.higher_is_better)

    def worsening(self, margin: float, alpha: float) -> Estimate:
        """The part that lost most."""
        whole = [part.worsening(margin, alpha) for part in self.parts]
        strict = [part.worsening(margin, alpha / len(whole)) for part in self.parts]
        return _worst(whole, strict, down=False)


def _worst(whole: Sequence[Estimate], strict: Sequence[Estimate], *, down: bool) -> Estimate:
    """Join the parts' estimates; `down` where the lowest is the worst.

    The part spoken of is the one that is worst by value, unless another is more surely beyond the limit.
    """
    sign = -1.0 if down else 1.0
    leader = min(whole, key=lambda each: (each.p, -sign * each.value))
    if leader.p > 0.05:
        leader = max(whole, key=lambda each: sign * each.value)
    lower, upper = (
        (min(each.lower for each in whole), min(each.upper for each in strict))
        if down
        else (max(each.lower for each in strict), max(each.upper for each in whole))
    )
    return replace(leader, lower=lower, upper=upper, p=min(1.0, len(whole) * min(each.p for each in whole)))
