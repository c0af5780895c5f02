"""Presentation of a capacity: a terminal table, and one self-contained HTML page with the curve. Decides nothing."""

from pathlib import Path

from rich.table import Table

from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_milliseconds, format_range, format_value

from ..cost import Bill
from ..load.show import table as figures_table
from .curve import fit, points
from .result import MEANINGS, Capacity, Outcome, decisions

STYLES: dict[Outcome, str] = {
    "found": "bold green",
    "at least": "bold yellow",
    "none": "bold red",
    "unsettled": "bold yellow",
    "invalid": "bold magenta",
}


def headline(capacity: Capacity) -> str:
    """The result in one line."""
    slo = capacity.header.slo
    if capacity.rate is None:
        return f"{slo}: {MEANINGS[capacity.outcome]}"
    if capacity.interval is None:
        return f"{slo}: at least {capacity.rate:.4g} requests/s ({MEANINGS[capacity.outcome]})"
    low, high = capacity.interval
    return f"{slo}: {capacity.rate:.4g} requests/s, 95 % interval {low:.4g} to {high:.4g}"


def rows(capacity: Capacity, bill: Bill | None = None) -> list[tuple[str, str, str]]:
    """The figures as (what, value, about)."""
    header = capacity.header
    found = [
        ("saturation", f"{header.saturation:.4g}/s", "closed loop, always busy; the objective does not apply there"),
        ("cliff", f"{capacity.cliff:.4g}/s", "lowest rate at which the backlog grew")
        if capacity.cliff
        else ("cliff", "-", "the backlog did not grow at any offered rate"),
    ]
    if header.batch > 1 and capacity.inferences is not None:
        found.append(("inferences", f"{capacity.inferences:.4g}/s", f"{header.batch} samples per request"))
    percentile = f"p{100 * header.slo.quantile:g}"
    for each in capacity.below:
        bound = (
            f", below {format_milliseconds(each.tail_upper)} with 99 % confidence"
            if each.tail_upper is not None
            else ""
        )
        about = f"{percentile}{bound}; p50 {format_milliseconds(each.p50)}; at {each.rate:.4g}/s"
        found.append((f"at {each.share:.0%} of it", format_milliseconds(each.tail), about))
    return found + (bill_rows(bill) if bill is not None else [])


def bill_rows(bill: Bill) -> list[tuple[str, str, str]]:
    """Return the cost as rows (what, value, about)."""
    price = bill.price
    bounds = bill.per_million_interval
    spread = f", 95 % interval {format_range(*bounds, '$/1M', between=' to ')}" if bounds else ""
    found = [
        (
            "per million",
            format_value(bill.per_million, "$/1M"),
            f"inferences within the objective, fully utilised{spread}",
        ),
        ("price", f"${price.usd_hour:g}/h", f"{price.machine}; {price.source}, {price.checked_at}"),
    ]
    if bill.effective is not None and bill.utilisation is not None and bill.month is not None:
        about = f"{bill.machines} x, {bill.headroom:.0%} kept free"
        found += [
            (
                "at the given traffic",
                format_value(bill.effective, "$/1M"),
                f"per million at {bill.utilisation:.0%} utilisation",
            ),
            ("fleet", f"${bill.month:,.0f}/month", f"{about}, for {bill.traffic:.4g} inferences/s at peak"),
        ]
    return [*found, ("this search", f"${bill.spent:.2g}", "the time of its load at that price")]


def table(capacity: Capacity, bill: Bill | None = None) -> Table:
    """The figures for a terminal."""
    return figures_table(rows(capacity, bill))


def write_html(path: Path, capacity: Capacity, bill: Bill | None = None) -> None:
    """One page that needs no network: the result, the curve, every probe, and where it was measured."""
    from .. import on_plotly

    header, curve = capacity.header, points(capacity.probes)
    fitted = fit(curve, header.slo) if curve else None
    settled = decisions(capacity.probes, header.slo)
    plot = on_plotly.capacity_curve(
        [
            (p.rate, p.share, p.p50, p.tail, settled[p.rate], f"{p.phase}, {p.counted} requests, {p.state}")
            for p in capacity.probes
            if not p.faults
        ],
        fitted=(fitted[0], fitted[1]) if fitted else None,
        objective=(f"p{100 * header.slo.quantile:g}", header.slo.budget, header.slo.seconds),
        rate=capacity.rate,
        interval=capacity.interval,
        cliff=capacity.cliff,
    )
    write_page(
        path,
        Path(__file__).parents[1] / "templates" / "capacity.html.j2",
        capacity=capacity,
        headline=headline(capacity),
        meaning=MEANINGS[capacity.outcome],
        rows=rows(capacity, bill),
        plot=plot,
        settled=settled,
        machine=f"{header.environment.get('cpu', 'unknown')}, {header.environment.get('cores', '?')} cores",
    )
