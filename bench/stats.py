"""Pure statistics of paired comparisons: arrays in, numbers out.

Must not read files, know metrics' names or decide anything: `gating.judge` decides. A *pair* is one slot of each arm;
the error that matters lies between slots, not within one, so every slot contributes ONE number.

Sign convention: a difference is ``ln(worse/better)``-oriented, so that positive always means that the candidate is
worse. Bounds are one-sided: ``upper_bound(estimate, 0.05)`` covers the true effect with probability 95 %.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Method = Literal["t", "signed-rank"]
OUTLIER = 3.5  # scaled MADs beyond which a residual is an outlier, in many pairs; in few their MAD is itself uncertain:
OUTLIER_FEW = 150.0  # 3.5 + 150 / n**1.5 flags one or two of a hundred normal samples, from 8 pairs to 40
MIN_SIGNED_RANK = 8  # 2 * 2**-8 = 0.0078: the first n at which a one-sided 1 % bound exists at half its alpha
LOOKED = 2  # what choosing the rank interval after looking costs: its bounds at alpha / 2, its p-values doubled
KEPT = 0.98  # of alpha, for the t interval where it might have been the other: what that one misses is within the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The effect of the candidate over n pairs, on the log scale (positive = worse).

    `order_effect` is what running second costs (half the difference between the two orders), already removed from
    `effect`. `sd` is the residual standard deviation of one pair, `se` that of the effect. `adjusted` are the pair
    differences without the order effect, kept because the rank method works on them.
    """

    n: int
    effect: float
    order_effect: float
    sd: float
    se: float
    df: int
    method: Method
    adjusted: tuple[float, ...]


def log_ratios(base: npt.ArrayLike, candidate: npt.ArrayLike, sign: int) -> Array:
    """``sign * ln(candidate / base)`` for every pair, [pairs]; `sign` +1 where lower is better, -1 where higher is.

    Raises:
        ValueError: lengths differ, or a value is not finite and positive.
    """
    b, c = np.asarray(base, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if b.shape != c.shape or b.ndim != 1:
        raise ValueError(f"one value per slot and arm, got shapes {b.shape} and {c.shape}")
    if not (np.all(np.isfinite(b)) and np.all(np.isfinite(c)) and np.all(b > 0) and np.all(c > 0)):
        raise ValueError("log ratios need finite, positive values")
    return np.asarray(sign * np.log(c / b), dtype=np.float64)


def paired(differences: npt.ArrayLike, order: npt.ArrayLike, *, se_floor: float = 0.0) -> Paired:
    """Estimate the effect from n pairs whose order is balanced (n even, `order` +1 where the candidate ran second).

    Least squares of ``d = effect + order_effect * order``, so n-2 degrees of freedom. Where a pair is an outlier and
    n >= 8, the signed-rank interval around the Hodges-Lehmann estimate replaces the t interval. Choosing after
    looking costs level: among normal samples with an outlier a 5 % bound misses 5 to 10 % (simulated, 8 to 20 pairs).
    So hardly any normal sample may have one, the rank interval is taken at half the alpha, and the t interval at 98 %
    of it: together they miss alpha (5.04 % [4.9, 5.2] of 50,000 simulated 5 % bounds of ten pairs; 5.15 % without
    that). `se_floor` is the resolution of the instrument: a standard error below it would claim what cannot be seen.

    Raises:
        ValueError: fewer than 4 pairs, an odd number, or an order that is not balanced.
    """
    d, o = np.asarray(differences, dtype=np.float64), np.asarray(order, dtype=np.float64)
    n = d.size
    if n < 4 or n % 2 or d.ndim != 1 or o.shape != d.shape or o.sum() != 0 or not np.all(np.abs(o) == 1):
        raise ValueError(f"pairs must be even, at least 4 and in balanced order, got {n}: {o.tolist()}")
    effect, shift = float(d.mean()), float((o * d).mean())
    residual = d - effect - shift * o
    sd = math.sqrt(float(residual @ residual) / (n - 2))
    method: Method = "t"
    if n >= MIN_SIGNED_RANK and has_outlier(d, o):
        method = "signed-rank"
        shift = float(np.median(np.subtract.outer(d[o > 0], d[o < 0]))) / 2
        effect = float(np.median(_walsh(d - shift * o)))
    return Paired(
        n=n,
        effect=effect,
        order_effect=shift,
        sd=sd,
        se=max(sd / math.sqrt(n), se_floor),
        df=n - 2,
        method=method,
        adjusted=tuple(float(value) for value in d - shift * o),
    )


def has_outlier(differences: Array, order: Array) -> bool:
    """Return whether a pair is an outlier by scaled MADs within its own order (Iglewicz and Hoaglin, small samples).

    `differences` and `order` are [pairs]. From medians and not from the fit, since an outlier distorts the fit of a few
    pairs and hides in it.
    """
    first, second = differences[order < 0], differences[order > 0]
    distance = np.abs(np.concatenate([first - np.median(first), second - np.median(second)]))
    limit = OUTLIER + OUTLIER_FEW / differences.size**1.5
    return bool(np.max(distance) > limit * 1.4826 * np.median(distance) > 0)


def upper_bound(estimate: Paired, alpha: float) -> float:
    """The effect is below this with confidence ``1 - alpha``."""
    if estimate.method == "t":
        return estimate.effect + _reach(alpha, estimate.n) * estimate.se
    walsh, cut = _walsh(np.asarray(estimate.adjusted)), _signed_rank_cut(estimate.n, alpha / LOOKED)
    return math.inf if cut is None else float(walsh[walsh.size - 1 - cut])


def lower_bound(estimate: Paired, alpha: float) -> float:
    """The effect is above this with confidence ``1 - alpha``."""
    if estimate.method == "t":
        return estimate.effect - _reach(alpha, estimate.n) * estimate.se
    cut = _signed_rank_cut(estimate.n, alpha / LOOKED)
    return -math.inf if cut is None else float(_walsh(np.asarray(estimate.adjusted))[cut])


def p_exceeds(estimate: Paired, margin: float) -> float:
    """p-value against "the effect is at most `margin`": the minimum-effect test behind a FAIL."""
    if estimate.method == "signed-rank":
        shifted = np.asarray(estimate.adjusted) - margin
        ranks = np.argsort(np.argsort(np.abs(shifted), kind="stable"), kind="stable") + 1
        positive = int(ranks[shifted > 0].sum())
        p = float(_signed_rank_cdf(estimate.n)[estimate.n * (estimate.n + 1) // 2 - positive])
        return min(1.0, LOOKED * p)
    if estimate.se == 0:
        return 0.0 if estimate.effect > margin else 1.0
    return min(1.0, _t_sf((estimate.effect - margin) / estimate.se, estimate.df) / _kept(estimate.n))


def certifiable_margin(estimate: Paired, *, alpha: float, power: float = 0.9) -> float:
    """The smallest relative regression that this design could have ruled out with that power at zero effect."""
    return math.expm1((_reach(alpha, estimate.n) + _t(power, estimate.df)) * estimate.se)


def certifiable(n: int, sd: float, *, alpha: float, power: float = 0.9) -> float:
    """`certifiable_margin` of a design of n pairs whose differences have the standard deviation `sd`."""
    return math.expm1((_reach(alpha, n) + _t(power, n - 2)) * sd / math.sqrt(n))


def blocking_effect(estimate: Paired, margin: float, *, alpha: float, power: float = 0.9) -> float:
    """The relative regression that this design would have turned red with that power; `margin` on the log scale."""
    return math.expm1(margin + (_reach(alpha, estimate.n) + _t(power, estimate.df)) * estimate.se)


def pairs_needed(sd: float, margin: float, *, alpha: float, power: float = 0.9, most: int = 400) -> int | None:
    """The smallest even number of pairs that certifies `margin` (log scale) at zero effect; None beyond `most`.

    Power of the one-sided t test with n-2 degrees of freedom: ``1 - nct.cdf(t, n-2, margin * sqrt(n) / sd)``. It rises
    with n and with margin/sd, so the smallest ratio that n pairs can tell is looked up, and n is found by bisection.
    """
    if margin <= 0:
        return None
    if sd == 0:
        return 4
    low, high = 2, most // 2
    if margin / sd < _resolvable(2 * high, alpha, power):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if margin / sd >= _resolvable(2 * middle, alpha, power) else (middle + 1, high)
    return 2 * low


def pass_power(n: int, sd: float, margin: float, *, alpha: float, effect: float = 0.0) -> float:
    """The chance that n pairs certify `margin` where the truth is `effect`; all on the log scale."""
    if sd == 0:
        return float(effect < margin)
    ncp = (margin - effect) * math.sqrt(n) / sd
    return float(_scipy().nct.sf(_reach(alpha, n), n - 2, ncp))


def fail_power(n: int, sd: float, margin: float, *, alpha: float, effect: float) -> float:
    """The chance that n pairs show `effect` to be beyond `margin`; all on the log scale."""
    return pass_power(n, sd, effect, alpha=alpha, effect=margin)


def upper_sd(sd: float, df: int, confidence: float = 0.8) -> float:
    """Upper confidence bound of a standard deviation estimated with `df` degrees of freedom."""
    return sd * math.sqrt(df / float(_scipy().chi2.ppf(1 - confidence, df)))


def pooled_sd(parts: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """One standard deviation from several, each with its degrees of freedom."""
    df = sum(each for _, each in parts)
    return math.sqrt(sum(sd * sd * each for sd, each in parts) / df), df


# Proportions and per-sample scores


def clopper_pearson(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact one-sided lower and upper bounds of a proportion, each with confidence ``1 - alpha``."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes in {n} trials are impossible")
    beta = _scipy().beta
    low = 0.0 if successes == 0 else float(beta.ppf(alpha, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - alpha, successes + 1, n - successes))
    return low, high


def tango_statistic(lost: int, gained: int, n: int, drop: float) -> float:
    """Score statistic of "the paired proportion fell by `drop`", standard normal where that is true.

    `lost` counts samples that only the base had right, `gained` those that only the candidate had right. Defined with
    no discordant sample too, which Wald's and McNemar's are not. Tango, Statistics in Medicine 17:891-908 (1998).
    """
    a = 2.0 * n
    b = -lost - gained + (2.0 * n - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + drop * (1 - drop))
    distance = lost - gained - n * drop
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def tango_bounds(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """One-sided lower and upper bounds of the drop of a paired proportion, each with confidence ``1 - alpha``."""
    if n < 1 or lost < 0 or gained < 0 or lost + gained > n:
        raise ValueError(f"{lost} lost and {gained} gained of {n} are impossible")
    z, point = float(_scipy().norm.ppf(1 - alpha)), (lost - gained) / n
    return (
        _bisect(lambda drop: tango_statistic(lost, gained, n, drop) > z, -1.0, point),
        _bisect(lambda drop: tango_statistic(lost, gained, n, drop) >= -z, point, 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Drop of the mean per-sample score (positive = worse): one-sided bounds, minimum-effect p-value."""

    n: int
    drop: float
    lower: float
    upper: float
    se: float
    p_exceeds: float
    method: Literal["tango", "paired t"]


def paired_drop(base: npt.ArrayLike, candidate: npt.ArrayLike, margin: float, *, alpha: float) -> Drop:
    """Compare two arms' scores sample by sample; `margin` is the largest acceptable absolute drop of the mean.

    Scores of 0 and 1 only use Tango's score interval. Others use the paired t interval; with no difference at all that
    interval has no width, so for scores within [0, 1] the exact bound on a share never seen in n samples is taken.

    Raises:
        ValueError: fewer than two samples, or lengths that differ.
    """
    b, c = np.asarray(base, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if b.shape != c.shape or b.ndim != 1 or b.size < 2:
        raise ValueError(f"two scores per sample and at least two samples, got shapes {b.shape} and {c.shape}")
    n, difference = b.size, b - c
    if is_binary(b) and is_binary(c):
        lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
        low, high = tango_bounds(lost, gained, n, alpha)
        p = float(_scipy().norm.sf(tango_statistic(lost, gained, n, margin)))
        drop = (lost - gained) / n
        se = math.sqrt(max((lost + gained) / n - drop**2, 0.0) / n)
        return Drop(n=n, drop=drop, lower=low, upper=high, se=se, p_exceeds=p, method="tango")
    drop, se = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(n)
    reach = _t(1 - alpha, n - 1) * se
    if se == 0:
        within = bool(np.all((b >= 0) & (b <= 1) & (c >= 0) & (c <= 1)))
        reach = clopper_pearson(0, n, alpha)[1] if within else 0.0
        p = 0.0 if drop - reach > margin else 1.0
    else:
        p = _t_sf((drop - margin) / se, n - 1)
    return Drop(n=n, drop=drop, lower=drop - reach, upper=drop + reach, se=se, p_exceeds=p, method="paired t")


def is_binary(scores: Array) -> bool:
    """Return whether every score, [samples], is 0 or 1."""
    return bool(np.all((scores == 0) | (scores == 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A mean with one-sided bounds, and p-values against "it is at most / at least `limit`"."""

    mean: float
    lower: float
    upper: float
    p_above: float
    p_below: float


def level(values: npt.ArrayLike, limit: float, *, alpha: float) -> Level:
    """Compare a mean with a fixed limit: t bounds, or exact binomial ones where all values are 0 or 1 and n >= 30.

    Raises:
        ValueError: fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(f"at least two values are needed, got shape {x.shape}")
    mean = float(x.mean())
    if x.size >= 30 and is_binary(x):
        successes, binom = int(x.sum()), _scipy().binom
        low, high = clopper_pearson(successes, x.size, alpha)
        above, below = float(binom.sf(successes - 1, x.size, limit)), float(binom.cdf(successes, x.size, limit))
        return Level(mean=mean, lower=low, upper=high, p_above=above, p_below=below)
    se = float(x.std(ddof=1)) / math.sqrt(x.size)
    reach = _t(1 - alpha, x.size - 1) * se
    above = _t_sf((mean - limit) / se, x.size - 1) if se > 0 else float(mean <= limit)
    below = 1 - above if se > 0 else float(mean >= limit)
    return Level(mean=mean, lower=mean - reach, upper=mean + reach, p_above=above, p_below=below)


def detectable(se: float, *, alpha: float, power: float = 0.9) -> float:
    """Return the distance from its limit at which an effect is detected with that power (normal theory)."""
    return float(_scipy().norm.ppf(1 - alpha) + _scipy().norm.ppf(power)) * se


# Inside


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Bisect for the point where a predicate that is true at `low` turns false, to 1e-12."""
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _kept(n: int) -> float:
    """The share of alpha that n pairs leave to the t interval: all of it where no other interval is ever chosen."""
    return KEPT if n >= MIN_SIGNED_RANK else 1.0


def _reach(alpha: float, n: int) -> float:
    """Return the one-sided half-width of the t interval of n pairs, in standard errors."""
    return _t(1 - _kept(n) * alpha, n - 2)


def _walsh(values: Array) -> Array:
    """All pairwise means (i <= j) of values [n], sorted, [n (n + 1) / 2]; their median is Hodges and Lehmann's."""
    i, j = np.triu_indices(values.size)
    return np.sort((values[i] + values[j]) / 2)


@cache
def _signed_rank_cdf(n: int) -> tuple[float, ...]:
    """P(T <= k) of the signed-rank statistic under the null, exactly, for k = 0 .. n(n+1)/2."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank]
    return tuple(np.cumsum(ways / 2.0**n).tolist())


def _signed_rank_cut(n: int, alpha: float) -> int | None:
    """The largest k with P(T <= k) <= alpha, so that Walsh average k+1 is the bound; None if n is too small."""
    cut = sum(1 for p in _signed_rank_cdf(n) if p <= alpha) - 1
    return cut if cut >= 0 else None


@cache
def _resolvable(n: int, alpha: float, power: float) -> float:
    """The smallest margin, in standard deviations of a pair, that n pairs certify with that power at zero effect."""
    from scipy.optimize import brentq

    scale, bound = math.sqrt(n), _reach(alpha, n)
    ncp = brentq(lambda ncp: float(_scipy().nct.sf(bound, n - 2, ncp)) - power, 0.0, 4 * bound + 10, xtol=1e-12)
    return float(ncp) / scale


def _t_sf(value: float, df: int) -> float:
    """``scipy.stats.t.sf`` without its argument checks, which cost fifty times the function itself."""
    from scipy.special import stdtr

    return float(stdtr(df, -value))


@cache
def _t(level: float, df: int) -> float:
    return float(_scipy().t.ppf(level, df))


@cache
def _scipy() -> Any:
    """Import scipy.stats lazily, because it takes most of a second."""
    from scipy import stats

    return stats
