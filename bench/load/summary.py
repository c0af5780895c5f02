"""The figures of a load run that people read, recomputed from its raw arrays each time.

Pure. Holds nothing that the arrays do not say, and is never stored in their place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from seatrial.optimize.record import Record

from ..load_limits import LoadLimits
from .run import CENSORED, NO_RESULT, OK, TRANSPORT, LoadRun
from .steady import SteadyState, steady_state
from .validity import breaches, caveats

SCHEMA = 1
MIN_FOR_P99 = 662
"""Smallest number of requests whose second largest value exceeds the true 99th percentile with 99 % confidence.
(Smallest n with P(Binomial(n, 0.01) <= 1) <= 0.01, the early-stopping rule of MLPerf.)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Requests that ended alike: HTTP status (0 broken connection, -1 no reply, -3 no result), how many, why."""

    status: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary(Record, schema=SCHEMA):
    """Figures of one run; times in seconds from the intended send, rates per second, None where nothing was answered.

    Percentiles include unanswered arrivals with the time they had waited. `notes` says what weakens a figure without
    making the run invalid. `steady` judges what is left after the warm-up; the percentiles are those of the whole run.
    """

    target: str
    schedule: str
    seconds: float
    scheduled: int
    scheduled_rate: float
    answered: int
    achieved_rate: float
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None
    service_p50: float | None
    lag_p50: float | None
    lag_p99: float | None
    client_cpu: float
    failures: tuple[Failures, ...]
    valid: bool
    breaches: tuple[str, ...]
    notes: tuple[str, ...]
    steady: SteadyState | None = None


def summarise(run: LoadRun, limits: LoadLimits | None = None) -> LoadSummary:
    """The figures of a run, and whether they may be believed under these limits."""
    broken = breaches(run, limits)
    waited = run.latency_bounds
    answered = int(np.count_nonzero(run.status == OK))
    span = max(run.schedule.seconds, float(np.max(run.done[run.status == OK], initial=0.0)))
    steady = steady_state(run)
    return LoadSummary(
        target=run.target,
        schedule=run.schedule.digest,
        seconds=run.schedule.seconds,
        scheduled=len(run),
        scheduled_rate=len(run) / run.schedule.seconds,
        answered=answered,
        achieved_rate=answered / span,
        p50=_quantile(waited, 0.5),
        p95=_quantile(waited, 0.95),
        p99=_quantile(waited, 0.99),
        longest=_quantile(waited, 1.0),
        service_p50=_quantile(run.service, 0.5),
        lag_p50=_quantile(run.lag, 0.5),
        lag_p99=_quantile(run.lag, 0.99),
        client_cpu=run.client_cpu,
        failures=_failures(run),
        valid=not broken,
        breaches=broken,
        notes=_notes(run, answered, steady) + caveats(run),
        steady=steady,
    )


def steady_lines(steady: SteadyState) -> list[tuple[str, str, str]]:
    """The steady state as (what, value, about), for a table."""
    if steady.backlog is None or steady.in_flight is None or steady.little is None or steady.completed is None:
        return [("steady state", steady.label, "; ".join(steady.reasons))]
    slope, low, high = steady.backlog
    return [
        ("steady state", steady.label, "; ".join(steady.reasons) or f"after {steady.cut:.1f} s of warm-up"),
        ("in flight", f"{steady.in_flight:.2f}", f"growing by {slope:+.2g}/s ({low:+.2g} to {high:+.2g})"),
        ("", f"{steady.completed:.1%}", f"completions per arrival; Little's law holds within {abs(steady.little):.1%}"),
        (
            "independent",
            str(steady.effective),
            f"requests of {steady.counted}; the slowest hundredth is clustered",
        ),
    ]


def _quantile(values: np.ndarray[Any, np.dtype[np.float64]], q: float) -> float | None:
    """Return the q-quantile of values [n] in their unit; None of none."""
    return float(np.quantile(values, q)) if len(values) else None


def _failures(run: LoadRun) -> tuple[Failures, ...]:
    statuses, counts = np.unique(run.status[run.status != OK], return_counts=True)
    said = {CENSORED: "no reply when the run ended", TRANSPORT: "connection failed"} | dict(run.reasons)
    return tuple(
        Failures(status=status, count=count, reason=said.get(status, ""))
        for status, count in zip(statuses.tolist(), counts.tolist(), strict=True)
    )


def _notes(run: LoadRun, answered: int, steady: SteadyState) -> tuple[str, ...]:
    notes = []
    if answered < MIN_FOR_P99:
        notes.append(f"too few for p99: {answered} answers, {MIN_FOR_P99} are needed")
    elif steady.effective < MIN_FOR_P99:
        notes.append(f"p99 rests on {steady.effective} independent requests, {MIN_FOR_P99} are needed")
    if steady.overloaded:
        notes.append(f"overload: {steady.reasons[0]}, so every percentile grows with the duration of the run")
    if censored := int(np.count_nonzero(run.status == CENSORED)):
        notes.append(f"percentiles are lower bounds: {censored} arrivals had no reply")
    if errors := int(np.count_nonzero((run.status > 0) | (run.status == NO_RESULT)) - answered):
        notes.append(f"percentiles exclude {errors} error replies")
    return tuple(notes)
