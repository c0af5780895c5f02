"""A verdict's findings as text, the same in every form of the report. Computes nothing and knows no form."""

from dataclasses import dataclass

from ..measurement import spell
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
            base=_value(finding.base, finding),
            candidate=_value(finding.candidate, finding),
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
    return f"{verdict.candidate['name']} against {verdict.base['name']}"


def interval_name(verdict: Verdict) -> str:
    """Return the column header of the intervals, with their coverage."""
    return f"{100 * verdict.confidence:g} % interval"


def explanation(verdict: Verdict) -> tuple[str, ...]:
    """The sentences under the outcome: why it is so, or what it means where nothing stands against it."""
    reasons = verdict.reasons if verdict.outcome == "PASS" else verdict.summary
    return reasons or (MEANINGS[verdict.outcome],)


def short(digest: str) -> str:
    """The first twelve digits of a digest."""
    return digest.removeprefix("sha256:")[:12]


def span(seconds: float) -> str:
    """A duration for people, microseconds where milliseconds would need many zeros."""
    return f"{1e6 * seconds:.3g} µs" if 0 < abs(seconds) < 1e-4 else spell(seconds, "s")


def signed(seconds: float) -> str:
    """A change of time with its sign."""
    return ("+" if seconds > 0 else "") + span(seconds)


def _value(value: float | None, finding: Finding) -> str:
    return "–" if value is None else spell(value, finding.unit)


def _change(finding: Finding) -> str:
    if finding.ratio is not None:
        return f"{finding.ratio - 1:+.1%}"
    return f"{finding.difference:+.4f}" if finding.difference is not None else ""


def _interval(finding: Finding) -> str:
    if finding.interval is None:
        return "exact" if finding.method == "exact" else ""
    low, high = finding.interval
    if finding.ratio is not None:
        return f"{low - 1:+.1%} … {high - 1:+.1%}"
    if finding.difference is not None:
        return f"{low:+.4f} … {high:+.4f}"
    return f"{spell(low, finding.unit)} … {spell(high, finding.unit)}"


def _reach(finding: Finding) -> str:
    if finding.certifiable is None:
        return ""
    return f"{finding.certifiable:.1%}" if finding.ratio is not None else f"{finding.certifiable:.4f}"


def _allowed(finding: Finding) -> str:
    if finding.bound is None:
        return ""
    if finding.ratio is not None:
        return f"{finding.bound - 1:+.1%}"
    if finding.difference is not None:
        return f"{finding.bound:+.4f}"
    side = "≤" if finding.rule == "at_most" else "≥"
    return f"{side} {spell(finding.bound, finding.unit)}"
