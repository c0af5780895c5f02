"""One finding per rule of the budget, from a run's raw values; `bench.gating.judge` puts them together.

Pure. A finding that needs a test over all metrics together (FAIL) leaves here as INCONCLUSIVE with its p-value; missing
values are INVALID and never a PASS.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seatrial.optimize.units import format_duration, format_value

from .. import stats
from ..budget import Budget, Limit
from ..cost import usd_per_million
from ..load.run import CENSORED, OK
from ..measurement import METRICS
from ..measuring.growth import parts_of
from ..server_statistics import mean_compute, mean_queue
from ..verdict import Finding
from .leaks import leak_finding
from .pairs import Arm, GateRun, SlotRecord
from .settling import MOST, pairs_to_settle, settling

MEMORY_GRANULARITY = 2 << 20  # bytes; allocators and huge pages move in steps of this size


def complete_pairs(run: GateRun) -> list[tuple[SlotRecord, SlotRecord]]:
    """The pairs of which both slots are usable, as (base, candidate)."""
    final = run.final()
    pairs = sorted({pair for pair, _ in final})
    both = [(final.get((pair, "base")), final.get((pair, "candidate"))) for pair in pairs]
    return [(b, c) for b, c in both if b is not None and c is not None and b.usable and c.usable]


def slot_value(record: SlotRecord, metric: str, usd_hour: float) -> float | None:
    """The one number that a slot contributes to a metric; None where it has none.

    Percentiles are over answered requests and those that were still unanswered at the end, with the time they had
    waited: leaving those out would reward a stall. Failed requests are counted by `errors`.
    """
    if metric in ("p50", "p99"):
        counted = record.latency[(record.status == OK) | (record.status == CENSORED)]
        return float(np.quantile(counted, 0.5 if metric == "p50" else 0.99)) if counted.size else None
    if metric == "cost":
        return usd_per_million(record.throughput, usd_hour) if record.throughput else None
    if metric == "errors":
        return float(np.mean(record.status != OK)) if record.status.size else None
    if metric in _TOLD:
        return _TOLD[metric](record)
    attribute = "load_seconds" if metric == "load_time" else metric
    own = ("throughput", "peak_memory", "startup", "load_seconds", "first_inference")
    value: float | None = getattr(record, attribute) if attribute in own else None
    return value


def _leak(record: SlotRecord) -> float | None:
    """The steepest growth of the run's later parts; at least a byte, since histories work on logarithms."""
    parts = parts_of(record.memory)
    return max(1.0, *(part.slope for part in parts)) if parts else None


_TOLD: Mapping[str, Callable[[SlotRecord], float | None]] = {
    "queue": lambda record: mean_queue(record.server),
    "compute": lambda record: mean_compute(record.server),
    "steady_memory": lambda record: record.memory.get("last"),
    "leak": _leak,
    "device_memory": lambda record: record.device.get("peak"),
    "energy": lambda record: record.energy.get("per_inference"),
}


def slot_values(run: GateRun, metric: str) -> tuple[list[float], list[float], list[int]]:
    """Base values, candidate values and order (+1 where the candidate ran second) of every complete pair.

    Empty where any complete pair lacks the value: a statistic over the rest would be about a chosen part.
    """
    usd_hour = float(run.header.price.get("usd_hour", 0.0)) or 1.0
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
        if limit.metric == "file_size":
            made.append(_file_size(run, limit, blank))
        elif limit.metric == "errors":
            made.append(_errors(run, blank))
        elif limit.metric == "quality":
            made.append(_quality(run, budget, blank))
        elif limit.metric == "leak":
            pairs = complete_pairs(run)
            made.append(leak_finding(blank, [b for b, _ in pairs], [c for _, c in pairs], budget.alpha_pass))
        elif rule == "max_regression":
            made.append(_regression(run, budget, limit, blank))
        else:
            made.append(_absolute(run, budget, blank))
    return made


def _file_size(run: GateRun, limit: Limit, blank: Finding) -> Finding:
    """Bytes are exact: no statistics."""
    base, candidate = float(run.header.base["size"]), float(run.header.candidate["size"])
    relative = blank.rule == "max_regression"
    bound = max(base * (1 + blank.margin), base + limit.floor) if relative else blank.margin
    passed = candidate <= bound
    return replace(
        blank,
        base=base,
        candidate=candidate,
        ratio=candidate / base if relative and base else None,
        bound=bound / base if relative and base else bound,
        outcome="PASS" if passed else "FAIL",
        reason=(
            f"file_size: {format_value(candidate, 'B')}, was {format_value(base, 'B')}; "
            f"{'within' if passed else 'beyond'} the allowed {format_value(bound, 'B')}."
        ),
        method="exact",
    )


def _errors(run: GateRun, blank: Finding) -> Finding:
    """Requests without a good answer: a hard rule, no statistics."""
    base, candidate = pooled_errors(run, "base"), pooled_errors(run, "candidate")
    if base is None or candidate is None:
        return blank
    filled = replace(blank, base=base, candidate=candidate, bound=blank.margin, method="exact")
    if base > blank.margin:
        return replace(
            filled,
            reason=(f"errors: the base arm failed {base:.2%} of its own requests, so the candidate cannot be judged."),
        )
    passed = candidate <= blank.margin
    return replace(
        filled,
        outcome="PASS" if passed else "FAIL",
        reason=f"errors: {candidate:.2%} of the candidate's requests failed; allowed {blank.margin:.2%}.",
    )


def quality_scores(run: GateRun) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Per-sample scores of base and candidate over the whole evaluation set; None unless both answered all of it."""
    pairs = sorted(complete_pairs(run), key=lambda pair: pair[0].quality_start)
    at = 0
    for b, c in pairs:
        if b.quality_start != at or c.quality_start != at or b.quality.shape != c.quality.shape:
            return None
        at += b.quality.size
    if at == 0 or at != run.header.samples.get("count"):
        return None
    return np.concatenate([b.quality for b, _ in pairs]), np.concatenate([c.quality for _, c in pairs])


def _quality(run: GateRun, budget: Budget, blank: Finding) -> Finding:
    scores = quality_scores(run)
    if scores is None or scores[0].size < 2:
        return replace(blank, reason="quality: the evaluation set was not answered exactly once by each arm.")
    base, candidate = float(scores[0].mean()), float(scores[1].mean())
    filled = replace(blank, base=base, candidate=candidate, n=scores[0].size)
    if blank.rule == "at_least":
        level = stats.level(scores[1], blank.margin, alpha=budget.alpha_pass)
        return _against_bound(filled, "higher", level)
    drop = stats.paired_drop(*scores, blank.margin, alpha=budget.alpha_pass)
    passed = drop.upper < blank.margin
    reason = (
        f"quality {_moved(-drop.drop)} from {base:.4f} to {candidate:.4f} over {drop.n} samples; "
        f"upper bound of the drop {max(drop.upper, 0):.4f}, margin {blank.margin:.4f}."
    )
    certifiable = max(stats.detectable(drop.se, alpha=budget.alpha_pass), drop.upper - drop.drop)
    if not passed and certifiable > blank.margin > 0:
        needed = math.ceil(drop.n * (certifiable / blank.margin) ** 2)  # the standard error falls with the root of n
        reason += f" This set can certify {certifiable:.4f}; about {needed} samples are needed."
    return replace(
        filled,
        difference=0.0 - drop.drop,
        interval=(0.0 - drop.upper, 0.0 - drop.lower),
        bound=-blank.margin,
        p=drop.p_exceeds,
        outcome="PASS" if passed else "INCONCLUSIVE",
        reason=reason,
        sd=drop.se * math.sqrt(drop.n),
        certifiable=certifiable,
        blocking=blank.margin + stats.detectable(drop.se, alpha=budget.alpha_fail),
        method=drop.method,
    )


def _moved(change: float) -> str:
    return "rose" if change > 0 else "fell" if change < 0 else "stayed"


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
    se_floor = MEMORY_GRANULARITY / (math.sqrt(12) * typical) if limit.metric == "peak_memory" else 0.0
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
    return _against_bound(filled, METRICS[blank.metric].direction, level)


def _against_bound(filled: Finding, direction: str, level: stats.Level) -> Finding:
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
