"""Sequential tests of a candidate against an equal baseline, valid however often one looks.

Pure: counts and block means in, evidence out; knows no server, no clock and no rollout. Every test here yields an
*e-process*: under its null hypothesis the value exceeds ``1 / alpha`` at any time with probability at most ``alpha``
(Ville's inequality), so a controller may look after every block and stop when it likes. A p-value computed again and
again has no such property: Mann-Whitney once a minute rolls back three of ten identical candidates within an hour.

Both arms are cut into the same blocks of time. What disturbs both (a noisy neighbour, a daily peak) cancels in the
difference of a block, and what lasts within one (requests that wait behind each other) is inside it. What lasts longer
shows in the autocorrelation of the differences, for which `latency_evidence` pays with a wider interval.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = 1.0  # variance of the effect in units of a block's standard deviation, before anything is seen
ODDS = (1.5, 2.0, 3.0, 4.0, 6.0, 10.0)  # odds ratios of "worse" that the test of events looks for, with equal weight
MIN_BLOCKS = 4  # differences, before their scatter says anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """The difference of log latencies after the last block: estimate, an interval valid at any time, and the evidence.

    `evidence` is the largest e-value so far against "the shift is at most the margin", `safety` against "it is at least
    the margin". `inflation` is the factor on the variance for autocorrelated blocks. All logs are natural.
    """

    blocks: int
    shift: float
    low: float
    high: float
    evidence: float
    safety: float
    inflation: float


def latency_evidence(differences: npt.ArrayLike, margin: float, *, alpha: float) -> Shift:
    """Test the shift of log latency, block by block, against a margin on the same scale (``log 1.05`` for 5 %).

    `differences` are candidate minus baseline, each the difference of two means of log latency over one block. The
    e-value is the Bayes factor of the one-sample t test with a normal prior of variance `PRIOR` on the standardised
    shift and the right-Haar prior on the unknown standard deviation, for which optional stopping is exact under
    normality (Hendriksen, de Heide and Grünwald, Bayesian Analysis 16, 2021, on group-invariant tests):
    ``(1+ng)^-1/2 * ((1 + t^2/v) / (1 + t^2/(v(1+ng))))^((v+1)/2)`` with ``v = n-1``. Where the differences are
    autocorrelated, t^2 is divided by ``(1+r)/(1-r)``, r their lag-1 autocorrelation if positive.

    Raises:
        ValueError: a difference is not finite.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ValueError("one finite difference per block is needed")
    if d.size < MIN_BLOCKS:
        so_far = float(d.mean()) if d.size else 0.0
        return Shift(blocks=d.size, shift=so_far, low=-math.inf, high=math.inf, evidence=1.0, safety=1.0, inflation=1.0)
    n = np.arange(1, d.size + 1)[MIN_BLOCKS - 1 :]
    mean, squares, inflation = (each[MIN_BLOCKS - 1 :] for each in _moments(d))
    sd = np.sqrt(np.maximum(squares, 1e-18) / (n - 1) * inflation)
    t = (mean - margin) * np.sqrt(n) / sd
    e = _bayes_factor(t, n)
    half = _critical(int(n[-1]), alpha) * float(sd[-1]) / math.sqrt(n[-1])
    return Shift(
        blocks=d.size,
        shift=float(mean[-1]),
        low=float(mean[-1]) - half,
        high=float(mean[-1]) + half,
        evidence=float(np.max(np.where(t > 0, e, 0.0), initial=1.0)),
        safety=float(np.max(np.where(t < 0, e, 0.0), initial=1.0)),
        inflation=float(inflation[-1]),
    )


def event_evidence(
    candidate: npt.ArrayLike, baseline: npt.ArrayLike, share: npt.ArrayLike, *, odds: float = 1.0, least: int = 1
) -> float:
    """The largest e-value so far against "an event is at most `odds` times as likely in the candidate".

    `candidate` and `baseline` are events per block (errors, or requests above a threshold that was frozen before);
    `share` the candidate's share of all requests of each block, which may change from step to step. Given that an event
    happened, it is the candidate's with probability ``share * odds / (share * odds + 1 - share)`` at the edge of the
    null; the e-value averages the likelihood ratios of the odds in `ODDS` (times `odds`), each a test martingale for
    whatever shares were in force when its events came. Events that come in clusters (one stall makes many slow
    requests) say less than as many strangers: the likelihood ratio is raised to ``1 / dispersion``, the excess of the
    variance of the blocks so far over Poisson's, as in a quasi-likelihood. For a few blocks that excess is unknown, so
    where clusters are to be expected nothing is told before `least` blocks.

    Raises:
        ValueError: lengths differ, a negative count, or a share that is not between 0 and 1.
    """
    c, b = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    w = np.broadcast_to(np.asarray(share, dtype=np.float64), c.shape)
    if c.shape != b.shape or c.ndim != 1 or (c < 0).any() or (b < 0).any() or ((w <= 0) | (w >= 1)).any():
        raise ValueError("counts of both arms and a share between 0 and 1 are needed for every block")
    if c.size < max(least, 1):
        return 1.0
    null = _candidate_probability(w, odds)
    dispersion = _dispersion(c, b, w)
    logs = []
    for ratio in ODDS:
        alternative = _candidate_probability(w, odds * ratio)
        ratios = np.cumsum(c * np.log(alternative / null) + b * np.log((1 - alternative) / (1 - null)))
        logs.append(ratios / dispersion)
    return float(np.exp(np.minimum(np.max(_mean_exp(np.array(logs))[least - 1 :]), 700.0)).clip(1.0))


def event_safety(
    candidate: npt.ArrayLike,
    candidate_requests: int,
    baseline: npt.ArrayLike,
    baseline_requests: int,
    *,
    alpha: float,
) -> tuple[float, float]:
    """An interval for the difference of two rates of events (candidate minus baseline) that is valid at any time.

    Each rate has a beta-binomial confidence sequence (uniform prior, Robbins' method of mixtures) at ``alpha / 2``; the
    interval of the difference is conservative. Shares, so 0.001 is a tenth of a percentage point.

    Raises:
        ValueError: more events than requests.
    """
    low_c, high_c = rate_interval(int(np.sum(candidate)), candidate_requests, alpha=alpha / 2)
    low_b, high_b = rate_interval(int(np.sum(baseline)), baseline_requests, alpha=alpha / 2)
    return low_c - high_b, high_c - low_b


def dispersion(candidate: npt.ArrayLike, baseline: npt.ArrayLike, share: npt.ArrayLike) -> float:
    """Return the dispersion of the blocks' event differences relative to Poisson, over all blocks; at least 1."""
    c, b = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    w = np.broadcast_to(np.asarray(share, dtype=np.float64), c.shape)
    return float(_dispersion(c, b, w)[-1]) if c.size else 1.0


def rate_interval(events: int, requests: int, *, alpha: float) -> tuple[float, float]:
    """A rate's interval, valid at any time: all p whose mixture likelihood ratio stays below ``1 / alpha``.

    With a uniform prior: ``B(x+1, n-x+1) / (p^x (1-p)^(n-x)) < 1/alpha``.

    Raises:
        ValueError: more events than requests.
    """
    if not 0 <= events <= requests:
        raise ValueError(f"{events} events in {requests} requests are impossible")
    if requests == 0:
        return 0.0, 1.0
    special, optimize = _scipy()
    mixture = special.betaln(events + 1, requests - events + 1)

    def excess(p: float) -> float:
        return float(mixture - special.xlogy(events, p) - special.xlog1py(requests - events, -p) + math.log(alpha))

    point = events / requests
    low = 0.0 if events == 0 else optimize.brentq(excess, 1e-300, point)
    high = 1.0 if events == requests else optimize.brentq(excess, point, 1 - 1e-16)
    return float(low), float(high)


def blocks_needed(shift: Shift, margin: float, *, alpha: float, most: int = 100_000) -> int | None:
    """Blocks after which the interval will lie below the margin, if shift and scatter stay as they are.

    None where it never will (the shift is not below the margin) or not within `most` blocks.
    """
    room = margin - shift.shift
    half = shift.high - shift.shift
    if room <= 0 or not math.isfinite(half) or shift.blocks < MIN_BLOCKS:
        return None
    now = _critical(shift.blocks, alpha)
    if not math.isfinite(now):
        return None
    sd = half * math.sqrt(shift.blocks) / now
    low, high = shift.blocks, most
    if _critical(high, alpha) * sd / math.sqrt(high) > room:
        return None
    while low < high:
        middle = (low + high) // 2
        enough = _critical(middle, alpha) * sd / math.sqrt(middle) <= room
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def _moments(d: Floats) -> tuple[Floats, Floats, Floats]:
    """Of the first 1, 2, ... of n values: mean, sum of squared deviations, and the factor on variances; each [n].

    The factor is ``(1+r)/(1-r)`` for a positive lag-1 autocorrelation r, as a first-order process has it.
    """
    n = np.arange(1, d.size + 1)
    total = np.cumsum(d)
    mean = total / n
    squares = np.maximum(np.cumsum(d**2) - n * mean**2, 0.0)
    products = np.concatenate([[0.0], np.cumsum(d[1:] * d[:-1])])
    lagged = products - mean * (2 * total - d[0] - d) + (n - 1) * mean**2
    r = np.divide(lagged, squares, out=np.zeros_like(lagged), where=squares > 0).clip(0.0, 0.9)
    return mean, squares, (1 + r) / (1 - r)


def _dispersion(c: Floats, b: Floats, share: Floats) -> Floats:
    """Return the dispersion relative to Poisson of the first 1, 2, ... of n blocks, [n]; a ratio, at least 1.

    `c` and `b` [n] are events of candidate and baseline, `share` [n] the candidate's fraction of the requests.
    """
    factor = share / (1 - share)
    expected = np.cumsum(c + factor**2 * b)
    _, squares, inflation = _moments(c - factor * b)
    excess = np.divide(squares, expected, out=np.ones_like(squares), where=expected > 0)
    found = np.maximum(excess, 1.0) * inflation
    found[: MIN_BLOCKS - 1] = 1.0
    return found


def _bayes_factor(t: Floats, n: NDArray[np.int64]) -> Floats:
    """Return the Bayes factor of a t statistic for each look, [n]; `n` is the number of values behind each."""
    v, r = n - 1, 1 + n * PRIOR
    logs = -0.5 * np.log(r) + n / 2 * (np.log1p(t**2 / v) - np.log1p(t**2 / (v * r)))
    return np.asarray(np.exp(np.minimum(logs, 700.0)), dtype=np.float64)


def _critical(n: int, alpha: float) -> float:
    """The t beyond which the Bayes factor of n blocks is ``1 / alpha``; infinite where no t reaches it."""
    v, r = n - 1, 1 + n * PRIOR
    q = math.exp(min((-math.log(alpha) + 0.5 * math.log(r)) * 2 / n, 700.0))
    return math.inf if q >= r else math.sqrt(v * (q - 1) / (1 - q / r))


def _candidate_probability(share: Floats, odds: float) -> Floats:
    """Return the probability, [n], that an event is the candidate's at its `share` of requests and those odds."""
    return share * odds / (share * odds + 1 - share)


def _mean_exp(logs: Floats) -> Floats:
    """The log of the mean of exponentials over the first axis."""
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.exp(logs - top).mean(axis=0)), dtype=np.float64)


@cache
def _scipy() -> tuple[Any, Any]:
    """Import scipy lazily, because the import is slow."""
    from scipy import optimize, special

    return special, optimize
