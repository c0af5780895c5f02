"""One finding per rule of a check, from the raw values of a run: what the judge puts beside those about speed.

Pure. A finding that needs a test over all metrics together (FAIL) leaves here as INCONCLUSIVE with its p-value; what is
missing or cannot be computed is INVALID and never a PASS.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.units import format_value

from .. import stats
from ..checks import (
    AdversarialCheck,
    CalibrationCheck,
    Check,
    CorruptionCheck,
    DriftCheck,
    FairnessCheck,
    MetricCheck,
    SegmentsCheck,
)
from ..verdict import Finding
from . import calibration, drift, fairness, metrics, segments
from .evidence import CLEAN, Evidence
from .quantities import Array, Estimate, Quantity, Scores


def findings_of(checks: Sequence[Check], evidence: Evidence, *, alpha_pass: float, alpha_fail: float) -> list[Finding]:
    """One finding for each rule of each check, in order."""
    return [
        _finding(check, rule, margin, evidence, alpha_pass, alpha_fail)
        for check in checks
        for rule, margin in check.rules.items()
    ]


def quantity_of(check: Check, evidence: Evidence, rule: str) -> Quantity:
    """Return the quantity that the check examines.

    Raises:
        ConfigError, SourceError: the samples or outputs do not have what it needs.
    """
    match check:
        case MetricCheck():
            return metrics.quantity(check, evidence)
        case CalibrationCheck():
            return calibration.quantity(check, evidence)
        case SegmentsCheck():
            return segments.quantity(check, evidence, against_base=rule == "max_drop")
        case FairnessCheck():
            return fairness.quantity(check, evidence)
        case DriftCheck():
            return drift.quantity(check, evidence)
        case CorruptionCheck() | AdversarialCheck():
            return spoiled(check, evidence)


def spoiled(check: CorruptionCheck | AdversarialCheck, evidence: Evidence) -> Scores:
    """Per sample, the mean score over the check's variants of its inputs; or how far that lies below the clean score.

    Raises:
        ConfigError: a variant was not asked.
    """
    first, second = (by_variant(check, evidence, arm) for arm in (0, 1))
    if second is None:
        raise ValueError("the candidate has no answers")
    base, candidate = None if first is None else first.mean(axis=0), second.mean(axis=0)
    if isinstance(check, CorruptionCheck) and check.statistic == "loss":
        rows = _rows(check, evidence)
        clean_base, clean = evidence.scores()
        base = None if base is None or clean_base is None else clean_base[rows] - base
        candidate = clean[rows] - candidate
    return Scores(name=check.label, base=base, candidate=candidate, higher_is_better=check.higher_is_better)


def by_variant(check: CorruptionCheck | AdversarialCheck, evidence: Evidence, arm: int) -> Array | None:
    """One arm's scores, float [variants, n], over the samples that every variant of the check was asked on."""
    rows, found = _rows(check, evidence), []
    for name in check.variants:
        scores = evidence.scores(name)[arm]
        if scores is None:
            return None
        found.append(scores[np.isin(evidence.rows[name], rows)])
    return np.asarray(np.stack(found))


def _rows(check: CorruptionCheck | AdversarialCheck, evidence: Evidence) -> Array:
    """The samples that every variant was asked on, in order."""
    for name in check.variants:
        evidence.scores(name)
    rows = evidence.rows[CLEAN]
    for name in check.variants:
        rows = np.intersect1d(rows, evidence.rows[name])
    return rows


def blank_finding(check: Check, rule: str, why: str) -> Finding:
    """Return the finding of a rule that says nothing yet: INVALID, for that reason."""
    return Finding(
        metric=check.label,
        unit="share" if isinstance(check, DriftCheck) and check.statistic == "flips" else "score",
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
        quantity = quantity_of(check, evidence, rule)
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
    return replace(filled, reason=_reason(filled, estimate) + _note(check, evidence))


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


def _note(check: Check, evidence: Evidence) -> str:
    """Return details for acting on the finding: the best temperature for calibration, the score at each severity."""
    if isinstance(check, CalibrationCheck):
        _, output = evidence.outputs(check.output)
        return f" The best temperature for its logits is {calibration.temperature(output, evidence.classes()):.2f}."
    if isinstance(check, CorruptionCheck):
        arms = [by_variant(check, evidence, arm) for arm in (0, 1)]
        told = [
            f"{name} {', '.join(f'{each:.3f}' for each in scores.mean(axis=1))}"
            for name, scores in zip(("base", "candidate"), arms, strict=True)
            if scores is not None
        ]
        return f" Score by severity: {'; '.join(told)}."
    return ""
