"""A load run's figures, computed again from its raw arrays: open loop with latencies, closed loop with its rate."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_value

from ..load.folder import reading
from ..load.run import LoadRun, Saturation
from ..load.show import Reading, table
from ..load.summary import LoadSummary, summarise
from ..measurement import NOTHING
from ..server_statistics import Counted
from ..server_statistics import lines as server_lines
from .junit import document
from .page import TEMPLATES
from .run_report import RunReport, exit_case, markdown_lines

if TYPE_CHECKING:
    from rich.console import Console


def told(folder: Path) -> RunReport:
    """Summarise an open-loop run again; exit 4 where it broke its own rules, 1 where requests were refused.

    Raises:
        IntegrityError: the run cannot be read.
    """
    run = LoadRun.read(folder)
    summary = summarise(run)
    arrivals = ("arrivals", ", ".join(f"{name} {value}" for name, value in run.schedule.parameters.items()))
    return _told(
        "open loop",
        *reading(folder, run),
        target=run.target,
        failures=[f"{each.count} requests ended with status {each.status}: {each.reason}" for each in summary.failures],
        figures=_figures(summary),
        sections=lambda: _sections(run),
        more=[arrivals, ("batch", str(run.batch))],
    )


def told_saturation(folder: Path) -> RunReport:
    """The figures of a closed-loop run again; exit codes as those of an open loop."""
    run = Saturation.read(folder)
    found, counted = reading(folder, run)
    return _told(
        "closed loop",
        found,
        counted,
        target=run.target,
        failures=[f"{run.errors} requests got no result"] if run.errors else [],
        figures=[("samples", format_value(run.inferences_per_second, "1/s"))],
        sections=list,
        more=[],
    )


def _told(
    kind: str,
    found: Reading,
    counted: Counted,
    *,
    target: str,
    failures: Sequence[str],
    figures: Sequence[tuple[str, str]],
    sections: Callable[[], list[tuple[str, str, str]]],
    more: Sequence[tuple[str, str]],
) -> RunReport:
    """Every form of a load run, from what the load verb itself shows of it."""
    rows = (*found.lines, *(server_lines(counted) if counted != NOTHING else ()))
    lines = [(what, f"{value}, {about}" if about else value) for what, value, about in rows]
    outcome = "INVALID" if found.breaches else "FAIL" if found.failed else ""
    exit_code = {"INVALID": 4, "FAIL": 1, "": 0}[outcome]
    name, reasons = f"load on {target}", [*found.breaches, *failures]
    return RunReport(
        kind=kind,
        exit_code=exit_code,
        document=found.to_json() | {"server": counted.to_json()},
        show=lambda console: _show(console, rows, found.breaches),
        markdown=lambda: markdown_lines(name, [*((outcome, reason) for reason in reasons), *lines]),
        junit=lambda inconclusive: document(
            name, "load", [exit_case("load", exit_code, inconclusive, reasons)], properties=lines
        ),
        html=lambda path: write_page(
            path,
            TEMPLATES / "run.html.j2",
            tables=[],
            title=name,
            outcome=outcome,
            reasons=reasons,
            figures=figures,
            sections=sections(),
            lines=[*lines, *more],
        ),
    )


def _show(console: "Console", rows: Sequence[tuple[str, str, str]], breaches: Sequence[str]) -> None:
    from rich.text import Text

    console.print(table(rows))
    for breach in breaches:
        console.print(Text.assemble(("INVALID ", "bold red"), breach))


def _figures(summary: LoadSummary) -> list[tuple[str, str]]:
    times = (("p50", summary.p50), ("p95", summary.p95), ("p99", summary.p99), ("longest", summary.longest))
    rate = format_value(summary.achieved_rate, "1/s")
    return [("rate", rate), *((name, format_value(value, "s")) for name, value in times)]


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
            ("From the intended send time, so that a stall counts for every waiting request; the tail is stretched."),
            on_plotly.latency_curve(waited),
        ),
        (
            "Over the run",
            "Every request at its intended time; where there are many, the slowest of each moment are drawn.",
            on_plotly.latency_over_time(run.intended, kept),
        ),
    ]
