"""MLPerf's four scenarios: how queries come, and the one figure that each is judged by.

Pure; sends nothing. Names, samples per query and percentiles are those of the MLPerf inference rules; run lengths are
the caller's. Tails are reported with LoadGen's early-stopping bound, so that a short run cannot flatter itself.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.errors import ConfigError

Floats = NDArray[np.float64]
CONFIDENCE = 0.99  # of LoadGen's early stopping (MLPerf inference rules, appendix on early stopping)


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStream:
    """One user who sends the next query when the last is answered; judged by the 90th percentile."""

    name: Literal["single-stream"] = "single-stream"
    concurrency: int = 1
    batch: int = 1
    quantile: float = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiStream:
    """One user whose queries hold eight samples (a car's cameras); judged by the 99th percentile."""

    name: Literal["multi-stream"] = "multi-stream"
    concurrency: int = 1
    batch: int = 8
    quantile: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """All samples back to back, `concurrency` queries of `batch` samples at a time; judged by samples per second."""

    name: Literal["offline"] = "offline"
    batch: int = 8
    concurrency: int = 16

    def __post_init__(self) -> None:
        if self.batch < 1 or self.concurrency < 1:
            raise ConfigError(
                f"offline needs a positive batch and concurrency, got {self.batch} and {self.concurrency}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Strangers who come as a Poisson process of `rate` queries a second; judged by the 99th percentile."""

    name: Literal["server"] = "server"
    rate: float
    batch: int = 1
    quantile: float = 0.99

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.batch < 1:
            raise ConfigError(f"server needs a positive rate and batch, got {self.rate} and {self.batch}")


Scenario = SingleStream | MultiStream | Offline | Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """A percentile: the observed one, and a bound that the true one exceeds with probability 1 % at most.

    `upper` is None where `n` is too small for any. Both in seconds.
    """

    quantile: float
    observed: float
    upper: float | None
    n: int


def tail(seconds: Floats, quantile: float, confidence: float = CONFIDENCE) -> Tail:
    """The percentile of independent latencies, and its upper bound: the (t+1)-th highest.

    t is the largest number of exceedances with ``P(Binomial(n, 1 - quantile) <= t) <= 1 - confidence``, MLPerf's early
    stopping read backwards: n = 459, 662, 838 give t = 0, 1, 2 at p99. Queues make latencies dependent; the bound is
    then too tight, and n should be divided by their autocorrelation time.
    """
    ordered = np.sort(seconds)
    n = len(ordered)
    allowed = exceedances(n, quantile, confidence)
    return Tail(
        quantile=quantile,
        observed=float(np.quantile(ordered, quantile)),
        upper=None if allowed is None else float(ordered[n - 1 - allowed]),
        n=n,
    )


@cache
def exceedances(n: int, quantile: float, confidence: float = CONFIDENCE) -> int | None:
    """Return how many of n may exceed a limit with the percentile below it at that confidence; None if n is too small.

    Source: MLPerf LoadGen, early_stopping.cc.
    """
    from scipy.stats import binom

    most = int(binom.ppf(1 - confidence, n, 1 - quantile))  # the smallest t whose distribution function reaches it
    while most >= 0 and binom.cdf(most, n, 1 - quantile) > 1 - confidence:
        most -= 1
    return most if most >= 0 else None
