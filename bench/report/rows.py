"""A verdict's findings as text, the same in every form of the report. Computes nothing and knows no form."""

from dataclasses import dataclass

from seatrial.optimize.units import format_change, format_range, format_value

from ..outcomes import MEANINGS
from ..verdict import Finding, Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finding as text, the same in all forms."""

    metric: str
    outcome: Outcome
    base: str
    candidate: str
    change: str
    interval: str
    allowed: str
    reach: str
    gating: bool
    reason: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the text that a table shows beside the outcome."""
        return (self.label, self.base, self.candidate, self.change, self.interval, self.allowed)

    @property
    def label(self) -> str:
        """The metric, and whether it decides."""
        return self.metric if self.gating else f"{self.metric} (informational)"


def rows(verdict: Verdict) -> list[Row]:
    """The findings as text, gating ones first."""
    ordered = sorted(verdict.findings, key=lambda finding: not finding.gating)
    return [
        Row(
            metric=named(finding),
            outcome=finding.outcome,
            base=format_value(finding.base, finding.unit),
            candidate=format_value(finding.candidate, finding.unit),
            change=_change(finding),
            interval=_interval(finding),
            allowed=_allowed(finding),
            reach=_reach(finding),
            gating=finding.gating,
            reason=finding.reason,
        )
        for finding in ordered
    ]


def named(finding: Finding) -> str:
    """The metric, and of which part of the samples where a finding speaks of one."""
    about = getattr(finding, "about", "")
    return f"{finding.metric}, {about}" if about else finding.metric


def title(verdict: Verdict) -> str:
    """Return the names of candidate and base."""
    return f"{verdict.candidate.name} against {verdict.base.name}"


def interval_name(verdict: Verdict) -> str:
    """Return the column header of the intervals, with their coverage."""
    return f"{100 * verdict.confidence:g} % interval"


def explanation(verdict: Verdict) -> tuple[str, ...]:
    """The sentences under the outcome: why it is so, or what it means where nothing stands against it."""
    reasons = verdict.reasons if verdict.outcome == "PASS" else verdict.summary
    return reasons or (MEANINGS[verdict.outcome],)


def _change(finding: Finding) -> str:
    if finding.ratio is not None:
        return format_change(finding.ratio)
    return f"{finding.difference:+.4f}" if finding.difference is not None else ""


def _interval(finding: Finding) -> str:
    if finding.interval is None:
        return "exact" if finding.method == "exact" else ""
    low, high = finding.interval
    if finding.ratio is not None:
        return f"{format_change(low)} … {format_change(high)}"
    if finding.difference is not None:
        return f"{low:+.4f} … {high:+.4f}"
    return format_range(low, high, finding.unit)


def _reach(finding: Finding) -> str:
    if finding.certifiable is None:
        return ""
    return f"{finding.certifiable:.1%}" if finding.ratio is not None else f"{finding.certifiable:.4f}"


def _allowed(finding: Finding) -> str:
    if finding.bound is None:
        return ""
    if finding.ratio is not None:
        return format_change(finding.bound)
    if finding.difference is not None:
        return f"{finding.bound:+.4f}"
    side = "≤" if finding.rule == "at_most" else "≥"
    return f"{side} {format_value(finding.bound, finding.unit)}"
