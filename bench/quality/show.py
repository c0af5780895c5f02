"""An assessment for people: a terminal table and one self-contained HTML page with plots.

Shows what was found and judges nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from seatrial.optimize import tables
from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_range, format_value

from ..checks import Check, Plot
from ..outcomes import MEANINGS, STYLES
from ..verdict import Finding
from .assess import Assessment


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finding as text."""

    outcome: str
    check: str
    about: str
    base: str
    candidate: str
    change: str
    interval: str
    allowed: str
    samples: str
    reason: str


def rows(assessment: Assessment) -> list[Row]:
    """Return the findings as text, in the checks' order; those without a gate are informational."""
    judged = assessment.outcome is not None
    return [_row(finding, "told" if judged else "") for finding in assessment.findings]


def _row(finding: Finding, told: str) -> Row:
    unit = finding.unit
    change, interval = "", ""
    if finding.difference is not None:
        change = f"{finding.difference:+.4f}"
    if finding.interval is not None:
        low, high = finding.interval
        paired = finding.difference is not None
        interval = f"{low:+.4f} … {high:+.4f}" if paired else format_range(low, high, unit)
    broken = finding.outcome == "INVALID"
    return Row(
        outcome=finding.outcome if finding.gating else "INVALID" if broken else told,
        check=finding.metric,
        about=finding.reason.removeprefix(f"{finding.metric}: ") if broken else finding.about,
        base=format_value(finding.base, unit, missing=""),
        candidate=format_value(finding.candidate, unit, missing=""),
        change=change,
        interval=interval,
        allowed=f"{finding.rule.replace('_', ' ')} {finding.margin:g}" if finding.gating else "",
        samples=str(finding.n) if finding.n else "",
        reason=finding.reason,
    )


def table(assessment: Assessment) -> Table:
    """Return the findings for the terminal; empty columns are omitted."""
    told = rows(assessment)
    columns = {
        "outcome": "",
        "check": "check",
        "about": "worst at",
        "base": "base",
        "candidate": "candidate" if any(row.base for row in told) else "value",
        "change": "change",
        "interval": "90 % interval",
        "allowed": "allowed",
        "samples": "samples",
    }
    used = {name: title for name, title in columns.items() if any(getattr(row, name) for row in told)}
    styles = [next((style for outcome, style in STYLES.items() if outcome == row.outcome), "") for row in told]
    cells = (
        [(row.outcome, style) if name == "outcome" else getattr(row, name) for name in used]
        for row, style in zip(told, styles, strict=True)
    )
    return tables.table(list(used.values()), cells, left=("", "check", "worst at"))


def write_html(
    path: Path, *, title: str, assessment: Assessment, checks: Sequence[Check], facts: Mapping[str, str]
) -> None:
    """One page that needs no network: findings first, then reliability, corruption and groups as plots."""
    write_page(
        path,
        Path(__file__).parent.with_name("templates") / "quality.html.j2",
        title=title,
        outcome=assessment.outcome,
        meaning=MEANINGS[assessment.outcome] if assessment.outcome else "Informational: no budget named a margin.",
        rows=rows(assessment),
        plots=plots(assessment, checks),
        facts=list(facts.items()),
    )


def plots(assessment: Assessment, checks: Sequence[Check]) -> list[tuple[str, str, str]]:
    """Title, what to see in it, and the plot as HTML, for every sort of check that is easier to look at."""
    found: dict[str, Plot] = {}
    for check in (check for check in checks if _usable(assessment, check)):
        plot = check.plot(assessment.evidence)
        if plot is None:
            continue
        earlier = found.get(plot.title)
        if earlier is not None and isinstance(plot.data, dict):
            plot = replace(plot, data=earlier.data | {key: plot.data[key] for key in plot.data.keys() - earlier.data})
        found[plot.title] = plot
    return [(plot.title, plot.lead, plot.draw(plot.data)) for plot in found.values()]


def _usable(assessment: Assessment, check: Check) -> bool:
    return any(each.metric == check.label and each.outcome != "INVALID" for each in assessment.findings)
