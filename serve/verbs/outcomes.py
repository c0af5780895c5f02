"""Verbs of outcomes: add them, show how they stand, judge the model by them, queue cases to label, export them."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out

from .monitoring import PlanFile
from .requests import requests

if TYPE_CHECKING:
    from ..monitor.outcome_files import Rows
    from ..monitor.outcomes import Conflict, Outcome

app = typer.Typer(
    no_args_is_help=True,
    help="Join what became known of requests later, judge the model by it, and queue cases to label.",
)
Model = Annotated[str, typer.Argument(help="The model, as its plan names it.")]
PlanOption = Annotated[Path | None, typer.Option("--plan", help="The model's monitoring plan (TOML).")]
TrafficOption = Annotated[
    list[Path] | None,
    typer.Option("--traffic", help="A table of requests: .csv, .jsonl or .parquet; may be repeated."),
]
_LISTED = 10


@app.callback()
def group() -> None:
    """Join what became known of requests later, judge the model by it, and queue cases to label."""


@app.command()
def add(
    model: Model,
    file: Annotated[
        Path, typer.Argument(help="Outcomes: .csv, .jsonl, .parquet, or .json as Label Studio exports them.")
    ],
    kind: Annotated[
        str, typer.Option(help="Kind of rows that say none: label, correction, ticket, review, conversion, revenue.")
    ] = "label",
    replace: Annotated[
        bool, typer.Option(help="A value that differs from what stands is the new truth instead of a conflict.")
    ] = False,
    skip: Annotated[bool, typer.Option(help="Leave wrong rows out, instead of refusing the file.")] = False,
    json_: Json = False,
) -> None:
    """Add outcomes by request id: columns request, value, and kind, at, chosen_by, by where there are any.

    The same row twice changes nothing. A file with a wrong row is refused whole, with its place. Exit codes: 0 added,
    1 some rows conflict with what stands and are kept apart, 2 a wrong file.
    """
    from ..monitor import outcome_files, outcome_shelf
    from ..monitor.outcomes import added

    outcome_shelf.shelf_of(model)
    rows = outcome_files.rows_of(file)
    with outcome_shelf.held(model) as shelf:
        known = shelf.outcomes()
        read, wrong = _read(rows, kind, shelf.queued())
        if wrong and not skip:
            raise ConfigError(
                f"{len(wrong)} of {len(rows)} rows are wrong; none was added\n" + "\n".join(wrong[:_LISTED]),
                where=str(file),
                next_step="correct them and add the file again, or leave them out with --skip",
            )
        found = added(known, read, replaces=replace)
        if found.fresh:
            shelf.append(found.fresh)
        fresh = {each.key for each in found.fresh}
        open_ = {(each.offered.key, each.offered.value): each for each in (*shelf.conflicts(), *found.conflicts)}
        shelf.keep_conflicts([each for each in open_.values() if not (replace and each.offered.key in fresh)])
    if json_:
        counts = {"added": len(found.fresh), "same": found.same}
        emit({"model": model, **counts, "conflicts": found.conflicts, "skipped": wrong})
    else:
        out.print(f"{model}: {len(found.fresh)} outcomes added, {found.same} known already")
        _list("skipped: ", wrong)
        _list("conflict: ", _conflicting(found.conflicts))
    if found.conflicts:
        raise typer.Exit(1)


@app.command()
def show(model: Model, plan: PlanOption = None, traffic: TrafficOption = None, json_: Json = False) -> None:
    """Show outcomes by kind and selection, conflicts, and how long outcomes take to come (with --plan and --traffic).

    Exit codes: 0 shown, 1 conflicts are open, 2 wrong plan or table, 5 a damaged record.
    """
    from ..monitor import joining, outcome_shelf
    from ..monitor.on_duckdb_outcomes import MOMENT, matched, moments
    from ..monitor.outcomes import standing

    shelf = outcome_shelf.shelf_of(model)
    outcomes, conflicts = standing(shelf.outcomes()), shelf.conflicts()
    counts = dict[tuple[str, str], int]()
    for each in outcomes:
        counts[each.kind, each.chosen_by] = counts.get((each.kind, each.chosen_by), 0) + 1
    document: dict[str, Any] = {
        "model": model,
        "outcomes": [{"kind": kind, "chosen_by": by, "count": count} for (kind, by), count in counts.items()],
        "conflicts": conflicts,
    }
    if traffic or plan:
        with requests(model, plan, traffic) as (_, said, rows):
            first = {each.request: each.moment for each in sorted(outcomes, key=lambda one: -one.moment)}
            here = joining.joined(matched(rows, said.request, first), said.request, MOMENT, first)
            times = moments(rows)
        taken = [first[name] - at for name, at in zip(here.requests, here.moments, strict=True)]
        now = max([float(times[-1]), *first.values()])
        document |= {
            "requests": len(times),
            "orphans": here.orphans,
            "early": here.early,
            "maturity": joining.maturity(times, taken, here.moments, now),
        }
    if json_:
        emit(document)
    else:
        _show(document)
    if conflicts:
        raise typer.Exit(1)


@app.command()
def judge(
    plan: PlanFile,
    traffic: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Tables with the requests: .csv, .jsonl or .parquet.")
    ],
    released: Annotated[
        str, typer.Option(help="When a version began to serve (ISO 8601): errors soon after advise a rollback.")
    ] = "",
    json_: Json = False,
) -> None:
    """Judge the model by outcomes that were not judged yet: concept drift by segment, distances of groups, KPIs.

    Each outcome is judged once; those whose request is in no table wait. Only random samples count. Without enough
    labels it says how many would tell. Exit codes: 0 enough labels and quiet, 1 an alarm holds, 2 wrong plan or table,
    3 too few labels to tell, 5 a damaged record.
    """
    from . import judging_outcomes

    found = judging_outcomes.judged(plan, traffic, released)
    if json_:
        emit(found)
    else:
        judging_outcomes.show(found)
    if found["alarms"]:
        raise typer.Exit(1)
    if not found["tells"]:
        raise typer.Exit(3)


@app.command()
def queue(
    model: Model,
    number: Annotated[int, typer.Option(min=1, max=100_000, help="Number of cases.")],
    plan: PlanOption = None,
    traffic: TrafficOption = None,
    to: Annotated[
        Path | None, typer.Option(help="Write them here: .csv, .jsonl, .parquet, or .json tasks for Label Studio.")
    ] = None,
    random: Annotated[float, typer.Option(min=0, max=1, help="Share that is drawn at random.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Seed of the draw; 0 draws a fresh one.")] = 0,
    json_: Json = False,
) -> None:
    """Choose cases to label: a random sample, and cases where a few more labels would decide.

    Needs --plan and --traffic. Requests with an outcome, and those that were queued before, are left out. Why each was
    chosen is kept: labels that say no chosen_by take it from here. Exit codes: 0 queued, 2 wrong plan or table, 3 no
    request is left.
    """
    from . import judging_outcomes

    rows = judging_outcomes.queued(model, plan, traffic, number=number, random_part=random, seed=seed)
    if to is not None and rows:
        judging_outcomes.write_cases(to, rows)
    if rows:
        judging_outcomes.keep_queue(model, rows)
    chosen = dict[str, int]()
    for row in rows:
        chosen[row["chosen_by"]] = chosen.get(row["chosen_by"], 0) + 1
    if json_:
        emit({"model": model, "cases": rows, "chosen_by": chosen})
    else:
        out.print(f"{model}: {len(rows)} cases to label" + (f", in {to}" if to is not None else ""))
        for name, count in chosen.items():
            out.print(f"  {count}: {name}")
        if to is None:
            _list("  ", [row["request"] for row in rows])
    if not rows:
        raise typer.Exit(3)


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="The table to write: .csv, .jsonl or .parquet.")],
    plan: PlanOption = None,
    traffic: TrafficOption = None,
    json_: Json = False,
) -> None:
    """Write labels and corrections as a training set, with the selection of each case; with --plan and --traffic also
    the features.

    Exit codes: 0 written, 2 wrong plan, table or name, 3 there is no label.
    """
    import numpy as np

    from ..monitor import joining, outcome_shelf
    from ..monitor.on_duckdb_outcomes import MOMENT, matched, write_table
    from ..monitor.outcomes import truths

    known = truths(outcome_shelf.shelf_of(model).outcomes())
    names: Sequence[str] = tuple(known)
    columns: dict[str, Any] = {}
    if traffic or plan:
        with requests(model, plan, traffic) as (chosen, said, rows):
            first = {name: truth.moment for name, truth in known.items()}
            here = joining.joined(matched(rows, said.request, first), said.request, MOMENT, first)
        names = here.requests
        columns = {name: here.columns[name] for name in chosen.features if name in here.columns}
        columns["time"] = here.moments
    taken = {
        "request": list(names),
        "label": [known[name].value for name in names],
        "chosen_by": [known[name].chosen_by for name in names],
    }
    columns = {name: np.array(values, dtype=object) for name, values in taken.items()} | columns
    if names:
        write_table(to, columns)
    if json_:
        emit({"model": model, "rows": len(names), "file": str(to) if names else None})
    else:
        out.print(f"{model}: {len(names)} labelled requests" + (f" in {to}" if names else "; nothing was written"))
    if not names:
        raise typer.Exit(3)


def _show(document: dict[str, Any]) -> None:
    rows = [(each["kind"], each["chosen_by"], str(each["count"])) for each in document["outcomes"]]
    out.print(table(("kind", "chosen by", "outcomes"), rows, left=("kind", "chosen by"), title=f"{document['model']}"))
    _list("conflict: ", _conflicting(document["conflicts"]))
    if "maturity" in document:
        rows = [(each.age, f"{each.share:.1%}", str(each.requests)) for each in document["maturity"]]
        out.print(table(("came within", "of requests", "that are as old"), rows, left=("came within",)))
        _list("no such request in the tables: ", document["orphans"])
        _list("older than its request: ", document["early"])


def _read(rows: "Rows", kind: str, queued: Mapping[str, str]) -> tuple[list["Outcome"], list[str]]:
    """Return the outcomes of rows, and what is wrong with the others, each with its place."""
    from ..monitor.outcomes import outcome_of

    now = time.time()
    read, wrong = list["Outcome"](), list[str]()
    for place, row in rows:
        try:
            read.append(outcome_of(row, added=now, kind=kind, queued=queued))
        except ValueError as error:
            wrong.append(f"{place}: {error}")
    return read, wrong


def _conflicting(conflicts: "Sequence[Conflict]") -> list[str]:
    return [
        f"{each.offered.request}: {each.offered.kind} {each.offered.value!r}, but {each.stands.value!r} stands since "
        f"{_moment(each.stands.added)}; --replace makes it the truth"
        for each in conflicts
    ]


def _list(lead: str, lines: Sequence[str]) -> None:
    for line in lines[:_LISTED]:
        out.print(led("yellow", lead, line))
    if len(lines) > _LISTED:
        out.print(led("dim", "", f"and {len(lines) - _LISTED} more"))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
