"""Validity of a load run: was the promised load offered, by a client with capacity to spare?

Pure. Looks at the client's side alone: slow or failed replies are the server's and belong into the verdict, while a run
whose client lagged says nothing about any server. Limits after MLPerf and wrk2.
"""

from collections.abc import Callable, Collection
from math import exp, sqrt

import numpy as np

from ..load_limits import LoadLimits
from ..schedule import Schedule
from .run import CENSORED, TRANSPORT, Floats, LoadRun, Saturation

MIN_GAPS = 100  # fewer say nothing about a distribution
PRECISION = 0.001
"""Tolerance in seconds, the resolution of event loops' timers, for gaps of laws whose gaps share one length: gamma,
constant, replay.
"""
BURST = 50e-6
"""Seconds between two sends of one load process that are due at once; the time a send takes is not counted as lag."""
LAG_OF_TAIL = 0.02
"""Lag beyond this fraction of the 99th percentile is reported; it breaks no rule."""


def breaches(run: LoadRun, limits: LoadLimits | None = None) -> tuple[str, ...]:
    """Every rule that the run breaks, as ``rule: what happened (limit)``; empty where the run may be believed.

    Rules: offered, lag, client cpu, dropped, unanswered, transport, arrivals. Error replies are none of them. What cut
    the run short (`LoadRun.faults`) comes first.
    """
    limits = limits or LoadLimits()
    found = [
        *run.faults,
        _offered(run, limits),
        _lag(run, limits),
        _client_cpu(run.client_cpu, limits),
        _arrivals(run, limits),
    ]
    dropped = int(np.count_nonzero((run.status == CENSORED) & np.isnan(run.sent)))
    unanswered = int(np.count_nonzero((run.status == CENSORED) & ~np.isnan(run.sent)))
    if dropped > limits.dropped:
        found.append(
            f"dropped: {dropped} arrivals were never sent, because too many requests were in flight "
            f"(limit {limits.dropped})"
        )
    if unanswered > limits.dropped:
        found.append(f"unanswered: {unanswered} requests had no reply when the run ended (limit {limits.dropped})")
    found.append(_transport(int(np.count_nonzero(run.status == TRANSPORT)), run.reasons.get(TRANSPORT, ""), limits))
    return tuple(breach for breach in found if breach)


def saturation_breaches(run: Saturation, limits: LoadLimits | None = None) -> tuple[str, ...]:
    """Every rule that a closed-loop run breaks: a client short of processor time measures itself, not the server."""
    limits = limits or LoadLimits()
    found = [
        *run.faults,
        _client_cpu(run.client_cpu, limits) or _client_busy(run, limits),
        _transport(int(np.count_nonzero(run.status == TRANSPORT)), run.reasons.get(TRANSPORT, ""), limits),
        "" if run.completed else "offered: no request was completed",
    ]
    return tuple(breach for breach in found if breach)


def lag_limit(run: LoadRun, limits: LoadLimits) -> float:
    """Seconds that the 99th percentile of the lag may reach in this run."""
    latency = run.latency
    return max(limits.lag, limits.lag_of_p50 * float(np.median(latency)) if len(latency) else 0.0)


def caveats(run: LoadRun) -> tuple[str, ...]:
    """Return caveats that do not invalidate the run: lag against the tail, cores shared with the server.

    Cores are known where `run.about` names them, as ``cores`` and ``server_cores``.
    """
    found = []
    if len(run.lag) and len(run.latency):
        lag, tail = float(np.quantile(run.lag, 0.99)), float(np.quantile(run.latency, 0.99))
        if lag > LAG_OF_TAIL * tail > 0:
            found.append(f"the client's lag is {lag / tail:.1%} of p99 (reported from {LAG_OF_TAIL:.0%})")
    found.append(_bursts(run))
    found.append(shared_cores(run.about.cores or (), run.about.server_cores or ()))
    return tuple(caveat for caveat in found if caveat)


def feasible(run: LoadRun) -> Floats:
    """Return the earliest send time of each arrival, in seconds, [arrivals]; simultaneous ones go in turn (`BURST`)."""
    spacing = BURST / max(1, run.about.workers or 1)
    order = np.argsort(run.intended, kind="stable")
    steps = spacing * np.arange(len(run))
    found = np.empty(len(run))
    found[order] = np.maximum.accumulate(run.intended[order] - steps) + steps
    return np.maximum(found, run.intended)  # not below it by rounding


def _bursts(run: LoadRun) -> str:
    """Describe the delay of simultaneous arrivals, with advice if a recording caused it."""
    held = float(np.max(feasible(run) - run.intended, initial=0.0))
    if held <= PRECISION:
        return ""
    said = (
        f"arrivals due at the same time are sent one after the other, the last {held * 1e3:.1f} ms "
        "late, and wait that much longer"
    )
    offsets = run.schedule.offsets * (run.schedule.shape.speed or 1.0)
    if run.schedule.law == "replay" and len(offsets) > 1 and np.allclose(offsets % 1.0, offsets[0] % 1.0, atol=1e-6):
        said += "; the recording has whole seconds: --spread 1 distributes its bursts, more workers send them faster"
    return said


def shared_cores(client: Collection[int], server: Collection[int]) -> str:
    """Report that client and server may share cores; empty if not.

    A server that takes the processor from its own client shows as lag of the client, so as an invalid run.
    """
    both = sorted(set(client) & set(server))
    return f"client and server share cores {', '.join(map(str, both))}" if both else ""


def arrival_distance(sent: Floats, schedule: Schedule, precision: float = PRECISION) -> tuple[float, float]:
    """Return the Kolmogorov-Smirnov distance of the send gaps from the schedule's law, and its p-value.

    Poisson and ramp: gaps on the scale of expected arrivals against the unit exponential (time-rescaling, Brown et al.,
    Neural Computation 14, 2002). Gamma: against its own law. Constant and replay have no chance in them: against the
    scheduled gaps themselves, with p 0. All but the first two forgive `precision` seconds to either side, since their
    laws pile up where a timer's jitter would move whole shares.
    """
    if schedule.law in ("poisson", "ramp"):
        return kolmogorov_smirnov(np.diff(schedule.expected(np.sort(sent))), lambda x: -np.expm1(-x))
    gaps = np.diff(np.sort(sent))
    if schedule.law == "gamma":
        from scipy.special import gammainc

        shape = schedule.shape.burstiness or 1.0
        rate = shape * schedule.rate
        return kolmogorov_smirnov(
            gaps, lambda x: np.asarray(gammainc(shape, rate * np.maximum(x, 0.0)), np.float64), precision
        )
    planned = np.sort(np.diff(schedule.offsets))
    distance, _ = kolmogorov_smirnov(
        gaps, lambda x: np.searchsorted(planned, x, "right") / max(len(planned), 1), precision
    )
    return distance, 0.0


def kolmogorov_smirnov(values: Floats, law: Callable[[Floats], Floats], precision: float = 0.0) -> tuple[float, float]:
    """The largest distance between values [n] and a law's distribution, and its p; both sides forgive `precision`.

    p by Stephens' approximation (JRSS B 32, 1970) of Kolmogorov's series, good to 1 % from 20 values on.
    """
    n, ordered = len(values), np.sort(values)
    above = np.arange(1, n + 1) / n - law(ordered + precision)
    below = law(ordered - precision) - np.arange(n) / n
    distance = max(0.0, float(np.max(above)), float(np.max(below)))
    scaled = distance * (sqrt(n) + 0.12 + 0.11 / sqrt(n))
    if scaled < 0.3:  # the series converges slowly there, and p is 1 to five digits
        return distance, 1.0
    p = 2 * sum((-1) ** (k - 1) * exp(-2 * k**2 * scaled**2) for k in range(1, 101))
    return distance, min(1.0, max(0.0, p))


def _offered(run: LoadRun, limits: LoadLimits) -> str:
    """An arrival counts as offered when it was sent before the schedule's end, give or take the allowed lag."""
    latest = np.maximum(run.schedule.seconds, feasible(run))
    in_time = np.count_nonzero(run.sent <= latest + lag_limit(run, limits))  # NaN compares false
    share = float(in_time / len(run))
    if share >= limits.offered:
        return ""
    return f"offered: {share:.2%} of the scheduled arrivals were sent in time (limit {limits.offered:.2%})"


def _lag(run: LoadRun, limits: LoadLimits) -> str:
    lag = (run.sent - feasible(run))[~np.isnan(run.sent)]
    if not len(lag):
        return "lag: nothing was sent"
    reached, limit = float(np.quantile(lag, 0.99)), lag_limit(run, limits)
    if reached <= limit:
        return ""
    return (
        f"lag: the client sent 1 % of the requests more than {reached * 1e3:.2f} ms late (limit {limit * 1e3:.2f} ms)"
    )


def _client_cpu(share: float, limits: LoadLimits) -> str:
    if share <= limits.client_cpu:
        return ""
    return f"client cpu: the load process used {share:.0%} of a core (limit {limits.client_cpu:.0%})"


def _client_busy(run: Saturation, limits: LoadLimits) -> str:
    """Tell where a closed loop measures its own client: one that never rests does not wait for the server."""
    waited = run.about.client_wait or 0.0
    busy = run.client_cpu + waited
    if busy <= limits.busy:
        return ""
    return (
        f"client busy: the load process ran or waited for a core {busy:.0%} of the time ({waited:.0%} "
        f"waiting), so the rate is the client's limit, not the server's (limit {limits.busy:.0%})"
    )


def _transport(count: int, reason: str, limits: LoadLimits) -> str:
    if count <= limits.transport:
        return ""
    return f"transport: {count} connections failed (limit {limits.transport}), the first: {reason}"


def _arrivals(run: LoadRun, limits: LoadLimits) -> str:
    sent = run.sent[~np.isnan(run.sent)]
    if len(sent) <= MIN_GAPS:
        return ""
    distance, p = arrival_distance(sent, run.schedule)
    if p >= limits.arrival_p or distance <= limits.arrival_distance:
        return ""
    return (
        f"arrivals: the gaps between sends do not follow a {run.schedule.law} schedule of "
        f"{run.schedule.rate:g}/s: distance {distance:.3f} (limit {limits.arrival_distance:g}), p "
        f"{p:.1g}"
    )
