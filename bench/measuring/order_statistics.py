"""Order statistics of one stream of latencies without a distribution: ranks, and bounds by counting.

Pure. Each bound is an order statistic whose rank follows from the binomial law; dependence in time makes the stream
count as fewer values (`effective_size`), never as more.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.99  # of the upper bound of a percentile, MLPerf's choice
_MOST_LAGS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Median with a 95 % interval, 99th percentile with a bound that the true one exceeds in 1 % of runs only.

    `n_effective` is how many independent values the `n` are worth in the tail. A bound that so few values cannot give
    is None.
    """

    n: int
    n_effective: int
    median: float
    interval: tuple[float, float] | None
    p99: float
    p99_upper: float | None


def quantiles(values: npt.ArrayLike) -> Quantiles:
    """The figures of a stream in the order in which it was taken.

    Raises:
        ValueError: no values, or some that are not finite.
    """
    stream = np.asarray(values, np.float64)
    if stream.ndim != 1 or not stream.size or not np.isfinite(stream).all():
        raise ValueError(f"finite values in one dimension are needed, got {stream.size} of shape {stream.shape}")
    tail, middle = effective_size(stream, 0.99), effective_size(stream, 0.5)
    low, high = lower_bound(stream, 0.5, 0.975, middle), upper_bound(stream, 0.5, 0.975, middle)
    return Quantiles(
        n=stream.size,
        n_effective=tail,
        median=float(np.median(stream)),
        interval=(low, high) if low is not None and high is not None else None,
        p99=float(np.quantile(stream, 0.99)),
        p99_upper=upper_bound(stream, 0.99, CONFIDENCE, tail),
    )


def upper_bound(values: Floats, q: float, confidence: float, size: int | None = None) -> float | None:
    """A value that the true q-quantile does not exceed, with that confidence; None where there are too few values.

    The k-th smallest of n independent values is one if ``P(Binomial(n, q) <= k - 1) >= confidence`` (David, Nagaraja,
    Order Statistics, 7.1). With `size` effective values the rank is sought among so many and scaled.
    """
    from scipy import stats

    n = min(size or values.size, values.size)
    rank = int(stats.binom.ppf(confidence, n, q)) + 1
    if rank > n:
        return None
    return float(np.sort(values)[min(math.ceil(rank / n * values.size), values.size) - 1])


def lower_bound(values: Floats, q: float, confidence: float, size: int | None = None) -> float | None:
    """A value that the true q-quantile is not below, with that confidence: `upper_bound` of the mirrored values [n]."""
    mirrored = upper_bound(-values, 1 - q, confidence, size)
    return None if mirrored is None else -mirrored


def effective_size(values: Floats, q: float) -> int:
    """Return the effective number of independent values of a stream [n] for its q-quantile: ``n / tau``.

    tau is the integrated autocorrelation time of "above the quantile or not", summed over the initial positive sequence
    of pairs of lags (Geyer, Statistical Science 7:473-483, 1992); at least 1, so that nothing gains by it.
    """
    n = values.size
    above = (values > np.quantile(values, q)).astype(np.float64)
    centred = above - above.mean()
    power = float(centred @ centred)
    if n < 4 or power == 0:
        return n
    lags = min(n // 2, _MOST_LAGS)
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[: 2 * (lags // 2)] / power
    pairs = correlation[::2] + correlation[1::2]
    ends = np.flatnonzero(pairs <= 0)
    tau = 2 * float(pairs[: ends[0] if ends.size else None].sum()) - 1
    return max(1, int(n / max(tau, 1.0)))
