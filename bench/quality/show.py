"""An assessment for people: a terminal table and one self-contained HTML page with plots.

Shows what was found and judges nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from seatrial.optimize import tables
from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_range, format_value

from ..checks import CalibrationCheck, Check, CorruptionCheck, FairnessCheck, SegmentsCheck
from ..outcomes import MEANINGS, STYLES
from ..verdict import Finding
from . import calibration, segments
from .assess import Assessment
from .fairness import groups
from .findings import by_variant
from .quantities import Scores


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
    from . import on_plotly

    usable = [check for check in checks if _usable(assessment, check)]
    made = []
    ece = next((check for check in usable if isinstance(check, CalibrationCheck)), None)
    if ece is not None:
        known = assessment.evidence.classes()
        arms = _arms(assessment.evidence.outputs(ece.output))
        curves = {name: calibration.reliability(output, known, ece.bins) for name, output in arms.items()}
        lead = "Confidence against accuracy, in bins of equal size. Points below the line are overconfident."
        made.append(("Reliability", lead, on_plotly.reliability(curves)))
    spoilt = {str(check.corruption): check for check in usable if isinstance(check, CorruptionCheck)}
    if spoilt:
        lead = "Mean score by severity, starting with the clean set (0); the candidate in blue, the base in grey."
        curves_ = {kind: _severities(assessment, check) for kind, check in spoilt.items()}
        made.append(("Corrupted inputs", lead, on_plotly.severities(curves_)))
    for check in usable:
        if isinstance(check, FairnessCheck) and check.statistic == "worst":
            lead = "The rate of every group in both arms."
            shown = on_plotly.groups(_means(groups(check, assessment.evidence)))
            made.append((f"{check.rate.capitalize()} by {check.by}", lead, shown))
        if isinstance(check, SegmentsCheck):
            lost = assessment.evidence.base is not None
            found = segments.confirmed(check, assessment.evidence, against_base=lost)
            lead = "Segments found on one half of the samples, with their scores on the other half."
            made.append(("Segments", lead, on_plotly.groups(_means(found))))
    return made


def _means(parts: Sequence[Scores]) -> list[tuple[str, float | None, float]]:
    return [
        (part.name, None if part.base is None else float(part.base.mean()), float(part.candidate.mean()))
        for part in parts
    ]


def _usable(assessment: Assessment, check: Check) -> bool:
    return any(each.metric == check.label and each.outcome != "INVALID" for each in assessment.findings)


def _arms(both: "tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any]]") -> "dict[str, np.ndarray[Any, Any]]":
    names = ("base", "candidate")
    return {name: values for name, values in zip(names, both, strict=True) if values is not None}


def _severities(assessment: Assessment, check: CorruptionCheck) -> dict[str, tuple[list[int], list[float]]]:
    """Severity (0: clean) and mean score, by arm."""
    found = {}
    clean = _arms(assessment.evidence.scores())
    for arm, name in enumerate(("base", "candidate")):
        scores = by_variant(check, assessment.evidence, arm)
        if scores is not None:
            means = [float(clean[name].mean()), *scores.mean(axis=1).tolist()]
            found[name] = ([0, *check.severities], means)
    return found
