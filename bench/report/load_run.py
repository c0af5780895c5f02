"""A load run's figures, computed again from its raw arrays: open loop with latencies, closed loop with its rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..load.run import LoadRun, Saturation
from ..load.summary import LoadSummary, summarise
from ..measurement import spell
from .junit import document
from .page import write_page
from .told import Told, exit_case, markdown_lines, recomputed

if TYPE_CHECKING:
    from rich.console import Console


def told(folder: Path) -> Told:
    """Summarise an open-loop run again; exit 4 where it broke its own rules, 1 where requests were refused.

    Raises:
        IntegrityError: the run cannot be read.
    """
    run = LoadRun.read(folder)
    summary = summarise(run)
    name = f"load on {run.target}"
    outcome = "INVALID" if summary.breaches else "FAIL" if summary.failures else ""
    exit_code = {"INVALID": 4, "FAIL": 1, "": 0}[outcome]
    failures = [f"{each.count} requests ended with status {each.status}: {each.reason}" for each in summary.failures]
    reasons = [*summary.breaches, *failures]
    lines = [(what, f"{value}, {about}" if about else value) for what, value, about in _lines(summary)]
    return Told(
        kind="open loop",
        exit_code=exit_code,
        document=summary.to_json(),
        show=lambda console: _show(console, summary),
        markdown=lambda: markdown_lines(name, [*((outcome, reason) for reason in reasons), *lines]),
        junit=lambda inconclusive: document(
            name, "load", [exit_case("load", exit_code, inconclusive, reasons)], properties=lines
        ),
        html=lambda path: write_page(
            path,
            "run.html.j2",
            tables=[],
            title=name,
            outcome=outcome,
            reasons=reasons,
            figures=_figures(summary),
            sections=_sections(run),
            lines=[
                *lines,
                ("arrivals", ", ".join(f"{name} {value}" for name, value in run.schedule.parameters.items())),
                ("batch", str(run.batch)),
            ],
        ),
    )


def told_saturation(folder: Path) -> Told:
    """The figures of a closed-loop run."""
    run = Saturation.read(folder)
    return recomputed("closed loop", folder, _Closed(run))


class _Closed:
    """A closed-loop run's figures as a document; exit 1 where replies were errors."""

    def __init__(self, run: Saturation) -> None:
        self._run = run
        self.exit_code = 1 if run.errors else 0

    def to_json(self) -> dict[str, Any]:
        run = self._run
        return {
            "target": run.target,
            "inferences_per_second": run.inferences_per_second,
            "requests_per_second": run.requests_per_second,
            "completed": run.completed,
            "errors": run.errors,
            "seconds": run.seconds,
            "concurrency": run.concurrency,
            "batch": run.batch,
            "client_cpu": run.client_cpu,
        }


def _lines(summary: LoadSummary) -> list[tuple[str, str, str]]:
    from ..load.show import lines

    return lines(summary)


def _show(console: "Console", summary: LoadSummary) -> None:
    from rich.text import Text

    from ..load.show import table

    console.print(table(_lines(summary)))
    for breach in summary.breaches:
        console.print(Text.assemble(("INVALID ", "bold red"), breach))


def _figures(summary: LoadSummary) -> list[tuple[str, str]]:
    times = (("p50", summary.p50), ("p95", summary.p95), ("p99", summary.p99), ("longest", summary.longest))
    rate = spell(summary.achieved_rate, "1/s")
    return [("rate", rate), *((name, "–" if value is None else spell(value, "s")) for name, value in times)]


def _sections(run: LoadRun) -> list[tuple[str, str, str]]:
    """Heading, what it shows, and the plot, for everything that was answered or waited for."""
    from .. import on_plotly

    waited = run.latency_bounds
    if not waited.size or waited.min() <= 0:
        return []
    kept = run.done - run.intended
    return [
        (
            "Latency",
            "From the intended send, so that a stall counts for everybody who waited; the tail is stretched.",
            on_plotly.latency_curve(waited),
        ),
        (
            "Over the run",
            "Every request at the time it was due; of many the slowest of each moment are drawn.",
            on_plotly.latency_over_time(run.intended, kept),
        ),
    ]
