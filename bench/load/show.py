"""Presentation of a load run on a terminal and as JSON: the scenario's result and its context. Decides nothing."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from seatrial.optimize import tables
from seatrial.optimize.units import format_milliseconds, short_digest

from ..scenarios import Scenario
from .run import CENSORED, NO_RESULT, OK, TRANSPORT, LoadRun, Saturation
from .score import Score, score
from .summary import SCHEMA, LoadSummary, steady_lines, summarise
from .validity import saturation_breaches

Line = tuple[str, str, str]
_ENDS = {TRANSPORT: "broken", CENSORED: "no reply", NO_RESULT: "no result"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A run under its scenario: the score, everything else as `values`, and as `lines` of (what, value, about).

    `breaches` is why it may not be believed, `failed` how many requests the server did not answer with 200.
    """

    score: Score
    values: dict[str, Any]
    lines: tuple[Line, ...]
    breaches: tuple[str, ...]
    failed: int

    def to_json(self) -> dict[str, Any]:
        """JSON values with a schema number."""
        about = {"valid": not self.breaches, "breaches": list(self.breaches)}
        return {"schema": SCHEMA} | self.values | {"scenario": asdict(self.score)} | about


def read(scenario: Scenario, run: LoadRun | Saturation) -> Reading:
    """Return the summary of a run."""
    found = score(scenario, run)
    head = _score_line(found)
    if isinstance(run, LoadRun):
        summary = summarise(run)
        return Reading(
            score=found,
            values=summary.to_json() | _wire(run),
            lines=(head, *lines(summary), _wire_line(run)),
            breaches=summary.breaches,
            failed=sum(failure.count for failure in summary.failures),
        )
    return Reading(
        score=found,
        values=_closed_values(run) | _wire(run),
        lines=(head, *_closed_lines(run), _wire_line(run)),
        breaches=saturation_breaches(run),
        failed=run.errors,
    )


def table(rows: Iterable[Line]) -> Table:
    """One figure a line."""
    return tables.table(("what", "value", "about"), rows, left=("what", "about"), look="ruled", header=False)


def lines(summary: LoadSummary) -> list[Line]:
    """An open-loop run's summary."""
    rows = [
        ("p50", format_milliseconds(summary.p50), "latency from the intended send"),
        ("p95", format_milliseconds(summary.p95), ""),
        ("p99", format_milliseconds(summary.p99), "; ".join(summary.notes)),
        ("achieved", f"{summary.achieved_rate:.1f}/s", f"{summary.answered} of {summary.scheduled} arrivals answered"),
        ("scheduled", f"{summary.scheduled_rate:.1f}/s", f"schedule {short_digest(summary.schedule)}"),
        ("errors", str(sum(failure.count for failure in summary.failures)), ""),
    ]
    rows += [("", str(failure.count), ended(failure.status, failure.reason)) for failure in summary.failures]
    rows += [
        ("lag p99", format_milliseconds(summary.lag_p99), "sends behind schedule, caused by the client"),
        ("client", f"{summary.client_cpu:.0%}", "of one core"),
    ]
    return rows + (steady_lines(summary.steady) if summary.steady else [])


def ended(status: int, reason: str) -> str:
    """Return how requests ended that got no result: an HTTP status, or in words what had none."""
    return f"{_ENDS.get(status, f'status {status}')}: {reason}"


def _score_line(found: Score) -> Line:
    if found.samples_per_second is not None:
        return found.scenario, f"{found.samples_per_second:.1f}/s", "samples"
    if found.tail is None:
        return found.scenario, "-", "no request was answered"
    percent = f"p{found.tail.quantile * 100:g}"
    if found.tail.upper is None:
        return (
            found.scenario,
            f"{percent} {format_milliseconds(found.tail.observed)}",
            f"no bound from {found.tail.n} requests",
        )
    bound = f"at most {format_milliseconds(found.tail.upper)} (99 % confidence, {found.tail.n} requests)"
    return found.scenario, f"{percent} {format_milliseconds(found.tail.observed)}", bound


def _wire(run: LoadRun | Saturation) -> dict[str, Any]:
    return {"protocol": run.about.protocol or "http", "workers": run.about.workers or 1}


def _wire_line(run: LoadRun | Saturation) -> Line:
    about = _wire(run)
    return "protocol", about["protocol"], "1 load process" if about["workers"] == 1 else f"{about['workers']} workers"


def _closed_values(run: Saturation) -> dict[str, Any]:
    p50, p95, p99 = _percentiles(run)
    return {
        "target": run.target,
        "seconds": run.seconds,
        "concurrency": run.concurrency,
        "batch": run.batch,
        "completed": run.completed,
        "errors": run.errors,
        "requests_per_second": run.requests_per_second,
        "samples_per_second": run.inferences_per_second,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "client_cpu": run.client_cpu,
    }


def _closed_lines(run: Saturation) -> list[Line]:
    p50, p95, p99 = _percentiles(run)
    statuses, counts = np.unique(run.status[run.status != OK], return_counts=True)
    said = {TRANSPORT: "connection failed"} | dict(run.reasons)
    return [
        ("p50", format_milliseconds(p50), f"latency in a closed loop, {run.concurrency} in flight"),
        ("p95", format_milliseconds(p95), ""),
        ("p99", format_milliseconds(p99), ""),
        ("requests", f"{run.requests_per_second:.1f}/s", f"{run.completed} answered in {run.seconds:g} s"),
        ("samples", f"{run.inferences_per_second:.1f}/s", f"{run.batch} per request"),
        ("errors", str(run.errors), ""),
        *(
            ("", str(count), ended(status, said.get(status, "")))
            for status, count in zip(statuses.tolist(), counts.tolist(), strict=True)
        ),
        ("client", f"{run.client_cpu:.0%}", "of one core"),
    ]


def _percentiles(run: Saturation) -> tuple[float | None, ...]:
    times = run.latency
    return tuple(float(each) for each in np.quantile(times, (0.5, 0.95, 0.99))) if len(times) else (None, None, None)
