"""Steady state of a load run, and the number of independent requests behind its percentiles.

Pure. A percentile describes a server only where the run has settled: warm-up cut off, no backlog growing, both halves
alike. A run in which the backlog grows says "overload": the server cannot keep up, and no repetition will help; what
merely scatters too much to tell is called something else. Whether the *client* did its part is `validity`'s question.
"""

from dataclasses import dataclass
from math import ceil, exp, log, sqrt
from typing import Literal

import numpy as np

from .run import CENSORED, Floats, LoadRun

Label = Literal["steady", "overload", "warming", "unsettled", "too short"]

MIN_ARRIVALS = 200  # fewer show neither a trend nor a correlation
BATCH = 5  # MSER-5
BATCHES = 16  # stretches of the window whose means are compared; long against the time in which a queue forgets
CONFIDENCE = 0.99  # of the intervals that decide, as LoadGen's early stopping
LITTLE = 0.05  # relative violation of Little's law L = lambda W; chosen
COMPLETED = 0.01  # fraction of arrivals that may be missing from the completions; chosen
HALVES = 0.02  # relative difference of the halves' medians; chosen, well below the 5 % that gates usually allow
_BIN = 0.1  # seconds, of the completions that are watched for warm-up


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """Statistics of the arrivals after the warm-up; None where there were too few.

    `cut` is the warm-up in seconds, `counted` the arrivals after it, `effective` how many independent ones they are
    worth: counted / `autocorrelation`, the integrated autocorrelation time of "slower than the 99th percentile".
    `in_flight` is their mean number in the server (Little's L), `backlog` its growth per second with a 99 % interval.
    `little` is ``(L - lambda W) / L``, `completed` completions per arrival, `halves` the median latency of the second
    half over the first's, with its 99 % interval. `reasons` say why the label is not "steady".
    """

    label: Label
    reasons: tuple[str, ...] = ()
    cut: float = 0.0
    counted: int = 0
    effective: int = 0
    autocorrelation: float | None = None
    in_flight: float | None = None
    backlog: tuple[float, float, float] | None = None
    little: float | None = None
    completed: float | None = None
    halves: tuple[float, float, float] | None = None

    @property
    def overloaded(self) -> bool:
        """The server could not keep up."""
        return self.label == "overload"


def steady_state(run: LoadRun) -> SteadyState:
    """Judge an open-loop run after its warm-up; times of unanswered arrivals count as far as they are known.

    Overload: the 99 % interval of the backlog's growth lies above 0, and fewer requests are completed than arrive (or
    arrivals got no answer at all). Otherwise each test that fails is a reason: Little's law within 5 %, completions
    within 1 % of arrivals (or what the number in flight scatters by), medians of the halves not shown to be more than
    2 % apart, warm-up over before the last tenth of what may be cut.
    """
    if run.schedule.law == "ramp":
        return SteadyState(label="unsettled", reasons=("a ramp has no steady state",))
    seconds = run.schedule.seconds
    order = np.argsort(run.intended, kind="stable")
    order = order[~np.isnan(run.done[order])]  # arrivals that a lost worker took with it say nothing
    intended, done = run.intended[order], run.done[order]
    unanswered = int(np.count_nonzero(run.status == CENSORED))
    if len(intended) < MIN_ARRIVALS:
        return SteadyState(label="too short", reasons=(f"{len(intended)} arrivals, {MIN_ARRIVALS} are needed",))
    cut, warm = warm_up(intended, done, seconds)
    kept = intended >= cut
    latency = done[kept] - intended[kept]
    if len(latency) < MIN_ARRIVALS:
        return SteadyState(label="too short", reasons=(f"only {len(latency)} arrivals after {cut:.1f} s of warm-up",))
    backlog, scatter = growth(intended, done, cut, seconds)
    level = in_flight(intended, done, np.array([cut, seconds]))[0]
    arrived, ended = len(latency), int(np.count_nonzero((done >= cut) & (done < seconds)))
    little = float((level - np.sum(latency) / (seconds - cut)) / level) if level > 0 else 0.0
    halves = second_half(latency)
    tau = autocorrelation_time(latency > np.quantile(latency, 0.99))
    reasons = []
    allowed = max(COMPLETED * arrived, 3 * sqrt(2) * scatter)  # in flight at the one end and not at the other
    overload = backlog[1] > 0 and (arrived - ended > allowed or unanswered > 0)
    if overload:
        reasons.append(f"the backlog grows by {backlog[0]:.3g} requests per second")
    if not warm:
        reasons.append(f"still warming up after {cut:.1f} s")
    if abs(ended - arrived) > allowed:
        reasons.append(f"{ended} requests completed while {arrived} arrived")
    if abs(little) > LITTLE:
        reasons.append(f"Little's law is violated by {little:+.1%}")
    if halves[2] < 1 - HALVES or halves[1] > 1 + HALVES:
        reasons.append(f"the median of the second half differs by {halves[0] - 1:+.1%} from the first half's")
    label: Label = "overload" if overload else "warming" if not warm else "unsettled" if reasons else "steady"
    return SteadyState(
        label=label,
        reasons=tuple(reasons),
        cut=cut,
        counted=arrived,
        effective=int(arrived / tau),
        autocorrelation=tau,
        in_flight=float(level),
        backlog=backlog,
        little=little,
        completed=ended / arrived,
        halves=halves,
    )


def warm_up(intended: Floats, done: Floats, seconds: float) -> tuple[float, bool]:
    """Seconds to cut off, and whether the run was warm before the last tenth of what may be cut.

    The later of two MSER-5 cuts: of the latencies in order of arrival, and of completions per tenth of a second.
    """
    latency, most = done - intended, len(intended) // BATCH // 2
    by_latency = mser(batch_means(latency, BATCH))
    cut = float(intended[by_latency * BATCH]) if by_latency else 0.0
    completions = np.histogram(done, bins=np.arange(0.0, seconds + _BIN / 2, _BIN))[0].astype(np.float64)
    by_count = mser(batch_means(completions, BATCH))
    return max(cut, by_count * BATCH * _BIN), by_latency <= 0.9 * most


def mser(values: Floats) -> int:
    """Return how many leading values of [n] to discard for the least standard error of the mean; at most half.

    ``argmin_d sum_{i>=d} (z_i - mean_d)^2 / (n - d)^2``: White, Cobb and Spratt, Winter Simulation Conference 2000;
    over means of five values it is MSER-5.
    """
    n = len(values)
    if n < 4:
        return 0
    left = n - np.arange(n // 2 + 1)
    centred = values - values.mean()
    total = np.cumsum(centred[::-1])[::-1][: len(left)]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][: len(left)]
    return int(np.argmin((squares - total**2 / left) / left**2))


def batch_means(values: Floats, size: int) -> Floats:
    """Means of consecutive batches: [n] gives [n // size]; what is left over at the end is not used."""
    whole = len(values) // size
    means: Floats = values[: whole * size].reshape(whole, size).mean(axis=1)
    return means


def in_flight(intended: Floats, done: Floats, edges: Floats) -> Floats:
    """Mean number of requests in the server between each two edges, [edges - 1]; exact, by the area under the count.

    All times in seconds: `intended` and `done` [arrivals], `edges` [edges].
    """
    area = _area(intended, edges) - _area(done, edges)
    means: Floats = np.diff(area) / np.diff(edges)
    return means


def growth(intended: Floats, done: Floats, start: float, end: float) -> tuple[tuple[float, float, float], float]:
    """Growth of the number in flight per second with its 99 % interval, and the scatter of that number about its trend.

    Least squares over the means of `BATCHES` stretches, with a t interval: neighbouring counts are far too alike to be
    taken one by one.
    """
    from scipy import stats

    edges = np.linspace(start, end, BATCHES + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    fit = stats.linregress(middles, in_flight(intended, done, edges))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, BATCHES - 2) * fit.stderr)
    times = np.linspace(start, end, 40 * BATCHES)
    count = np.searchsorted(intended, times, "right") - np.searchsorted(np.sort(done), times, "right")
    scatter = float(np.std(count - fit.slope * times))
    return (float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach), scatter


def second_half(latency: Floats) -> tuple[float, float, float]:
    """Median latency of the second half over that of the first, with a 99 % interval from medians of stretches."""
    from scipy import stats

    parts = [log(max(float(np.median(part)), 1e-12)) for part in np.array_split(latency, BATCHES)]
    first, second = np.array(parts[: BATCHES // 2]), np.array(parts[BATCHES // 2 :])
    difference = float(second.mean() - first.mean())
    error = sqrt(float(first.var(ddof=1) + second.var(ddof=1)) / (BATCHES / 2))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, BATCHES - 2)) * error
    return exp(difference), exp(difference - reach), exp(difference + reach)


def autocorrelation_time(values: Floats | np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Integrated autocorrelation time of a series [n], at least 1: n values are worth n / tau independent ones.

    Geyer's initial positive sequence (Statistical Science 7, 1992): sums of neighbouring autocorrelations are added up
    until the first that is not positive. 1 where all values are the same.
    """
    centred = np.asarray(values, dtype=np.float64)
    centred = centred - centred.mean()
    n = len(centred)
    if n < 4 or not np.any(centred):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 ** ceil(np.log2(2 * n)))
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    pairs = covariance[: n // 2 * 2].reshape(-1, 2).sum(axis=1) / covariance[0]
    positive = int(np.argmax(pairs <= 0)) if np.any(pairs <= 0) else len(pairs)
    return max(1.0, float(2 * pairs[:positive].sum() - 1))


def _area(times: Floats, edges: Floats) -> Floats:
    """Integral in seconds, [edges], up to each edge, of the number of `times` [n] that lie before."""
    ordered = np.sort(times)
    count = np.searchsorted(ordered, edges, "right")
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    area: Floats = count * edges - sums[count]
    return area
