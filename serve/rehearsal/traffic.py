"""Faults of the data: recorded traffic that is spoiled in a copy, and judged by a copy of the monitor.

Nothing of the monitor's own state is read but its baseline, and nothing is written. The last windows of the traffic are
taken: 48 as they are, 12 spoiled, the rest as they are again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize import scratch
from seatrial.optimize.environment import home

from ..errors import RehearsalError
from ..monitor import on_duckdb
from ..monitor.alarms import Alarm
from ..monitor.looking import judge, shelf_of
from ..monitor.plan import Plan
from ..monitor.shelf import Shelf
from ..monitor.watching import Look

QUIET, SPOILED = 48, 12  # windows
FACTOR = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Windows until the fault was noticed, and windows after its end until its alarm ended; None: not seen."""

    detected: float | None
    recovered: float | None
    evidence: str


def poisoned(plan: Plan, files: Sequence[Path], feature: str = "") -> Watched:
    """Multiply one number by 1,000 in twelve windows.

    It counts as noticed where the monitor names that feature first and advises to patch.

    Raises:
        RehearsalError: no such number, or the traffic is too short or not quiet before.
        SeatrialError: as `judge`.
    """
    numbers = [name for name, each in plan.features.items() if each.kind == "number"]
    chosen = feature or next(iter(numbers), "")
    if chosen not in numbers:
        raise RehearsalError(
            f"{chosen or 'nothing'} is not a number that is watched",
            where="--feature",
            next_step=f"choose one of: {', '.join(numbers) or 'none; watch a number in the plan'}",
        )
    look, start, end = _judged(plan, files, feature=chosen)
    right = [
        each
        for each in look.watched.alarms
        if each.began > start and each.cause.advice == "patch" and each.cause.features[:1] == (chosen,)
    ]
    return _watched(plan, right, start, end, look)


def dead(plan: Plan, files: Sequence[Path]) -> Watched:
    """Leave twelve windows empty; it counts as noticed where the monitor calls them silent.

    Raises:
        RehearsalError: the traffic is too short or not quiet before.
        SeatrialError: as `judge`.
    """
    look, start, end = _judged(plan, files)
    silent = [each for each in look.silent if each[0] >= start - plan.interval / 2]
    over = look.watched.silent_since is None
    return Watched(
        detected=(silent[0][1] - start) / plan.interval if silent else None,
        recovered=max(0.0, (silent[-1][1] - end) / plan.interval) if silent and over else None,
        evidence=f"{len(silent)} windows are silent" if silent else "",
    )


def _watched(plan: Plan, alarms: Sequence[Alarm], start: float, end: float, look: Look) -> Watched:
    first = alarms[0] if alarms else None
    over = None if first is None or first.ended is None else max(0.0, (first.ended - end) / plan.interval)
    return Watched(
        detected=None if first is None else (first.began - start) / plan.interval,
        recovered=over,
        evidence="" if first is None else f"{first.tier}: {'; '.join(first.cause.reasons[:1])}",
    )


def _judged(plan: Plan, files: Sequence[Path], *, feature: str = "") -> tuple[Look, float, float]:
    """Judge a spoiled copy; return the look, and where the fault begins and ends, in seconds of the Unix epoch.

    With a feature its values are spoiled, else the rows are left out.
    """
    after = int(plan.hold / plan.interval) + 6
    with scratch.folder("rehearsal", home() / "work") as place:
        with shelf_of(plan.model) as shelf:
            learned, digest = shelf.baseline()
        copy = Shelf(folder=place / "watch")
        copy.keep_baseline(learned, digest)
        table = place / "traffic.parquet"
        start, end = _spoiled(plan, files, table, feature=feature, after=after)
        _, look = judge(plan, copy, [table], lambda label, share, text: None)
    if early := [each for each in look.watched.alarms if each.began <= start]:
        raise RehearsalError(
            f"the traffic alarms before anything was done to it: {'; '.join(early[0].cause.reasons[:1])}",
            next_step="give quiet traffic, or learn the baseline again",
        )
    return look, start, end


def _spoiled(plan: Plan, files: Sequence[Path], table: Path, *, feature: str, after: int) -> tuple[float, float]:
    """Write the last windows of the traffic as a table with the fault in it."""
    windows = QUIET + SPOILED + after
    with on_duckdb.opened(plan, files) as traffic:
        last = traffic.last - traffic.last % plan.interval
        begin = last - windows * plan.interval
        if begin < traffic.first:
            raise RehearsalError(
                f"the traffic has {(traffic.last - traffic.first) / plan.interval:.0f} windows, {windows} are needed",
                where=", ".join(map(str, files)),
                next_step="give more of it",
            )
        start = begin + QUIET * plan.interval
        end = start + SPOILED * plan.interval
        time, column = on_duckdb.quoted(plan.time), on_duckdb.quoted(feature)
        inside = f"moment >= {start!r} and moment < {end!r}"
        changed = f"replace (case when {inside} then {column} * {FACTOR!r} else {column} end as {column})"
        traffic.connection.execute(
            f"copy (select moment as {time}, * exclude (moment, place) {changed if feature else ''} from traffic "
            f"where moment >= {begin!r} and moment < {last + 1e-6!r} {'' if feature else f'and not ({inside})'} "
            f"order by place) to '{str(table).replace(chr(39), chr(39) * 2)}' (format parquet)"
        )
    return start, end
