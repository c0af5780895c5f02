"""Accepted losses on disk: one journal per ledger, written when a candidate becomes a release.

Once for each candidate and never by judging again. A gate reads what the ledger holds before its first slot and keeps
that in the run, so that its verdict stays the same offline; what follows from it is `bench.gating.ledger`'s business.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from seatrial.optimize.names import checked
from seatrial.optimize.reading import decode

from ..budget import LedgerLimits, budget_from_json
from ..gating.ledger import real_loss
from ..gating.pairs import GateRun
from ..verdict import Verdict
from . import journal

SCHEMA = 1
_MOST = 100.0  # on the log scale; no regression is e^100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One accepted loss: `loss` on the log scale, positive, with the interval that the verdict gave it."""

    metric: str
    loss: float
    lower: float
    upper: float
    base: str
    candidate: str
    at: str


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
    return journal.records(path_of(home, name), SCHEMA, _entry)


def _entry(line: dict[str, Any]) -> Entry:
    found = decode(Entry, {key: value for key, value in line.items() if key != "schema"}, where="")
    if datetime.fromisoformat(found.at).tzinfo is None:
        raise ValueError(f"{found.at!r} has no time zone")
    if not 0 < found.loss < _MOST or not -_MOST < found.lower <= found.upper < _MOST:
        raise ValueError(f"a loss of {found.loss:g} lies outside its interval {found.lower:g} to {found.upper:g}")
    return found


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
    limits = budget_from_json(run.header.budget).ledger
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
            journal.append(path_of(home, limits.name), {"schema": SCHEMA} | asdict(entry))
            made.append(entry)
    return tuple(made)
