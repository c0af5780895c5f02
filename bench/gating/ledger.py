"""The ledger's rule: small losses that were accepted add up, so that ten times one per cent do not pass unseen.

Pure; `records.accepted` keeps the losses. A loss counts where a candidate was accepted although its regression is real:
the finding is PASS and yet its interval lies beyond zero. A candidate that adds no real loss passes however full the
ledger is, so that fixes are always possible.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..budget import LedgerLimits
from ..metrics import metric_of
from ..verdict import Finding


def real_loss(finding: Finding) -> tuple[float, float, float] | None:
    """Loss, lower and upper bound (log scale, positive is worse) of a PASS that is a real regression; else None."""
    if finding.rule != "max_regression" or finding.outcome != "PASS" or not finding.ratio or not finding.interval:
        return None
    sign = metric_of(finding.metric).sign
    low, high = sorted(sign * math.log(end) for end in finding.interval)
    return (sign * math.log(finding.ratio), low, high) if low > 0 else None


def exhausted(findings: Sequence[Finding], before: Mapping[str, float], limits: LedgerLimits | None) -> list[Finding]:
    """The findings, with those turned to FAIL whose real loss no longer fits into the ledger."""
    if limits is None:
        return list(findings)
    return [_charged(finding, before, limits) for finding in findings]


def _charged(finding: Finding, before: Mapping[str, float], limits: LedgerLimits) -> Finding:
    found = real_loss(finding) if finding.gating and finding.metric in limits.at_most else None
    if found is None:
        return finding
    total, most = math.expm1(before.get(finding.metric, 0.0) + found[0]), limits.at_most[finding.metric]
    if total <= most:
        return replace(
            finding, reason=f"{finding.reason} Significant but within budget: the ledger would hold {total:.1%}."
        )
    return replace(
        finding,
        outcome="FAIL",
        reason=(
            f"{finding.metric} lost {math.expm1(found[0]):.1%}, within its own margin. With the losses "
            f"accepted in {limits.days:g} days the total is {total:.1%}; ledger {limits.name} allows "
            f"{most:.1%}."
        ),
    )
