"""Verbs of the monitor: learn what is normal of a model's traffic, and judge what came since."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out, progress

from .options import DEFAULT_REPOSITORY, Repository

if TYPE_CHECKING:
    from ..monitor.learning import Learned
    from ..monitor.plan import Plan
    from ..monitor.suspects import Diagnosed
    from ..monitor.watching import Look

PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A monitoring plan (TOML), for instance serve/monitors/example.toml.")
]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="[FILE...]",
        default_factory=list,
        help="Tables of traffic with a column of times (.csv, .jsonl, .parquet); default: what record captured.",
    ),
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
    Exit codes: 0 learned, 2 wrong plan or table, 3 learned, but the reference alarms against itself, 5 more than 1 % of
    the captured segments cannot be read.
    """
    from ..monitor import learning, on_duckdb
    from ..monitor.looking import shelf_of
    from ..monitor.plan import load_plan

    chosen = load_plan(plan)
    with on_duckdb.opened(chosen, files, answers=True) as traffic, progress() as report:
        traffic.refuse_lossy()
        learned = learning.learn(chosen, traffic, report)
        reference, without = learning.labelled_reference(chosen, traffic)
    with shelf_of(chosen.model) as shelf:
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
    every: Annotated[
        float | None, typer.Option(min=0.1, max=86_400.0, help="Stay, and look again every so many seconds.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end; so it does without --every, too.")] = False,
    delay: Annotated[
        float, typer.Option(min=0.0, help="With --every: seconds that rows have to be written before they are judged.")
    ] = 60.0,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --every: serve http://127.0.0.1:PORT/metrics; 0: off.")
    ] = 0,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """Judge a model's traffic that came since the last look, against what `learn` learned.

    Give the same growing tables again and again: every interval is judged once. An alarm holds until no new evidence
    came for the plan's `hold`. A folder stands for the tables in it. With --every it is a service until SIGTERM or
    Ctrl-C (exit code 0): it goes on whatever a look runs into, and a kill loses nothing.

    Exit codes: 0 quiet, 1 an alarm holds, 2 wrong plan or table, 3 no traffic where there should be some, or too few
    rows to judge, 5 a damaged record.
    """
    from ..monitor import looking
    from ..monitor.plan import load_plan
    from . import alerting

    chosen = load_plan(plan)
    if every is not None:
        if once or until or json_:
            raise ConfigError(
                "--every looks again and again, up to now",
                where="--every",
                next_step="leave out --once, --until, --json",
            )
        alerting.attend(plan, files, every=every, delay=delay, port=metrics_port)
        return
    if metrics_port:
        raise ConfigError("metrics need a watch that stays", where="--metrics-port", next_step="add --every SECONDS")
    end = alerting.seconds(until, "--until") if until else None
    with looking.shelf_of(chosen.model) as shelf, progress() as report:
        _, look = looking.judge(chosen, shelf, files, report, until=end, where=str(plan))
        looking.keep(shelf, look)
    _show(chosen, look, alerting.explained(chosen, look.watched, repository), json_=json_)
    if look.watched.alarm is not None:
        raise typer.Exit(1)
    if look.watched.silent_since is not None or not look.watched.windows:
        raise typer.Exit(3)


def _show(plan: "Plan", look: "Look", found: "Diagnosed | None", *, json_: bool) -> None:
    from .alerting import show_alarm

    watched, judged = look.watched, look.judged
    alarm = watched.alarm
    if json_:
        emit({"model": plan.model, "watched": watched, "judged": judged, "diagnosed": found})
        return
    until = _moment(watched.until) if watched.until is not None else "nothing"
    out.print(f"{plan.model}: {len(judged)} windows judged now, {watched.windows} in all, until {until}")
    if watched.late:
        out.print(led("yellow", "note: ", f"{watched.late} intervals came after they had been passed over"))
    if watched.silent_since is not None:
        out.print(led("red", "silent ", f"since {_moment(watched.silent_since)}: usual traffic is missing"))
    if alarm is None or found is None:
        out.print(led("green", "quiet ", f"{len(watched.alarms)} alarms in the past"))
        return
    show_alarm(alarm, found)


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
