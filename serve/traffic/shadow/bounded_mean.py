"""The mean of values between 0 and 1: bounds that hold however often one looks, and how many values a proof needs.

Pure. It serves rates too (values that are 0 or 1) and needs no variance, no normality and no equal distribution: only
that each value's mean, given the past, is the same.

By betting (Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86, 2024; the
mixture over bets is Orabona and Jun's universal portfolio, IEEE Trans. Information Theory 70, 2024): who believes that
the mean is at most m is offered the bet that multiplies capital by ``1 - f + f x / m``, which on average gains nothing
if that is so. The capital averaged over the fractions `BETS` is an e-process, it exceeds ``1 / alpha`` ever with
probability at most `alpha`, and it falls as m grows: the bound is where it crosses.
"""

import math

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Near 1 what matters is a bet of nearly everything; to find a rare event twice as frequent as allowed, a small one.
BETS: Floats = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.8, 0.95, 1.0])
_FINE = 1e-10  # to which a bound is found


def mean_interval(values: npt.ArrayLike, *, alpha: float) -> tuple[float, float]:
    """An interval for the mean that covers it at all times together with probability at least ``1 - alpha``.

    Raises:
        ValueError: a value is not from 0 to 1.
    """
    x, counts = _counted(values)
    return _low(x, counts, alpha / 2), 1.0 - _low(1.0 - x, counts, alpha / 2)


def values_needed(values: npt.ArrayLike, limit: float, *, alpha: float, most: int = 10_000_000) -> int | None:
    """Values in all after which the interval will lie above `limit`, if those to come are like these.

    None where it never will, or not within `most`, or nothing was seen yet.

    Raises:
        ValueError: a value is not from 0 to 1.
    """
    x, counts = _counted(values)
    if not x.size or limit >= 1.0:
        return None
    if limit <= 0.0:
        return int(counts.sum())
    gains = _log_capitals(x, counts, limit) / counts.sum()
    wanted = math.log(2.0 / alpha)
    if _log_mean_exp(most * gains) < wanted:
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _log_mean_exp(middle * gains) >= wanted else (middle + 1, high)
    return low


def _counted(values: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Distinct values [n] and how often each came [n]: bets that never change do not care for the order."""
    x = np.asarray(values, dtype=np.float64).ravel()
    if not ((x >= 0.0) & (x <= 1.0)).all():
        raise ValueError("values from 0 to 1 are needed")
    distinct, counts = np.unique(x, return_counts=True)
    return distinct, counts.astype(np.float64)


def _low(x: Floats, counts: Floats, alpha: float) -> float:
    """The largest mean that is refuted from below, 0 where none is; `x` [n] in [0, 1], `counts` [n] times each."""
    wanted = math.log(1.0 / alpha)
    low, high = 0.0, float(np.average(x, weights=counts)) if x.size else 0.0
    if high == 0.0:
        return 0.0
    while high - low > _FINE:
        middle = (low + high) / 2
        low, high = (middle, high) if _log_mean_exp(_log_capitals(x, counts, middle)) >= wanted else (low, middle)
    return low


def _log_capitals(x: Floats, counts: Floats, mean: float) -> Floats:
    """The log of each bet's capital against "the mean is at most `mean`", [bets]; -inf where it lost everything."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.log1p(BETS[:, None] * (x / mean - 1.0)) @ counts, dtype=np.float64)


def _log_mean_exp(logs: Floats) -> float:
    """Return the log of the mean of ``exp(logs)``, `logs` [n], without overflow."""
    top = float(logs.max())
    return top if not math.isfinite(top) else top + math.log(float(np.exp(logs - top).mean()))
