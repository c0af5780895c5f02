"""Evidence: what the blocks of a step say about the candidate: PASS, FAIL or INCONCLUSIVE, with reasons and forecast.

Pure. FAIL: an e-process, which may be looked at after every block (`sequential`), shows that the candidate is worse
than the baseline, and by the best estimate it is so by more than the margin. An equal candidate therefore fails with
the chance that was written down, and a harmless difference does not fail for being certain. PASS: intervals, valid at
any time, lie below the margins. All else is INCONCLUSIVE and never counts as either: no traffic, one arm alone, few
requests.

The price of failing early: who is worse, but just inside the margin, may look outside it when the evidence comes.
Simulated at 120 requests a minute, one in ten candidates that are 3 % slower (margin 5 %) goes back within an hour, one
in fifty with errors of 0.58 instead of 0.50 % (margin 0.1 points). Testing latency against the margin itself would find
+20 % after 7 minutes instead of 4.

The margins of p95 and p99 are margins in seconds, though what is counted are events: a candidate whose quantile is
within the margin passes the threshold *stretched by the margin* at most as often as the baseline passes the plain one.

Latency is judged by the blocks of the step alone: the load changes with the share, and good days at 1 % would dilute
a bad hour at 50 %; its alpha is divided over the steps. Events (slow answers, errors, refusals) are judged by all
blocks so far, each against the share in force when it came.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from seatrial.optimize.units import format_count

from .blocks import BY_GROUP
from .plan import METRICS, Metric, Plan
from .sequential import (
    blocks_needed,
    event_evidence,
    event_safety,
    latency_evidence,
)
from .tally import TAILS, Counts, Tally

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
LEAST, LEAST_TAIL = 4, 12  # blocks before events say anything; slow answers come in clusters, for one waits on another
FAR = 2**24  # requests beyond which no forecast is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """External verdict: the golden replay, or the shadow's comparison of answers."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    forecast: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Evidence about one metric.

    `estimate`, `low` and `high` say how much worse the candidate is (latency relative, rates as differences; for p95
    and p99 the share of its answers beyond the stretched threshold less the baseline's beyond the plain one, so that
    the `bound` is 0); None is "not known". `evidence` is the e-value against "no worse", which fails at `enough`.
    `needed` are the further requests of each arm after which the interval would lie below the bound, None where that is
    not in sight.
    """

    metric: Metric
    outcome: Outcome
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float
    evidence: float = 1.0
    enough: float
    needed: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The verdict of a step after `blocks` blocks, with the requests that each arm answered in it."""

    outcome: Outcome
    blocks: int
    candidate: int
    baseline: int
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    forecast: str = ""


def judge(plan: Plan, step: int, blocks: Tally) -> Evidence:
    """Judge all blocks so far at that step."""
    here = blocks.at(step)
    asked = here.totals("requests")
    if plan.steps[step].share == 1:
        alone = _errors_alone(plan, here, blocks)
        return _verdict(plan, step, here, (asked[0], asked[0]), (alone,))
    short = min(asked) < plan.steps[step].requests
    # Intervals are expensive and are not needed before there are enough requests.
    prove = not short and plan.steps[step].needs == "evidence"
    findings = (
        _mean(plan, here),
        *(_events(plan, metric, blocks, here if prove else None) for metric in METRICS if metric != "mean"),
    )
    return _verdict(plan, step, here, asked, findings)


def _verdict(plan: Plan, step: int, here: Tally, asked: tuple[int, int], findings: tuple[Finding, ...]) -> Evidence:
    wanted = plan.steps[step]
    failed = [each.reason for each in findings if each.outcome == "FAIL"]
    missing = wanted.requests - min(asked)
    unproven = [each for each in findings if each.outcome == "INCONCLUSIVE"] if wanted.needs == "evidence" else []
    outcome: Outcome
    forecast = ""
    if failed:
        outcome, reasons = "FAIL", failed
    elif not len(here):
        outcome, reasons = "INCONCLUSIVE", ["no block is complete yet: one or both versions have too little traffic"]
    elif len(here) < LEAST_TAIL and wanted.share < 1:
        outcome, reasons = "INCONCLUSIVE", [f"{len(here)} of at least {LEAST_TAIL} blocks: too few to detect clusters"]
    elif missing > 0:
        outcome, reasons = "INCONCLUSIVE", [f"{min(asked)} of at least {wanted.requests} requests of each version"]
        forecast = f"needs {format_count(missing)} more requests of each version before it may pass"
    elif unproven:
        outcome, reasons = "INCONCLUSIVE", [each.reason for each in unproven]
        forecast = _forecast(unproven)
    else:
        shown = "every metric is within its margin" if wanted.needs == "evidence" else "no metric was shown to be worse"
        outcome, reasons = "PASS", [f"{shown} after {min(asked)} requests of each version"]
    return Evidence(
        outcome=outcome,
        blocks=len(here),
        candidate=asked[0],
        baseline=asked[1],
        findings=findings,
        reasons=tuple(reasons),
        forecast=forecast,
    )


def _mean(plan: Plan, here: Tally) -> Finding:
    margin, alpha = plan.margins.of("mean"), plan.alphas.of("mean") / plan.compared
    bound = math.log1p(margin)
    shift = latency_evidence(here.differences(), 0.0, alpha=plan.alphas.passing)
    estimate, low, high = (_relative(value) for value in (shift.shift, shift.low, shift.high))
    needed = None
    outcome: Outcome = "INCONCLUSIVE"
    if shift.evidence >= 1 / alpha and shift.shift > bound:
        outcome = "FAIL"
        reason = f"mean latency {_signed(estimate)} worse, margin {margin:.1%}"
    elif high is not None and high < margin:
        outcome, reason = "PASS", f"mean latency: upper bound {high:+.1%}, margin {margin:+.1%}"
    else:
        reason = f"mean latency {_signed(estimate)} worse ({_signed(low)} to {_signed(high)}), margin {margin:.1%}"
        if (blocks := blocks_needed(shift, bound, alpha=plan.alphas.passing)) is not None:
            each = min(here.totals("requests")) / len(here)
            needed = math.ceil(max(0, blocks - shift.blocks) * each)
    return Finding(
        metric="mean",
        outcome=outcome,
        estimate=estimate,
        low=low,
        high=high,
        bound=margin,
        evidence=shift.evidence,
        enough=1 / alpha,
        needed=needed,
        reason=reason,
    )


def _events(plan: Plan, metric: Metric, blocks: Tally, here: Tally | None) -> Finding:
    """One kind of event; `here` are the blocks to prove it by, None while no proof is needed."""
    alpha, bound = plan.alphas.of(metric), 0.0 if metric in TAILS else plan.margins.of(metric)
    counts = blocks.counts(metric)
    least = LEAST_TAIL if metric in TAILS else LEAST
    e = _evidence(counts, least)
    if e >= 1 / alpha:
        e = min([e, *(_evidence(each.counts(metric), least) for each in _parts(metric, blocks))])
    rate, baseline = counts.rates
    difference = rate - baseline
    low, high, needed = None, None, None
    outcome: Outcome = "INCONCLUSIVE"
    if e >= 1 / alpha and difference > bound:
        outcome, reason = "FAIL", _worse(metric, plan, rate, baseline)
    elif here is None:
        reason = f"{WORDS[metric]} {difference:+.2%}, not tested yet"
    else:
        level = plan.alphas.passing
        spans = [event_safety(*each.counts(metric).effective(), alpha=level) for each in _parts(metric, here)]
        effective = here.counts(metric).effective()
        low, high = min(low for low, _ in spans), max(high for _, high in spans)
        if high < bound:
            outcome, reason = "PASS", f"{WORDS[metric]}: upper bound {high:+.2%} against the baseline"
        else:
            reason = f"{WORDS[metric]} {difference:+.2%} ({low:+.2%} to {high:+.2%}), allowed {bound:+.2%}"
            needed = _requests_needed(effective, bound, level)
    return Finding(
        metric=metric,
        outcome=outcome,
        estimate=difference if len(counts) else None,
        low=low,
        high=high,
        bound=bound,
        evidence=e,
        enough=1 / alpha,
        needed=needed,
        reason=reason,
    )


def _parts(metric: Metric, blocks: Tally) -> list[Tally]:
    """The blocks; for the tails also without the clients that see the candidate worst, and without those that see it
    best, fewer than half of the requests each: it takes half of them to make a version look slow, or quick.
    """
    if metric not in TAILS or len(blocks.groups) < 2:
        return [blocks]
    at = BY_GROUP.index(TAILS[metric][1]), BY_GROUP.index(TAILS[metric][0])
    sums = {name: [rows.sum(axis=0) for rows in sides] for name, sides in blocks.groups.items()}
    asked = {name: float(candidate[0] + baseline[0]) for name, (candidate, baseline) in sums.items()}

    def worse(name: str) -> float:
        candidate, baseline = sums[name]
        return float(candidate[at[0]] / max(candidate[0], 1) - baseline[at[1]] / max(baseline[0], 1))

    parts = [blocks]
    for order in (sorted(sums, key=worse, reverse=True), sorted(sums, key=worse)):
        gone, left = [], sum(asked.values()) / 2
        for name in order:
            if asked[name] < left:
                gone.append(name)
                left -= asked[name]
        parts.append(blocks.without(gone))
    return parts


def _evidence(counts: Counts, least: int) -> float:
    return event_evidence(counts.candidate, counts.baseline, counts.share, least=least)


WORDS: Mapping[Metric, str] = {
    "mean": "mean latency",
    "p95": "answers slower than the baseline's p95",
    "p99": "answers slower than the baseline's p99",
    "errors": "errors",
    "refused": "refused requests (4xx)",
}


def _requests_needed(counts: tuple[int, int, int, int], bound: float, level: float) -> int | None:
    """Further requests of each arm until the interval lies below the bound, if the rates stay as they are."""
    if not counts[1] or not counts[3] or counts[0] / counts[1] - counts[2] / counts[3] >= bound:
        return None

    def shown(times: float) -> bool:
        return event_safety(*(round(each * times) for each in counts), alpha=level)[1] < bound

    low, high = 1.0, 2.0
    while not shown(high):
        low, high = high, high * 2
        if high * counts[1] > FAR:
            return None
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if shown(middle) else (middle, high)
    return math.ceil((high - 1) * min(counts[1], counts[3]))


def _errors_alone(plan: Plan, here: Tally, blocks: Tally) -> Finding:
    """At a share of 1: the candidate's errors now beside the baseline's of earlier steps. Only a gross rise shows."""
    (failed, _), (_, was) = here.totals("errors"), blocks.totals("errors")
    (asked, _), (_, of) = here.totals("requests"), blocks.totals("requests")
    low, high = event_safety(failed, asked, was, of, alpha=plan.alphas.errors)
    margin = plan.margins.of("errors")
    worse = bool(of) and low > margin
    return Finding(
        metric="errors",
        outcome="FAIL" if worse else "INCONCLUSIVE",
        estimate=failed / asked - was / of if asked and of else None,
        low=low,
        high=high,
        bound=margin,
        enough=1 / plan.alphas.errors,
        reason=f"errors: {failed} of {asked}, before: {was} of {of} of the baseline",
    )


def _worse(metric: Metric, plan: Plan, rate: float, baseline: float) -> str:
    if metric in TAILS:
        return (
            f"{rate:.2%} of the answers exceed the baseline's {metric} plus "
            f"{plan.margins.of(metric):.0%}, {baseline:.2%} of the baseline's answers exceed its {metric}"
        )
    return f"{WORDS[metric]} {rate:.2%}, the baseline's {baseline:.2%}, allowed {plan.margins.of(metric):+.2%}"


def _forecast(unproven: Sequence[Finding]) -> str:
    told = []
    for each in unproven:
        bound = f"{each.metric} beyond its margin" if each.bound == 0 else f"{each.bound:+.1%} {each.metric}"
        if each.needed is None:
            told.append(f"at the current estimate {bound} cannot be ruled out")
        else:
            told.append(f"needs about {format_count(each.needed)} more requests of each version to rule out {bound}")
    return "; ".join(told)


def _relative(value: float) -> float | None:
    return math.expm1(value) if math.isfinite(value) else None


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.1%}"
