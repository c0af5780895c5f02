"""The decision: which event the observed world means for a rollout, and where that leaves it.

Pure: everything it goes by is in one `Observation`, which is logged, so that any decision can be made again later from
the log alone (`explain`). In this order: faults of the candidate, the operator's words, verdicts, the longest stay.
"""

from dataclasses import dataclass, replace

from ...fleet import Health
from .evidence import Evidence, Judgement
from .machine import TABLE, Event, Phase, Rollout, follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The world at a moment (Unix seconds), as far as the rollout's phase asks for it; None is "not asked, not known".

    `in_force` says that the routes are the wanted ones, `settled` that moreover exactly the wanted versions are served.
    `refused` quotes the server that would not load the candidate, `problem` what kept the world from being as wanted.
    """

    at: float
    in_force: bool = False
    settled: bool = False
    refused: str = ""
    problem: str = ""
    candidate: Health | None = None
    stable: Health | None = None
    command: Event | None = None
    golden: Judgement | None = None
    agreement: Judgement | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An event (None: nothing happens) and the reason, in words for people."""

    event: Event | None
    reason: str


WATCHED = frozenset({Phase.GOLDEN, Phase.SHADOW, Phase.STEP, Phase.PAUSED, Phase.PROMOTING})
SETTLING = frozenset({Phase.PROMOTING, Phase.ROLLING_BACK, Phase.ABORTING})


def decide(rollout: Rollout, seen: Observation) -> Decision:
    """The event that the observation means in the rollout's phase."""
    if (Event.FAULT in TABLE[rollout.phase]) and (found := faults(rollout, seen)):
        return Decision(event=Event.FAULT, reason="; ".join(found))
    if seen.command is not None:
        heard = seen.command in TABLE[rollout.phase]
        words = f"{seen.command} by the operator"
        return Decision(event=seen.command, reason=words if heard else f"{words}: no effect while {rollout.label}")
    told = _told(rollout, seen)
    if told is not None and told.event in TABLE[rollout.phase]:
        return told
    if Event.STALLED in TABLE[rollout.phase] and seen.at - rollout.resumed > (most := longest(rollout)):
        return Decision(event=Event.STALLED, reason=f"no decision within {most:g} s: {_open_question(seen, told)}")
    return Decision(event=None, reason=_open_question(seen, told))


def advance(rollout: Rollout, seen: Observation) -> tuple[Decision, Rollout]:
    """The decision, and the rollout after it with what it must remember of the observation."""
    decision = decide(rollout, seen)
    if seen.in_force != bool(rollout.routed):
        rollout = replace(rollout, routed=seen.at if seen.in_force else 0.0)
    if decision.event is None:
        return decision, rollout
    after = follow(rollout, decision.event, at=seen.at, reason=decision.reason)
    if decision.event is seen.command:
        after = replace(after, intents=rollout.intents + 1)
    if rollout.phase is Phase.LOADING and seen.candidate is not None:
        found = seen.candidate
        after = replace(after, restarts=found.restarts, server_restarts=found.server_restarts)
    return decision, after


def faults(rollout: Rollout, seen: Observation) -> list[str]:
    """Return the faults that need no statistics.

    A crash of the server with all its versions has no clear cause: `Plan.server_restarts` says how many are tolerated,
    because some candidates crash the server each time.
    """
    found = [f"the candidate does not load: {seen.refused}"] if seen.refused else []
    health = seen.candidate
    if rollout.phase not in WATCHED or health is None:
        return found
    beside = seen.stable is not None and seen.stable.ok and seen.stable.server == health.server
    if not health.ok and beside:  # one that was asked before the server came back is not worse than the other
        found.append(f"version {rollout.candidate} does not serve: {health.reason or 'no reason given'}")
    if health.restarts > rollout.restarts >= 0:
        found.append(f"version {rollout.candidate} was restarted {health.restarts - rollout.restarts} times")
    whole = health.server_restarts - rollout.server_restarts
    if rollout.server_restarts >= 0 and whole > rollout.plan.server_restarts:
        found.append(f"the server was restarted {whole} times with version {rollout.candidate} on trial")
    if 0 < rollout.plan.memory < health.memory:
        found.append(f"version {rollout.candidate} uses {health.memory} bytes, the limit is {rollout.plan.memory}")
    return found


def longest(rollout: Rollout) -> float:
    """The longest stay in this phase, seconds."""
    plan = rollout.plan
    if rollout.active is Phase.SHADOW and plan.shadow is not None:
        return plan.shadow.dwell
    return plan.steps[rollout.step].dwell if rollout.active is Phase.STEP else plan.load


def _told(rollout: Rollout, seen: Observation) -> Decision | None:
    """Return the answer to the phase's own question."""
    phase, active = rollout.phase, rollout.active
    if phase is Phase.PENDING:
        return Decision(event=Event.READY, reason=rollout.reason or "started")
    if phase is Phase.LOADING:
        ready = seen.in_force and all(each is not None and each.ok for each in (seen.candidate, seen.stable))
        return Decision(event=Event.READY, reason="both versions serve") if ready else None
    if phase in SETTLING:
        return Decision(event=Event.READY, reason=rollout.reason) if seen.settled else None
    answer: Judgement | Evidence | None = {
        Phase.GOLDEN: seen.golden,
        Phase.SHADOW: seen.agreement,
        Phase.STEP: seen.evidence,
    }.get(active)
    if answer is None:
        return None
    reason = "; ".join(answer.reasons) or f"{active}: {answer.outcome}"
    if answer.outcome == "FAIL":
        return Decision(event=Event.FAILED, reason=reason)
    if answer.outcome == "PASS" and seen.in_force:
        last = active is Phase.STEP and rollout.last_step
        return Decision(event=Event.FINISHED if last else Event.PASSED, reason=reason)
    return Decision(event=None, reason="; ".join(part for part in (reason, answer.forecast) if part))


def _open_question(seen: Observation, told: Decision | None) -> str:
    if seen.problem:
        return seen.problem
    for name, health in (("candidate", seen.candidate), ("stable version", seen.stable)):
        if health is not None and not health.ok:
            return f"the {name} does not serve: {health.reason}"
    return told.reason if told is not None and told.reason else "no result yet"
