"""The verdict: a pure function of a run's raw values and a budget, the same online and years later from the folder.

Three answers and a refusal. PASS: every gating metric is shown to be within its margin (each at `alpha_pass`; all must,
so no correction is due, Berger's intersection-union test). FAIL: at least one is shown to be beyond it (Holm over the
family at `alpha_fail`; metrics that do not gate are told at a false discovery rate of 5 %). INCONCLUSIVE: the data show
neither. INVALID: the run cannot carry a verdict. Reads no file, starts nothing, and never turns missing values into a
PASS.

A design with looks is judged look by look, each at its share of the error rates (`looks`); the first look that
passes or fails is the verdict, whatever was measured after it.
"""

import math
from dataclasses import replace
from itertools import pairwise

from seatrial.optimize.units import format_duration

from .. import stats
from ..budget import Budget
from ..decision import decide_failures, outcome_of
from ..verdict import EXIT_CODES, Finding, Outcome, Verdict
from .exercised import exercised
from .findings import complete_pairs, error_limit, findings_of, limits_of, pooled_errors
from .ledger import exhausted, real_loss
from .looks import at_look, looks_of
from .pairs import ARMS, GateRun, SlotRecord
from .quality_findings import check_findings

__all__ = ["EXIT_CODES", "Finding", "Outcome", "Verdict", "health", "judge"]

SERVER_SIDE = frozenset(
    ("transport", "dropped", "unanswered", "saturation transport", "saturation offered")
)  # rules of `bench.load.validity` that a slow or broken server breaks, not the client


def judge(run: GateRun, budget: Budget) -> Verdict:
    """Judge a run, whole or broken off, against a budget."""
    looks = looks_of(run.header.budget.design)
    for number, pairs in enumerate(looks):
        part = run.first(pairs)
        verdict = _judge_look(part, at_look(budget, looks, number), pairs)
        over = verdict.outcome in ("PASS", "FAIL") or pairs == looks[-1] or len(complete_pairs(part)) < pairs
        if over:
            break
    notes = (*_look_notes(verdict, looks, number), *_continued(run, budget), *_loss_notes(verdict))
    notes += (*exercised(part, budget.design.quality_batch), *_engines(part), *_cost(part))
    return replace(verdict, budget=budget.digest, looks=looks, notes=notes)


def _judge_look(run: GateRun, budget: Budget, planned: int) -> Verdict:
    """The verdict on the pairs up to one look, at that look's error rates."""
    broken, invalid = health(run, budget, planned)
    findings = [finding for limit in limits_of(budget) for finding in findings_of(run, budget, limit)]
    findings += check_findings(run, budget)
    findings = exhausted(decide_failures(findings, budget.alpha_fail), run.header.ledger, budget.ledger)
    return Verdict(
        outcome=outcome_of(findings, broken, invalid),
        findings=tuple(findings),
        reasons=(*broken, *invalid),
        base=run.header.base,
        candidate=run.header.candidate,
        pairs=len(complete_pairs(run)),
        confidence=1 - 2 * budget.alpha_pass,
        budget="",  # the whole budget's digest, not this look's
        samples=run.header.samples,
        at=run.header.at,
        seconds=sum(record.seconds for record in run.records),
    )


def _look_notes(verdict: Verdict, looks: tuple[int, ...], number: int) -> tuple[str, ...]:
    """At which look the verdict fell, where there were several."""
    if len(looks) == 1:
        return ()
    saved = looks[-1] - looks[number]
    early = f", up to {saved} pairs earlier than planned" if saved and verdict.outcome in ("PASS", "FAIL") else ""
    return (f"decided at look {number + 1} of {len(looks)} ({looks[number]} pairs){early}",)


def _continued(run: GateRun, budget: Budget) -> tuple[str, ...]:
    """Return the factor of the error rates for a run that was judged before and then continued."""
    looked = run.header.continued
    if not looked:
        return ()
    totals = (*looked, run.header.budget.design.pairs)
    times = 1 + sum(1 - before / after for before, after in pairwise(totals))
    after = ", ".join(map(str, looked))
    return (
        (
            f"continued after {after} pairs: with that look the false-pass probability is at most "
            f"{times * budget.alpha_pass:.1%}"
        ),
    )


def _loss_notes(verdict: Verdict) -> tuple[str, ...]:
    """Regressions that are real although they pass: what a ledger would count."""
    return tuple(
        f"{finding.metric} is significantly worse ({math.expm1(found[0]):+.1%}), within budget"
        for finding in verdict.findings
        if (found := real_loss(finding)) is not None
    )


def _engines(run: GateRun) -> tuple[str, ...]:
    """Name the engine that served each arm, where the hosts of the run say so."""
    found = {arm: sorted({record.engine for record in run.arm(arm) if record.engine}) for arm in ARMS}
    if not any(found.values()):
        return ()
    base, candidate = (" and ".join(found[arm]) or "an unknown engine" for arm in ARMS)
    return (
        f"served in {base}" if base == candidate else f"the base was served in {base}, the candidate in {candidate}",
    )


def _cost(run: GateRun) -> tuple[str, ...]:
    """Describe the cost of the gate itself, at the run's pinned price."""
    seconds, usd_hour = sum(record.seconds for record in run.records), run.header.price.usd_hour
    if not seconds or not usd_hour:
        return ()
    dollars = f"${seconds / 3600 * usd_hour:.2g}"
    return (f"this gate took {format_duration(seconds)}: {dollars} on {run.header.price.machine}",)


# What can be wrong with the run as a whole


def health(run: GateRun, budget: Budget, planned: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the candidate's own faults (a FAIL), and the reasons that make a run of `planned` pairs INVALID.

    A fault of the candidate counts against it only where the base was healthy on the same machine.
    """
    final = run.final()
    faults = {arm: [record for record in run.arm(arm) if record.faults] for arm in ARMS}
    base_worked = any(not record.faults for record in run.arm("base"))
    own = [record for record in faults["candidate"] if record.fault_kind == "model"]
    invalid = [f"base arm, {_place(record)}: {fault}" for record in faults["base"] for fault in record.faults]
    if own and not faults["base"] and base_worked:
        return tuple(dict.fromkeys(fault for record in own for fault in record.faults)), ()
    invalid += [f"candidate arm, {_place(each)}: {fault}" for each in faults["candidate"] for fault in each.faults]
    refused = [] if invalid else _not_carried(run)
    if refused:
        return tuple(refused), ()
    invalid += [
        f"{arm} arm, {_place(record)}: {breach}"
        for (_, arm), record in sorted(final.items())
        for breach in record.breaches
    ]
    usable = len(complete_pairs(run))
    if usable < planned:
        invalid.append(f"only {usable} of {planned} pairs were measured")
    allowed_errors = error_limit(budget)
    shares = {arm: pooled_errors(run, arm) for arm in ARMS}
    if shares["base"] is not None and shares["base"] > allowed_errors:
        invalid.append(f"the base arm failed {shares['base']:.2%} of its own requests")
    if (moved := _control(run, budget)) is not None:
        invalid.append(moved)
    return (), tuple(dict.fromkeys(invalid))


def server_side(breach: str) -> bool:
    """Return whether the server rather than the client caused a broken load rule."""
    return breach.split(":")[0] in SERVER_SIDE


def _not_carried(run: GateRun) -> list[str]:
    """Describe how the candidate missed a load that the base carried in the same pair and attempt.

    Connections that a living server broke count at once; a queue that overflowed only where it did so again when the
    pair was run again, since a stall of the machine overflows it too.
    """
    found = []
    base = {(each.slot.pair, each.attempt): each for each in run.records if each.slot.arm == "base"}
    last = {pair: record.attempt for (pair, arm), record in run.final().items() if arm == "candidate"}
    for record in run.records:
        other = base.get((record.slot.pair, record.attempt))
        if record.slot.arm == "base" or record.faults or other is None or any(map(server_side, other.breaches)):
            continue
        again = record.attempt > 0 and record.attempt == last[record.slot.pair]
        found += [
            f"the candidate does not carry the load that the base carries, {_place(record)}: {breach}"
            for breach in record.breaches
            if server_side(breach) and ("transport" in breach.split(":")[0] or again)
        ]
    return found


def _place(record: SlotRecord) -> str:
    return f"pair {record.slot.pair + 1}" + (" (rerun)" if record.attempt else "")


def _control(run: GateRun, budget: Budget) -> str | None:
    """Check with the fixed control workload whether the machine treated the arms differently."""
    if budget.design.control_limit is None:
        return None
    pairs = [(b.control, c.control, 1 if c.slot.position else -1) for b, c in complete_pairs(run)]
    whole = [(b, c, o) for b, c, o in pairs if b is not None and c is not None]
    if len(whole) < len(pairs) or len(whole) < 4 or len(whole) % 2 or sum(row[2] for row in whole) != 0:
        return "the control workload was not measured in every slot"
    base, candidate, order = zip(*whole, strict=True)
    estimate = stats.paired(stats.log_ratios(base, candidate, 1), order)
    low, high = stats.lower_bound(estimate, 0.025), stats.upper_bound(estimate, 0.025)
    allowed, limit = math.log1p(budget.design.control_limit), f"{budget.design.control_limit:.1%}"
    interval = f"95 % interval {math.expm1(low):+.1%} to {math.expm1(high):+.1%}, limit {limit}"
    if low > allowed or high < -allowed:
        return (
            f"the control workload differs between the arms by {math.expm1(estimate.effect):+.1%} "
            f"({interval}): the machine changed with the arm"
        )
    if budget.design.control_rule == "contained" and (high > allowed or low < -allowed):
        return f"the control workload was not shown to be equal in both arms ({interval})"
    return None
