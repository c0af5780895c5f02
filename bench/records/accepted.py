"""Accepted losses on disk: one journal per ledger, written when a candidate becomes a release.

Once for each candidate and never by judging again. A gate reads what the ledger holds before its first slot and keeps
that in the run, so that its verdict stays the same offline; what follows from it is `bench.gating.ledger`'s business.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from seatrial.optimize.names import checked
from seatrial.optimize.record import Record

from ..budget import LedgerLimits
from ..gating.ledger import real_loss
from ..gating.pairs import GateRun
from ..verdict import Verdict
from . import journal

_MOST = 100.0  # on the log scale; no regression is e^100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Record, schema=1, what="the accepted loss"):
    """One accepted loss: `loss` on the log scale, positive, with the interval that the verdict gave it."""

    metric: str
    loss: float
    lower: float
    upper: float
    base: str
    candidate: str
    at: str

    def check(self) -> None:
        """Check that the loss lies in its interval, and that the time has a zone."""
        if datetime.fromisoformat(self.at).tzinfo is None:
            raise ValueError(f"{self.at!r} has no time zone")
        if not 0 < self.loss < _MOST or not -_MOST < self.lower <= self.upper < _MOST:
            raise ValueError(f"a loss of {self.loss:g} lies outside its interval {self.lower:g} to {self.upper:g}")


def path_of(home: Path, name: str) -> Path:
    """Return where the ledger of that name lies.

    Raises:
        ConfigError: the name is not legal.
    """
    return home / "ledger" / f"{checked(name, 'ledger name')}.jsonl"


def entries(home: Path, name: str) -> list[Entry]:
    """Everything in a ledger, oldest first.

    Raises:
        IntegrityError: another schema, or a line that is no entry.
    """
    return journal.records(path_of(home, name), 1, Entry.from_json)


def held(home: Path, limits: LedgerLimits | None, at: datetime | None = None) -> dict[str, float]:
    """Return the ledger's loss by metric (log scale) over the window that ends now, or at `at`."""
    if limits is None:
        return {}
    start = (at or datetime.now(UTC)) - timedelta(days=limits.days)
    recent = [entry for entry in entries(home, limits.name) if datetime.fromisoformat(entry.at) >= start]
    return {metric: sum(each.loss for each in recent if each.metric == metric) for metric in limits.at_most}


def accept(home: Path, run: GateRun, verdict: Verdict) -> tuple[Entry, ...]:
    """Write down the real losses of a candidate that has become a release; what is there already is not written twice.

    Nothing is written where the verdict is no PASS, or where the run's budget keeps no ledger.
    """
    limits = run.header.budget.ledger
    if limits is None or verdict.outcome != "PASS":
        return ()
    known = {(entry.candidate, entry.metric) for entry in entries(home, limits.name)}
    candidate, base = verdict.candidate.digest, verdict.base.digest
    made = []
    for finding in verdict.findings:
        if finding.metric not in limits.at_most or (candidate, finding.metric) in known:
            continue
        if (found := real_loss(finding)) is not None:
            loss, lower, upper = found
            entry = Entry(
                metric=finding.metric,
                loss=loss,
                lower=lower,
                upper=upper,
                base=base,
                candidate=candidate,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            journal.append(path_of(home, limits.name), entry.to_json())
            made.append(entry)
    return tuple(made)
