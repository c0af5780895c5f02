"""The decision: many p-values at once, what each must be read as, and the outcome that follows. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from seatrial.optimize.units import format_value

from .verdict import Finding, Outcome

ADVISORY = 0.05  # of the advisory metrics that are called worse, the share that may not be


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: reject where the value is at most the family's alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values, in the order given: at most alpha of what is rejected is false.

    ``min over k >= rank of p_(k) m / k`` (Journal of the Royal Statistical Society B 57, 1995): what advisory metrics
    need, of which many are looked at and a false one costs a look.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    adjusted, running = [1.0] * len(p_values), 1.0
    for place, i in enumerate(order):
        running = min(running, p_values[i] * len(p_values) / (len(p_values) - place))
        adjusted[i] = running
    return tuple(adjusted)


def decide_failures(findings: Sequence[Finding], alpha: float) -> list[Finding]:
    """Holm over the gating findings' p-values; advisory ones share a false discovery rate of `ADVISORY`."""
    decided = list(findings)
    for gating, adjust, level in ((True, holm, alpha), (False, benjamini_hochberg, ADVISORY)):
        family = [i for i, finding in enumerate(findings) if finding.gating == gating and finding.p is not None]
        for i, p in zip(family, adjust([findings[i].p or 0.0 for i in family]), strict=True):
            decided[i] = _decided(findings[i], p, level)
    return decided


def _decided(finding: Finding, p: float, alpha: float) -> Finding:
    """The finding with its adjusted p-value, and FAIL where that suffices."""
    if p <= alpha and finding.outcome == "INCONCLUSIVE":
        reason = _failure_reason(finding) if finding.rule == "max_regression" else finding.reason
        return replace(finding, p=p, outcome="FAIL", reason=reason)
    if finding.outcome == "INCONCLUSIVE" and (finding.p or 1.0) <= 0.05:
        doubt = f" It is probably beyond the limit; a FAIL needs an adjusted p of {alpha:g}, this one is {p:.2g}."
        return replace(finding, p=p, reason=finding.reason + doubt)
    return replace(finding, p=p)


def _failure_reason(finding: Finding) -> str:
    bound, ratio = finding.bound or 1.0, finding.ratio or 1.0
    return (
        f"{finding.metric} went from {format_value(finding.base or 0, finding.unit)} to "
        f"{format_value(finding.candidate or 0, finding.unit)} ({ratio - 1:+.1%}), beyond the allowed {bound - 1:+.1%}."
    )


def outcome_of(findings: Sequence[Finding], broken: Sequence[str], invalid: Sequence[str]) -> Outcome:
    """A broken candidate fails; then a run that cannot carry a verdict is INVALID; then the findings decide."""
    if broken:
        return "FAIL"
    gating = [finding.outcome for finding in findings if finding.gating]
    if invalid or not gating:
        return "INVALID"
    worst: tuple[Outcome, ...] = ("INVALID", "FAIL", "INCONCLUSIVE")
    return next((outcome for outcome in worst if outcome in gating), "PASS")


def decide(findings: Sequence[Finding], alpha: float) -> tuple[list[Finding], Outcome]:
    """Decide findings outside a run of pairs: Holm correction, then the outcome."""
    decided = decide_failures(findings, alpha)
    return decided, outcome_of(decided, (), ())
