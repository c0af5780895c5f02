"""How a load run's summary looks on a terminal; decides nothing."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .summary import LoadSummary, steady_lines


def summary_table(summary: LoadSummary) -> Table:
    """Latency from the intended send, rates, failures and lag, one figure a line."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("about")
    for what, value, about in lines(summary):
        table.add_row(what, value, about)
    return table


def lines(summary: LoadSummary) -> list[tuple[str, str, str]]:
    """The summary as (what, value, about)."""
    rows = [
        ("p50", milliseconds(summary.p50), "latency from the intended send"),
        ("p95", milliseconds(summary.p95), ""),
        ("p99", milliseconds(summary.p99), "; ".join(summary.notes)),
        ("achieved", f"{summary.achieved_rate:.1f}/s", f"{summary.answered} of {summary.scheduled} arrivals answered"),
        ("scheduled", f"{summary.scheduled_rate:.1f}/s", f"schedule {summary.schedule.removeprefix('sha256:')[:12]}"),
        ("errors", str(sum(failure.count for failure in summary.failures)), ""),
    ]
    rows += [("", str(failure.count), f"status {failure.status}: {failure.reason}") for failure in summary.failures]
    rows += [
        ("lag p99", milliseconds(summary.lag_p99), "sends behind schedule, the client's own"),
        ("client", f"{summary.client_cpu:.0%}", "of one core"),
    ]
    return rows + (steady_lines(summary.steady) if summary.steady else [])


def milliseconds(seconds: float | None) -> str:
    """``1.53 ms``, or a dash where there is no figure."""
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"
