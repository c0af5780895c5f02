"""Verbs of the monitor: learn what is normal of a model's traffic, and judge what came since."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.locking import locked
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out, progress

if TYPE_CHECKING:
    from ..monitor.alarms import Watched
    from ..monitor.learning import Learned
    from ..monitor.plan import Plan
    from ..monitor.shelf import Shelf
    from ..monitor.watching import Judged

PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A monitoring plan (TOML), for instance serve/monitors/example.toml.")
]
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Tables of traffic with a column of times: .csv, .jsonl or .parquet."),
]
_HORIZONS: Mapping[str, float] = {"an hour": 3600.0, "a day": 86_400.0, "a week": 604_800.0}
_UNITS: Mapping[str, str] = {
    "location": "standard deviations",
    "scale": "of the variance",
    "pair": "of the rank correlation",
}
_SHARE = "of the rows"


def learn(plan: PlanFile, files: Files, json_: Json = False) -> None:
    """Learn what is normal of a model's traffic from quiet weeks of it, and print the smallest changes it will find.

    Four weeks are good; below two the season stays unknown. What `watch` had judged of the model is forgotten.
    Exit codes: 0 learned, 2 wrong plan or table, 3 learned, but the reference alarms against itself.
    """
    from ..monitor import learning, on_duckdb
    from ..monitor.plan import load_plan

    chosen = load_plan(plan)
    with on_duckdb.opened(chosen, files, answers=True) as traffic, progress() as report:
        learned = learning.learn(chosen, traffic, report)
        reference, without = learning.labelled_reference(chosen, traffic)
    with _shelf(chosen) as shelf:
        shelf.keep_baseline(learned, chosen.digest)
        shelf.keep_reference(reference)
    changes = _changes(learned, chosen)
    baseline = learned.baseline
    if json_:
        emit(
            {
                "model": chosen.model,
                "windows": baseline.windows,
                "rows": baseline.rows,
                "start": _moment(baseline.start),
                "end": _moment(baseline.end),
                "seasonal": baseline.seasonal,
                "false_alarms_per_year": chosen.false_alarms_per_year,
                "smallest_changes": changes,
                "replayed": [{"at": _moment(time), "feature": name} for time, name in learned.replayed],
                "doubts": (*learned.doubts, *without),
            }
        )
    else:
        season = "with its season" if baseline.seasonal else "season unknown"
        out.print(
            f"{chosen.model}: {baseline.windows} windows of {baseline.rows:.0f} rows, {_moment(baseline.start)} to "
            f"{_moment(baseline.end)}, {season}; {chosen.false_alarms_per_year:g} false alarms a year allowed"
        )
        head = ("of a feature", "watched", *(f"found in {name}" for name in _HORIZONS), "unit")
        title = "The smallest changes that will be found: median of the features (and the largest); --json has each"
        out.print(table(head, _summary(changes), left=("of a feature", "unit"), title=title))
        for doubt in (*learned.doubts, *without):
            out.print(led("yellow", "note: ", doubt))
        for time, name in learned.replayed:
            out.print(led("yellow", "in the reference itself: ", f"an alarm at {_moment(time)}, {name} first"))
    if learned.replayed:
        raise typer.Exit(3)


def watch(
    plan: PlanFile,
    files: Files,
    until: Annotated[
        str, typer.Option(help="Judge up to this time (ISO 8601, or now): without rows until then it is silence.")
    ] = "",
    json_: Json = False,
) -> None:
    """Judge a model's traffic that came since the last look, against what `learn` learned.

    Give the same growing tables again and again: every interval is judged once. An alarm holds until no new evidence
    came for the plan's `hold`. Exit codes: 0 quiet, 1 an alarm holds, 2 wrong plan or table, 3 no traffic where there
    should be some, or too few rows to judge, 5 a damaged record.
    """
    from ..monitor import learning, on_duckdb, watching
    from ..monitor.plan import load_plan

    chosen = load_plan(plan)
    end = _until(until)
    with _shelf(chosen) as shelf:
        learned, digest = shelf.baseline()
        if digest != chosen.digest:
            raise ConfigError(
                "the plan is not the one that the baseline was learned by",
                where=str(plan),
                next_step=f"learn again: seatrial learn {plan} FILE, or take the changes back",
            )
        kept = shelf.state()
        begin = kept[1].until if kept else None
        with on_duckdb.opened(chosen, files) as traffic, progress() as report:
            intervals = learning.windows(
                chosen, learned.sketch, traffic, report, label="windows", begin=begin, until=end
            )
        look = watching.look(chosen, learned, kept, intervals)
        shelf.keep_state(look.state, look.watched, look.waiting)
    _show(chosen, look.watched, look.judged, json_=json_)
    if look.watched.alarm is not None:
        raise typer.Exit(1)
    if look.watched.silent_since is not None or not look.watched.windows:
        raise typer.Exit(3)


def _show(plan: "Plan", watched: "Watched", judged: "tuple[Judged, ...]", *, json_: bool) -> None:
    alarm = watched.alarm
    if json_:
        emit({"model": plan.model, "watched": watched, "judged": judged})
        return
    until = _moment(watched.until) if watched.until is not None else "nothing"
    out.print(f"{plan.model}: {len(judged)} windows judged now, {watched.windows} in all, until {until}")
    if watched.late:
        out.print(led("yellow", "note: ", f"{watched.late} intervals came after they had been passed over"))
    if watched.silent_since is not None:
        out.print(led("red", "silent ", f"since {_moment(watched.silent_since)}: usual traffic is missing"))
    if alarm is None:
        out.print(led("green", "quiet ", f"{len(watched.alarms)} alarms in the past"))
        return
    out.print(
        led("bold red", "alarm ", f"since {_moment(alarm.began)}, last evidence {_moment(alarm.renewed)}"),
    )
    cause = alarm.cause
    out.print(f"  features: {', '.join(cause.features[:8]) or 'none'}")
    for reason in cause.reasons:
        out.print(f"  {reason}")
    advice = {
        "patch": "this looks like the pipeline that feeds the model: find what changed there, and patch it",
        "label": "the inputs moved: label a random sample to learn whether the model still holds",
    }
    out.print(f"  advice: {advice[cause.advice]}")


@contextmanager
def _shelf(plan: "Plan") -> "Iterator[Shelf]":
    """Hold the folder of the model's monitor for the length of a block."""
    from ..monitor.shelf import Shelf

    folder = home() / "watch" / plan.model
    busy = MachineError(
        "another process watches this model", where=str(folder), next_step="wait for it to end, then retry"
    )
    with locked(folder.with_name(f"{plan.model}.lock"), seconds=10.0, busy=busy):
        yield Shelf(folder=folder)


def _changes(learned: "Learned", plan: "Plan") -> list[dict[str, Any]]:
    """Return the smallest changes found within each horizon, single quantities first; None where none is found."""
    from ..monitor.power import smallest_changes

    counts = {name: max(1, round(seconds / plan.interval)) for name, seconds in _HORIZONS.items()}
    found = smallest_changes(learned.baseline, sorted(set(counts.values())))
    rows = []
    for at, (quantity, weight) in enumerate(zip(learned.baseline.quantities, learned.baseline.weight, strict=True)):
        if weight > 0:
            sizes = {name: float(found[count][at]) for name, count in counts.items()}
            rows.append(
                {"quantity": str(quantity), "what": quantity.what}
                | {name: size if size < float("inf") else None for name, size in sizes.items()}
            )
    return rows


def _summary(changes: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row for each kind of quantity: how many, and the median and largest of the smallest changes found."""
    rows = []
    for what in dict.fromkeys(each["what"] for each in changes):
        mine = [each for each in changes if each["what"] == what]
        cells = []
        for name in _HORIZONS:
            sizes = sorted(float("inf") if each[name] is None else each[name] for each in mine)
            cells.append(f"{_change(sizes[len(sizes) // 2])} ({_change(sizes[-1])})")
        rows.append((what, str(len(mine)), *cells, _UNITS.get(what, _SHARE)))
    return rows


def _change(size: float) -> str:
    return "never" if size == float("inf") else f"{size:.2g}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _until(text: str) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time", where="--until", next_step="write it as 2026-03-02T10:00:00+00:00, or now"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
