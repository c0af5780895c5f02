"""Explains a rollout: makes every logged decision again from its logged inputs, and says whether it comes out the same.

Reads the log only: neither the server nor the proxy need to be there, and nothing is changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .decision import Decision, advance
from .evidence import Evidence, judge
from .machine import Event, Rollout
from .records import Entry, Log
from .tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One decision made again. `agrees` is whether verdict, event and what followed are as they were logged."""

    entry: Entry
    again: Decision
    evidence: Evidence | None
    after: Rollout

    @property
    def agrees(self) -> bool:
        """Return whether the log's inputs lead to the log's decision."""
        logged = self.entry.observation.evidence
        verdicts = (logged and logged.outcome, self.evidence and self.evidence.outcome)
        places = ((each.phase, each.step) for each in (self.entry.after, self.after))
        return verdicts[0] == verdicts[1] and len(set(places)) == 1 and self.again.event == self.entry.decision.event

    @property
    def moved(self) -> bool:
        """Return whether anything happened."""
        return self.entry.decision.event is not None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        before, after = self.entry.before, self.entry.after
        return {
            "at": self.entry.observation.at,
            "before": before.label,
            "event": self.entry.decision.event,
            "after": after.label,
            "reason": self.entry.decision.reason,
            "verdict": self.evidence and self.evidence.outcome,
            "blocks": self.entry.blocks,
            "agrees": self.agrees,
        }


def explain(log: Log) -> Iterator[Explained]:
    """Every logged decision, made again, oldest first."""
    blocks = Tally.of(log.blocks)
    for entry in log.entries:
        seen = entry.observation
        if seen.evidence is not None:
            seen = replace(seen, evidence=judge(entry.before.plan, entry.before.step, blocks.first(entry.blocks)))
        decision, after = advance(entry.before, seen)
        yield Explained(entry=entry, again=decision, evidence=seen.evidence, after=after)


def why(explained: Explained) -> list[str]:
    """The decision in sentences: what happened, why, and the figures behind it."""
    entry = explained.entry
    lines = [f"{entry.before.label} -> {entry.after.label}: {entry.decision.reason}"]
    if explained.evidence is not None and entry.decision.event in (Event.FAILED, Event.PASSED, Event.FINISHED):
        lines += [f"{each.metric}: {each.outcome}, {each.reason}" for each in explained.evidence.findings]
    if not explained.agrees:
        lines.append(f"repeated from the log this decision becomes {explained.again.event}: {explained.again.reason}")
    return lines
