"""A rollout as tables for a terminal and as JSON values. Reads records; computes no verdict of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.table import Table

from seatrial.optimize.record import as_json
from seatrial.optimize.tables import table

from .evidence import Evidence
from .explain import Explained, why
from .machine import Phase, Rollout
from .records import Log

_ORDER = (Phase.PENDING, Phase.LOADING, Phase.GOLDEN, Phase.SHADOW, Phase.STEP, Phase.PROMOTING, Phase.PROMOTED)
_COLOURS = {"done": "green", "now": "bold", "not reached": "dim", "pending": "dim"}


def status_json(rollout: Rollout, log: Log, *, acted_on: bool) -> dict[str, Any]:
    """Return the status as JSON: phase, every step with its requests, and the last verdict with its values."""
    last = log.entries[-1] if log.entries else None
    evidence = last.observation.evidence if last is not None and rollout.active is Phase.STEP else None
    return {
        "model": rollout.model,
        "stable": rollout.stable,
        "candidate": rollout.candidate,
        "digest": rollout.digest,
        "phase": rollout.phase,
        "label": rollout.label,
        "reason": rollout.reason,
        "waiting_for": last.decision.reason if last is not None and not rollout.ended else "",
        "controller": acted_on,
        "steps": as_json(steps(rollout, log)),
        "verdict": evidence and evidence.outcome,
        "forecast": evidence.forecast if evidence is not None else "",
        "findings": as_json(evidence.findings) if evidence is not None else [],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """One part of a rollout and what was counted there; `asked` and `needs` are None where it takes no live traffic.

    `share` is that of live traffic, or of the copies before. The others are numbers of requests: of each arm, and of
    the candidate those that failed, and those that no log confirms.
    """

    phase: Phase
    share: float
    state: Literal["done", "now", "pending", "not reached"]
    asked: int | None
    needs: Literal["evidence", "requests"] | None
    candidate: int
    baseline: int
    errors: int
    unconfirmed: int


def steps(rollout: Rollout, log: Log) -> list[StepProgress]:
    """Golden, shadow and each share: state, and what was counted there."""
    reached = _reached(rollout, log)
    stages: list[tuple[Phase, int, float]] = [(Phase.GOLDEN, 0, 0.0)]
    if rollout.plan.shadow is not None:
        stages.append((Phase.SHADOW, 0, rollout.plan.shadow.mirror))
    stages += [(Phase.STEP, index, step.share) for index, step in enumerate(rollout.plan.steps)]
    told = []
    for phase, index, share in stages:
        here = (_ORDER.index(phase), index)
        now = (rollout.active, rollout.step) == (phase, index) and not rollout.ended
        blocks = [block for block in log.blocks if phase is Phase.STEP and block.step == index]
        told.append(
            StepProgress(
                phase=phase,
                share=share,
                state="now" if now else "done" if here < reached else "not reached" if rollout.ended else "pending",
                asked=rollout.plan.steps[index].requests if phase is Phase.STEP else None,
                needs=rollout.plan.steps[index].needs if phase is Phase.STEP else None,
                candidate=sum(block.candidate.requests for block in blocks),
                baseline=sum(block.baseline.requests for block in blocks),
                errors=sum(block.candidate.errors for block in blocks),
                unconfirmed=sum(block.candidate.unconfirmed for block in blocks),
            )
        )
    return told


def status_table(rollout: Rollout, log: Log) -> Table:
    """The way of the candidate, a line per step."""
    head = ("step", "share", "state", "requests", "of at least", "baseline", "errors", "unconfirmed")
    rows = (
        (
            "live" if (live := each.phase is Phase.STEP) else str(each.phase),
            f"{each.share:.0%}" if live else f"{each.share:.0%} mirrored" if each.share else "",
            (each.state, _COLOURS[each.state]),
            f"{each.candidate:,}" if each.candidate else "",
            "" if each.asked is None else f"{each.asked:,}",
            f"{each.baseline:,}" if each.baseline else "",
            f"{each.errors:,}" if each.candidate else "",
            f"{each.unconfirmed:,}" if each.unconfirmed else "",
        )
        for each in steps(rollout, log)
    )
    return table(head, rows, left=("step",))


def findings_table(evidence: Evidence) -> Table:
    """Return the current step's evidence about each metric, as a table."""
    head = ("metric", "change", "upper bound", "margin", "evidence against", "threshold", "verdict")
    rows = (
        (
            each.metric,
            _percent(each.estimate),
            _percent(each.high),
            f"{each.bound:.2%}",
            f"{each.evidence:.3g}",
            f"{each.enough:.0f}",
            each.outcome,
        )
        for each in evidence.findings
    )
    return table(head, rows, left=("metric", "verdict"))


def explained_lines(told: Iterable[Explained]) -> list[str]:
    """Return the decisions with their reasons, in the order of the log."""
    lines = []
    for each in told:
        first, *others = why(each)
        at = datetime.fromtimestamp(each.entry.observation.at, UTC).isoformat(sep=" ", timespec="seconds")[:19]
        lines += [f"{at}  {first}", *(f"{'':19}    {other}" for other in others)]
    return lines


def _reached(rollout: Rollout, log: Log) -> tuple[int, int]:
    """The furthest point that the rollout came to."""
    places = [(entry.after.active, entry.after.step) for entry in log.entries] + [(rollout.active, rollout.step)]
    return max(((_ORDER.index(phase), step) for phase, step in places if phase in _ORDER), default=(0, 0))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"
