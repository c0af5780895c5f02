"""One finding per rule of the budget, from a run's raw values; `bench.gating.judge` puts them together.

Pure. A finding that needs a test over all metrics together (FAIL) leaves here as INCONCLUSIVE with its p-value; missing
values are INVALID and never a PASS.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from seatrial.optimize.units import format_duration, format_value

from .. import stats
from ..budget import Budget, Limit
from ..load.run import OK
from ..metrics import METRICS
from ..verdict import Finding
from .pairs import Arm, GateRun, SlotRecord
from .settling import MOST, pairs_to_settle, settling


def complete_pairs(run: GateRun) -> list[tuple[SlotRecord, SlotRecord]]:
    """The pairs of which both slots are usable, as (base, candidate)."""
    final = run.final()
    pairs = sorted({pair for pair, _ in final})
    both = [(final.get((pair, "base")), final.get((pair, "candidate"))) for pair in pairs]
    return [(b, c) for b, c in both if b is not None and c is not None and b.usable and c.usable]


def slot_value(record: SlotRecord, metric: str, usd_hour: float) -> float | None:
    """The one number that a slot contributes to a metric; None where it has none.

    Raises:
        ConfigError: no such metric.
    """
    return METRICS.get(metric).value(record, usd_hour)


def slot_values(run: GateRun, metric: str) -> tuple[list[float], list[float], list[int]]:
    """Base values, candidate values and order (+1 where the candidate ran second) of every complete pair.

    Empty where any complete pair lacks the value: a statistic over the rest would be about a chosen part.
    """
    usd_hour = run.header.price.usd_hour or 1.0
    rows = [
        (slot_value(b, metric, usd_hour), slot_value(c, metric, usd_hour), 1 if c.slot.position else -1)
        for b, c in complete_pairs(run)
    ]
    whole = [(b, c, o) for b, c, o in rows if b is not None and c is not None]
    if len(whole) < len(rows):
        return [], [], []
    return [row[0] for row in whole], [row[1] for row in whole], [row[2] for row in whole]


def limits_of(budget: Budget) -> list[Limit]:
    """The budget's limits; requests without an answer are never acceptable unless the budget says so."""
    implied = [] if budget.limit("errors") else [Limit(metric="errors", at_most=0.0)]
    return [*budget.limits, *implied]


def findings_of(run: GateRun, budget: Budget, limit: Limit) -> list[Finding]:
    """One finding for each rule of the limit."""
    made = []
    for rule, margin in limit.rules.items():
        blank = Finding(
            metric=limit.metric,
            unit=limit.of.unit,
            rule=rule,
            gating=limit.gating,
            outcome="INVALID",
            reason=f"{limit.metric}: no values were measured.",
            margin=margin,
        )
        found = limit.of.finding(run, budget, limit, blank)
        if found is None and rule == "max_regression":
            found = _regression(run, budget, limit, blank)
        made.append(found or _absolute(run, budget, blank))
    return made


def quality_scores(run: GateRun) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Scores of base and candidate, [samples] each, over the evaluation set; None unless both answered all of it."""
    pairs = sorted(complete_pairs(run), key=lambda pair: pair[0].quality_start)
    at = 0
    for b, c in pairs:
        if b.quality_start != at or c.quality_start != at or b.quality.shape != c.quality.shape:
            return None
        at += b.quality.size
    if at == 0 or at != run.header.samples.count:
        return None
    return np.concatenate([b.quality for b, _ in pairs]), np.concatenate([c.quality for _, c in pairs])


def _regression(run: GateRun, budget: Budget, limit: Limit, blank: Finding) -> Finding:
    """A relative rule on one number per slot: paired log ratios."""
    base, candidate, order = slot_values(run, limit.metric)
    if not base or not _positive(*base, *candidate):
        return blank
    sign, typical, other = (
        limit.of.sign,
        float(np.exp(np.mean(np.log(base)))),
        float(np.exp(np.mean(np.log(candidate)))),
    )
    blank = replace(blank, base=typical, candidate=other, n=len(base))
    if len(base) < 4 or sum(order) != 0:
        return replace(blank, reason=f"{limit.metric}: {len(base)} pairs in this order are too few for a statistic.")
    se_floor = limit.of.resolution / (math.sqrt(12) * typical)
    estimate = stats.paired(stats.log_ratios(base, candidate, sign), order, se_floor=se_floor)
    margin = max(math.log1p(blank.margin), floor_margin(limit, typical))
    low, high = stats.lower_bound(estimate, budget.alpha_pass), stats.upper_bound(estimate, budget.alpha_pass)
    ends = sorted((math.exp(sign * low), math.exp(sign * high))) if math.isfinite(low + high) else None
    finding = replace(
        blank,
        ratio=math.exp(sign * estimate.effect),
        interval=(ends[0], ends[1]) if ends else None,
        bound=math.exp(sign * margin),
        p=stats.p_exceeds(estimate, margin),
        n=estimate.n,
        sd=estimate.sd,
        certifiable=stats.certifiable_margin(estimate, alpha=budget.alpha_pass),
        blocking=stats.blocking_effect(estimate, margin, alpha=budget.alpha_fail),
        pairs_needed=pairs_to_settle(max(estimate.sd, se_floor), estimate.effect, margin, alpha=budget.alpha_pass),
        order_effect=math.expm1(2 * sign * estimate.order_effect),
        outcome="PASS" if high < margin else "INCONCLUSIVE",
        method=estimate.method,
    )
    return replace(finding, reason=_regression_reason(finding, high, margin, pair_seconds(run)))


def _positive(*values: float) -> bool:
    """Return whether each has a logarithm; NaN and infinity have none."""
    return all(0 < each < math.inf for each in values)


def floor_margin(limit: Limit, base: float) -> float:
    """The limit's absolute floor as a margin on the log scale, at that base value; 0 without a floor."""
    if limit.of.direction == "lower":
        return math.log1p(limit.floor / base)
    return -math.log1p(-limit.floor / base) if limit.floor < base else math.inf


def pair_seconds(run: GateRun) -> float:
    """Return the median duration of one pair in seconds, from usable slots; 0 if unknown."""
    seconds = [b.seconds + c.seconds for b, c in complete_pairs(run)]
    return float(np.median(seconds)) if seconds else 0.0


def _regression_reason(finding: Finding, high: float, margin: float, seconds: float) -> str:
    change = (
        f"{finding.metric} went from {format_value(finding.base or 0, finding.unit)} to "
        f"{format_value(finding.candidate or 0, finding.unit)} ({(finding.ratio or 1) - 1:+.1%})"
    )
    worst = f"{math.expm1(high):+.1%}"
    allowed = f"margin {math.expm1(margin):+.1%}"
    if finding.outcome == "PASS":
        return f"{change}; upper bound {worst}, {allowed}."
    return (
        f"{change}; upper bound {worst}, {allowed}; certifiable {finding.certifiable:.1%}, detectable "
        f"at 90 % power: {finding.blocking:+.1%}; {_settles(finding, seconds)}."
    )


def _settles(finding: Finding, seconds: float) -> str:
    """Describe what would settle an inconclusive finding, with `seconds` per pair."""
    found = settling(finding)
    match found.means:
        case "pairs":
            more = found.pairs - finding.n
            return f"{more} more pairs are needed" + (f", about {format_duration(more * seconds)}" if seconds else "")
        case "margin":
            return "more pairs will not help: the effect is close to the margin"
    return f"even {MOST} pairs are not enough on this machine: lengthen the slots or widen the margin"


def _absolute(run: GateRun, budget: Budget, blank: Finding) -> Finding:
    """A fixed limit on the candidate alone: one number per slot, t bounds on their logarithms."""
    base, candidate, _ = slot_values(run, blank.metric)
    if len(candidate) < 2 or not _positive(*base, *candidate):
        return blank
    limit = math.log(blank.margin) if blank.margin else -math.inf
    logs = stats.level(np.log(candidate), limit, alpha=budget.alpha_pass)
    level = replace(logs, mean=math.exp(logs.mean), lower=math.exp(logs.lower), upper=math.exp(logs.upper))
    typical = float(np.exp(np.mean(np.log(base))))
    filled = replace(blank, base=typical, candidate=level.mean, n=len(candidate))
    return against_bound(filled, METRICS.get(blank.metric).direction, level)


def against_bound(filled: Finding, direction: str, level: stats.Level) -> Finding:
    """PASS where the whole bound lies on the good side of the limit; FAIL is decided later, over the family."""
    lower_better = direction == "lower"
    passed = level.upper <= filled.margin if lower_better else level.lower >= filled.margin
    side = "at most" if lower_better else "at least"
    bound = "upper" if lower_better else "lower"
    worst = format_value(level.upper if lower_better else level.lower, filled.unit)
    return replace(
        filled,
        interval=(level.lower, level.upper),
        bound=filled.margin,
        p=level.p_above if lower_better else level.p_below,
        outcome="PASS" if passed else "INCONCLUSIVE",
        reason=(
            f"{filled.metric} of the candidate is {format_value(level.mean, filled.unit)}, {bound} bound "
            f"{worst}; allowed {side} {format_value(filled.margin, filled.unit)}."
        ),
        method="level",
    )


def error_limit(budget: Budget) -> float:
    """The share of requests that may go without a good answer; 0 unless the budget says otherwise."""
    limit = budget.limit("errors")
    return limit.at_most if limit is not None and limit.at_most is not None else 0.0


def pooled_errors(run: GateRun, arm: Arm) -> float | None:
    """The share of an arm's requests without a good answer, over its usable slots; None without requests."""
    statuses = [record.status for record in run.arm(arm) if record.usable]
    total = sum(status.size for status in statuses)
    return sum(int((status != OK).sum()) for status in statuses) / total if total else None
