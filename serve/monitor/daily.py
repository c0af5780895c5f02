"""The page of a day: what happened to a model's traffic, the evidence, the changes, and what was not seen.

Pure: a `Day` from state, history and changes; `markdown` prints it. Days are those of UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from .alarms import Alarm, Watched
from .changes import Change, moment
from .history import History
from .suspects import Diagnosed, diagnosed
from .watching import Judged

_DAY = 86_400.0
_MOST = 24  # windows that a page lists, those with the most evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An alarm that held on the day, with the changes before it and the advice."""

    alarm: Alarm
    diagnosed: Diagnosed


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a model at the time of the page; `interval` is that of its windows, in seconds."""

    model: str
    interval: float
    watched: Watched
    history: History
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of a model. Times in seconds of the Unix epoch; `silent` is in seconds, `highest` the strongest window.

    `unseen` says what was not seen, in words.
    """

    model: str
    day: str
    windows: int
    rows: int
    highest: Judged | None
    alarms: tuple[Happened, ...]
    silent: float
    silences: tuple[tuple[float, float], ...]
    changes: tuple[Change, ...]
    strongest: tuple[Judged, ...]
    unseen: tuple[str, ...]


def day_of(known: Known, day: date, *, unread: Sequence[str] = ()) -> Day:
    """Sum up a day of UTC."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    end = start + _DAY
    watched, changes = known.watched, known.changes
    mine = known.history.between(start, end)
    strongest = sorted(mine.judged, key=lambda each: -each.evidence / each.threshold)
    held = [each for each in watched.alarms if each.began <= end and (each.ended or end) > start]
    silences = joined(mine.silent)
    return Day(
        model=known.model,
        day=day.isoformat(),
        windows=len(mine.judged),
        rows=sum(each.rows for each in mine.judged),
        highest=strongest[0] if strongest else None,
        alarms=tuple(
            Happened(alarm=each, diagnosed=diagnosed(each, watched.alarms, changes, interval=known.interval))
            for each in held
        ),
        silent=sum(until - since for since, until in silences),
        silences=silences,
        changes=tuple(each for each in changes if start < each.at <= end),
        strongest=tuple(strongest[:_MOST]),
        unseen=tuple(_unseen(known, mine, start, end, unread)),
    )


def joined(silent: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Join intervals that follow each other."""
    found = list[tuple[float, float]]()
    for start, end in silent:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return tuple(found)


def newest(watched: Watched, now: float) -> date:
    """Return the day that was judged last; of a model that was never judged the day of `now`."""
    at = now if watched.until is None else watched.until - 1.0
    return datetime.fromtimestamp(at, UTC).date()


def read_day(text: str) -> date:
    """Return a day as text: ``2026-03-02``, ``today``, ``yesterday``.

    Raises:
        ValueError: it is none of these.
    """
    today = datetime.now(UTC).date()
    near = {"today": today, "yesterday": today - timedelta(days=1)}
    return near[text] if text in near else date.fromisoformat(text)


def _unseen(known: Known, mine: History, start: float, end: float, unread: Sequence[str]) -> list[str]:
    watched = known.watched
    found = [
        "Whether the answers were right: that needs outcomes, and no change of inputs says it.",
    ]
    if watched.until is None or watched.until < end:
        until = "nothing was judged yet" if watched.until is None else f"judged until {moment(watched.until)}"
        found.insert(0, f"The rest of the day: {until}.")
    spans = joined(sorted([*((each.start, each.end) for each in mine.judged), *mine.silent]))
    covered = sum(until - max(start, since) for since, until in spans)
    whole = min(end, watched.until or start) - start
    if covered < whole - known.interval:
        found.append(
            f"About {(whole - covered) / 3600:.1f} hours without a judgement of their own: their rows wait for more, "
            "or were judged before this record began."
        )
    if mine.silent:
        found.append("Silent intervals: without rows there is no evidence, neither for nor against.")
    if watched.late:
        found.append(f"{watched.late} intervals in all came after they had been passed over.")
    return found + [f"Could not be read: {each}." for each in unread]


def markdown(day: Day) -> str:
    """Return the page."""
    parts = [f"# {day.model}: {day.day} (UTC)", "## What happened", *_happened(day)]
    parts += ["## Evidence", *_evidence(day), "## Changes", *(_changes(day) or ["No change is known."])]
    parts += ["## What was not seen", "\n".join(f"- {each}" for each in day.unseen)]
    return "\n\n".join(parts) + "\n"


def _happened(day: Day) -> list[str]:
    lines = [f"- {day.windows} windows of {day.rows} rows were judged."]
    if day.silences:
        spans = "; ".join(f"{moment(start)} to {moment(end)}" for start, end in day.silences)
        lines.append(f"- Silent for {day.silent / 3600:.1f} hours: {spans}.")
    else:
        lines.append("- No silence.")
    if not day.alarms:
        lines.append("- No alarm." if day.windows else "- Nothing was judged, so no alarm says nothing.")
    for each in day.alarms:
        alarm, found = each.alarm, each.diagnosed
        ended = f"ended {moment(alarm.ended)}" if alarm.ended is not None else "holds"
        harmed = f", at most {alarm.harmed:.1%} of the rows concerned" if alarm.harmed is not None else ""
        lines.append(f"- **Alarm ({alarm.tier})** since {moment(alarm.began)}, {ended}{harmed}.")
        lines.append(f"  - features: {', '.join(alarm.cause.features[:8]) or 'none'}; looks like: {alarm.cause.kind}")
        lines += [f"  - {reason}" for reason in alarm.cause.reasons]
        lines.append(f"  - advice: **{found.advice}**" + (f": {found.reason}" if found.reason else ""))
        if found.command:
            lines.append(f"  - command: `{found.command}`")
        for suspect in found.suspects:
            lines.append(f"  - before it: {moment(suspect.change.at)}, {suspect.change.text} ({suspect.change.kind})")
            lines += [f"    - for: {reason}" for reason in suspect.supports]
            lines += [f"    - against: {reason}" for reason in suspect.against]
    return ["\n".join(lines)]


def _evidence(day: Day) -> list[str]:
    if day.highest is None:
        return ["No window was judged."]
    rows = [
        f"| {moment(each.start)} | {each.rows} | {each.evidence / each.threshold:.2%} | {each.feature} |"
        + (" alarm |" if each.alarms else " |")
        for each in sorted(day.strongest, key=lambda each: each.start)
    ]
    head = ["| window | rows | evidence over the threshold | feature that moved most | |", "|---|--:|--:|---|---|"]
    more = f" The {len(rows)} windows with the most evidence:" if day.windows > len(rows) else ""
    highest = day.highest
    first = f"Highest: {highest.evidence / highest.threshold:.1%} of the threshold at {moment(highest.start)}.{more}"
    return [first, "\n".join([*head, *rows])]


def _changes(day: Day) -> list[str]:
    lines = [
        f"- {moment(each.at)}: {each.text} ({each.kind}{', by seatrial' if each.ours else ''})" for each in day.changes
    ]
    return ["\n".join(lines)] if lines else []
