"""Deployments as changes, read from seatrial's journals: placements, the last switch, rollouts, routes in the trail.

Reads; never writes. What cannot be read is named and left out, so that a damaged journal hides no alarm.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from seatrial.bench.records import journal as lines
from seatrial.optimize.errors import SeatrialError

from ..traffic.rollout.machine import Phase
from ..traffic.rollout.records import SCHEMA, Records
from ..triton.repository import journal, placement
from .changes import Change, added

_ROLLOUT, _ROUTES = "rollout of version ", "routes: "
_SAME = 30.0  # seconds between a rollout's decision and its routes in force
_MOVING = frozenset({Phase.STEP, Phase.PROMOTING, Phase.ROLLING_BACK, Phase.ABORTING})
"""Phases in which live requests go another way than before."""


def known_changes(folder: Path, *, home: Path, repository: Path, model: str) -> tuple[list[Change], list[str]]:
    """Return all changes that are known of a model in order of time, and what could not be read."""
    found, unread = list[Change](), list[str]()
    sources: tuple[Callable[[], Iterable[Change]], ...] = (
        partial(added, folder),
        partial(_placed, repository, model),
        partial(_switched, repository, model),
        partial(_rolled_out, home / "rollouts", model),
        partial(_routed, home / "trail", model),
    )
    for read in sources:
        try:
            found += read()
        except (SeatrialError, OSError, LookupError, TypeError, ValueError) as error:
            unread.append(f"{getattr(error, 'where', '') or repository}: {getattr(error, 'what', error)}")
    steps = [change.at for change in found if change.text.startswith(_ROLLOUT)]
    kept = [
        change
        for change in found
        if not (change.text.startswith(_ROUTES) and any(abs(change.at - at) < _SAME for at in steps))
    ]
    return sorted(kept, key=lambda change: change.at), unread


def _placed(repository: Path, model: str) -> Iterator[Change]:
    """Yield the placements of versions, which answer nothing yet."""
    for folder in placement.version_directories(repository, model):
        if placement.is_recorded(folder):
            record = placement.stored(placement.PlacementRecord, folder / placement.RECORD)
            if (at := _seconds(record.at)) is not None:
                yield Change(at=at, kind="deploy", text=f"version {record.version} was placed", ours=True)


def _switched(repository: Path, model: str) -> Iterator[Change]:
    entry = journal.read(repository, model)
    at = _seconds(entry.at) if entry is not None else None
    if entry is None or at is None or entry.before == entry.after:
        return
    before, after = (" ".join(map(str, each)) or "none" for each in (entry.before, entry.after))
    yield Change(
        at=at,
        kind="deploy",
        text=f"the served versions were switched from {before} to {after}",
        ours=True,
        moved_traffic=True,
        undo=f"seatrial switch {model} {before}" if entry.before else "",
    )


def _rolled_out(home: Path, model: str) -> Iterator[Change]:
    """Yield every step of every rollout that moved live traffic."""
    for log in sorted(Records(home, model).folder.glob("*/log.jsonl")):
        candidate, steps = 0, list[dict[str, Any]]()
        for line in lines.read(log, SCHEMA):
            if line["kind"] == "start":
                candidate, steps = int(line["rollout"]["candidate"]), line["rollout"]["plan"]["steps"]
            elif line["kind"] == "decision":
                before, after = ((line[each]["phase"], int(line[each]["step"])) for each in ("before", "after"))
                if before != after and Phase(after[0]) in _MOVING:
                    share = f" at {float(steps[after[1]]['share']):.0%}" if after[0] == Phase.STEP else ""
                    forward = Phase(after[0]) in (Phase.STEP, Phase.PROMOTING)
                    yield Change(
                        at=float(line["observation"]["at"]),
                        kind="deploy",
                        text=f"{_ROLLOUT}{candidate}: {str(after[0]).replace('_', ' ')}{share}",
                        ours=True,
                        moved_traffic=True,
                        undo=f"seatrial rollout rollback {model}" if forward else "",
                    )


def _routed(trail: Path, model: str) -> Iterator[Change]:
    """Yield every change of routes that the trail has; those of a rollout are among them."""
    from ..release.trail_file import TrailFile  # with its cryptography

    if not (trail / "trail.jsonl").exists():
        return
    before = None
    for entry in TrailFile(trail).entries(model=model):
        if entry.event == "switched" and (at := _seconds(entry.at)) is not None:
            shares = {int(each["version"]): float(each["share"]) for each in entry.details["shares"]}
            stable = max(shares, key=lambda version: shares[version])
            if shares != before:
                earlier = max(before, key=lambda version: before[version]) if before else None
                parts = ", ".join(f"{share:.0%} to version {version}" for version, share in shares.items() if share)
                back = stable if len(shares) > 1 else earlier
                yield Change(
                    at=at,
                    kind="deploy",
                    text=f"{_ROUTES}{parts}",
                    ours=True,
                    moved_traffic=True,
                    undo=f"seatrial routes set {model} --stable {back}" if back else "",
                )
            before = shares


def _seconds(text: str) -> float | None:
    """Return an ISO time in seconds of the Unix epoch; None where there is none."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
