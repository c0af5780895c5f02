"""The findings of a gate's run about the checks of its budget, beside those about speed. Pure."""

from seatrial.optimize.errors import SeatrialError

from ..budget import Budget
from ..quality.evidence import Share, gathered
from ..quality.findings import blank_finding, findings_of
from ..verdict import Finding
from .findings import complete_pairs
from .pairs import GateRun


def check_findings(run: GateRun, budget: Budget) -> list[Finding]:
    """The findings of a gate's run about every check of its budget; none where the budget has no checks."""
    if not budget.checks:
        return []
    pairs = sorted(complete_pairs(run), key=lambda pair: pair[0].quality_start)
    try:
        asked = [
            (base.checks, candidate.checks)
            for base, candidate in pairs
            if base.quality.size or isinstance(base.checks, Share)
        ]
        evidence = gathered([base for base, _ in asked], [candidate for _, candidate in asked])
    except SeatrialError as error:
        return [blank_finding(check, rule, error.what) for check in budget.checks for rule in check.rules]
    return findings_of(budget.checks, evidence, alpha_pass=budget.alpha_pass, alpha_fail=budget.alpha_fail)
