"""One finding per rule of a check, from the raw values of a run: what the judge puts beside those about speed.

Pure. A finding that needs a test over all metrics together (FAIL) leaves here as INCONCLUSIVE with its p-value; what is
missing or cannot be computed is INVALID and never a PASS.
"""

from collections.abc import Sequence
from dataclasses import replace

from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.units import format_value

from .. import stats
from ..checks import Check
from ..verdict import Finding
from .evidence import Evidence
from .quantities import Estimate, Quantity


def findings_of(checks: Sequence[Check], evidence: Evidence, *, alpha_pass: float, alpha_fail: float) -> list[Finding]:
    """One finding for each rule of each check, in order."""
    return [
        _finding(check, rule, margin, evidence, alpha_pass, alpha_fail)
        for check in checks
        for rule, margin in check.rules.items()
    ]


def blank_finding(check: Check, rule: str, why: str) -> Finding:
    """Return the finding of a rule that says nothing yet: INVALID, for that reason."""
    return Finding(
        metric=check.label,
        unit=check.unit,
        rule=rule,
        gating=check.gating,
        outcome="INVALID",
        reason=f"{check.label}: {why}",
        margin=check.rules[rule],
    )


def _finding(
    check: Check, rule: str, margin: float, evidence: Evidence, alpha_pass: float, alpha_fail: float
) -> Finding:
    blank = blank_finding(check, rule, "no values were measured.")
    try:
        quantity: Quantity = check.quantity(evidence, rule)
        if rule == "max_drop" and not quantity.paired:
            return replace(blank, reason=f"{check.label}: there is no base to compare with.")
        against = quantity.worsening if rule == "max_drop" else quantity.level
        estimate = against(margin, alpha_pass)
    except SeatrialError as error:
        return replace(blank, reason=f"{check.label}: {error.what}.")
    except ValueError as error:
        return replace(blank, reason=f"{check.label}: too few samples to judge ({error}).")
    sign = -1.0 if quantity.higher_is_better else 1.0
    filled = replace(
        blank,
        base=estimate.base,
        candidate=estimate.candidate,
        n=estimate.n,
        p=estimate.p,
        method=estimate.method,
        about="" if estimate.about in blank.metric else estimate.about,
    )
    reach = stats.detectable(estimate.se, alpha=alpha_pass)
    if rule == "max_drop":
        ends = sorted((0.0 + sign * estimate.lower, 0.0 + sign * estimate.upper))
        filled = replace(
            filled,
            difference=0.0 + sign * estimate.value,
            interval=(ends[0], ends[1]),
            bound=sign * margin,
            certifiable=max(reach, estimate.upper - estimate.value),
            blocking=margin + stats.detectable(estimate.se, alpha=alpha_fail),
            outcome="PASS" if estimate.upper < margin else "INCONCLUSIVE",
        )
    else:
        within = estimate.upper <= margin if rule == "at_most" else estimate.lower >= margin
        filled = replace(
            filled,
            interval=(estimate.lower, estimate.upper),
            bound=margin,
            outcome="PASS" if within else "INCONCLUSIVE",
        )
    return replace(filled, reason=_reason(filled, estimate) + check.note(evidence))


def _reason(finding: Finding, estimate: Estimate) -> str:
    about = f", {finding.about}," if finding.about else ""
    value = format_value(estimate.candidate, finding.unit)
    if finding.rule == "max_drop":
        before = format_value(estimate.base or 0.0, finding.unit)
        return (
            f"{finding.metric}{about} went from {before} to {value} over {finding.n} samples; upper bound "
            f"of the drop {max(estimate.upper, 0):.4f}, margin {finding.margin:.4f}."
        )
    worst = format_value(estimate.upper if finding.rule == "at_most" else estimate.lower, finding.unit)
    bound, side = "upper" if finding.rule == "at_most" else "lower", finding.rule.replace("_", " ")
    return (
        f"{finding.metric}{about} is {value} over {finding.n} samples, {bound} bound {worst}; allowed "
        f"{side} {format_value(finding.margin, finding.unit)}."
    )
