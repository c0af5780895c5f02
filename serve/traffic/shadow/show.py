"""Presentation of an agreement: a terminal table, and one self-contained HTML page with plots. Decides nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from time import gmtime, strftime

import numpy as np
from rich.console import Console
from rich.text import Text

from seatrial.bench.outcomes import STYLES
from seatrial.optimize.report.pages import write_page
from seatrial.optimize.tables import table

from .agreement import Agreement, Statistic
from .bounded_mean import mean_interval
from .differing import Differing

_TEMPLATE = Path(__file__).absolute().parents[2] / "templates" / "shadow.html.j2"
_LOOKS = 60  # of an interval that narrows

MEANINGS: Mapping[str, str] = {
    "PASS": "The candidate agrees with the stable version within every limit.",
    "FAIL": "The candidate disagrees with the stable version.",
    "INCONCLUSIVE": "The data are not sufficient for a PASS or a FAIL.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A statistic as text."""

    outcome: str
    output: str
    name: str
    value: str
    interval: str
    limit: str
    requests: str
    needed: str


def rows(found: Agreement) -> list[Row]:
    """Return the statistics as text; those without a limit are informational."""
    return [_row(each) for each in found.statistics]


def _row(each: Statistic) -> Row:
    greatest = each.name.startswith("max ")
    at_most = greatest or each.name == "confidence drift"
    sign = "±" if each.name == "confidence drift" else "≤ " if at_most else "≥ "
    spelt = "{:.3g}" if greatest else "{:+.5f}" if each.name == "confidence drift" else "{:.5f}"
    return Row(
        outcome=each.outcome or "told",
        output=each.output,
        name=each.name,
        value=spelt.format(each.value if greatest else round(each.value, 5) + 0.0),  # no minus before a zero
        interval="" if greatest else f"{spelt.format(each.low)} … {spelt.format(each.high)}",
        limit="" if each.limit is None else f"{sign}{each.limit:g}",
        requests=f"{each.requests:,}",
        needed=_needed(each),
    )


def _needed(each: Statistic) -> str:
    if each.outcome != "INCONCLUSIVE":
        return ""
    if each.needed is None:
        return "unknown"
    more = max(each.needed - each.requests, 1)
    return f"about {round(more, 1 - floor(log10(more))):,} more"


def headline(found: Agreement) -> str:
    """Return the number of compared requests, in one line."""
    share = found.compared / found.sampled if found.sampled else 0.0
    return f"{found.compared:,} of {found.sampled:,} sampled requests compared ({share:.1%})"


def counts(found: Agreement) -> list[tuple[str, str, int]]:
    """Return why the others were not compared, most frequent first, as (kind, reason, requests)."""
    told = [("not compared", reason, count) for reason, count in found.unmatched.items()]
    told += [("aside", reason, count) for reason, count in found.aside.items()]
    return sorted(told, key=lambda each: (each[0] == "aside", -each[2]))


def disagreement(each: Differing) -> str:
    """Describe the differences in one answer."""
    if each.broken:
        return each.broken
    parts = []
    if each.tops is not None:
        row, one, other, sure, other_sure = each.tops
        at = f" in row {row}" if each.rows > 1 else ""
        parts.append(f"class {other} ({other_sure:.3g}) instead of {one} ({sure:.3g}){at}")
    elif each.same is not None and each.same < 1:
        parts.append(f"{1 - each.same:.0%} of the rows differ")
    if each.largest:
        parts.append(f"error {each.largest:.3g}, relative {each.relative:.3g}")
    return "; ".join(parts)


def moment(at: float) -> str:
    """A Unix time for people, in UTC."""
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(at))


def print_agreement(found: Agreement, console: Console) -> None:
    """The verdict, its reasons, the statistics, what was not compared and the worst disagreements."""
    console.print(Text.assemble((found.outcome, STYLES[found.outcome]), f"  {headline(found)}"))
    for reason in found.reasons or (MEANINGS[found.outcome],):
        console.print(Text(f"  {reason}"))
    span = f"{1 - found.alpha:.0%} at all times"
    head = ("", "output", "measure", "value", span, "limit", "requests", "needs")
    cells = (
        (
            (row.outcome, STYLES.get(row.outcome, "dim")),  # type: ignore[call-overload]
            *(row.output, row.name, row.value, row.interval, row.limit, row.requests, row.needed),
        )
        for row in rows(found)
    )
    if found.statistics:
        console.print(table(head, cells, left=head[:3]))
    for kind, reason, count in counts(found):
        console.print(Text(f"{kind}: {count:,} because {reason}", "dim" if kind == "aside" else "yellow"))
    for each in found.worst[:5]:
        console.print(Text(f"worst: {each.request}, output {each.output}: {disagreement(each)}", "dim"))


def write_html(path: Path, found: Agreement, compared: Sequence[Differing], *, title: str) -> None:
    """One page that needs no network: verdict, statistics, how the interval narrowed, errors, and what to look at."""
    from . import on_plots as plots

    errors = {
        name: [each.relative for each in values if each.relative] for name, values in _by_output(compared).items()
    }
    classes = [each for each in found.statistics if each.name == "top-1"]
    courses = [
        (each.output, course(compared, each.output, found.alpha), None if each.limit is None else 1 - each.limit)
        for each in [each for each in classes if each.limit is not None] or classes
    ]
    write_page(
        path,
        _TEMPLATE,
        title=title,
        found=found,
        meaning=MEANINGS[found.outcome],
        headline=headline(found),
        rows=rows(found),
        counts=counts(found),
        worst=[(each.request, moment(each.at), each.output, disagreement(each)) for each in found.worst],
        course=plots.courses(courses) if courses else "",
        errors=plots.errors(errors) if any(errors.values()) else "",
    )


def course(compared: Sequence[Differing], output: str, alpha: float) -> list[tuple[int, float, float, float]]:
    """Share of an output's requests answered otherwise, as they came: (requests, share, low, high) at some of them."""
    same = [each.same for each in sorted(compared, key=lambda each: each.at) if each.output == output]
    other = 1.0 - np.array([each for each in same if each is not None])
    looks = np.unique(np.geomspace(min(10, len(other)), len(other), _LOOKS).astype(int)) if len(other) else []
    return [(int(n), float(other[:n].mean()), *mean_interval(other[:n], alpha=alpha)) for n in looks]


def _by_output(compared: Sequence[Differing]) -> dict[str, list[Differing]]:
    found: dict[str, list[Differing]] = {}
    for each in compared:
        found.setdefault(each.output, []).append(each)
    return found
