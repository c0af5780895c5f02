"""The work of the verbs of outcomes that need requests and the learned reference: judge, queue, write cases."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.plain import write_atomically
from seatrial.optimize.terminal import led, out

from ..monitor import concept, joining, judging, kpi, on_duckdb, outcome_shelf
from ..monitor.answering import said
from ..monitor.answers_at_hand import AtHand, at_hand, evidence_by_segment, random_truths
from ..monitor.diagnosis import Cause
from ..monitor.label_power import detectable, labels_needed, share_interval
from ..monitor.labelling import chosen
from ..monitor.on_duckdb_outcomes import MOMENT, check_request, matched, moments, unmatched, write_table
from ..monitor.outcomes import Outcome, Truth, standing, truths
from ..monitor.plan import Plan, load_plan
from ..monitor.quantities import Columns, Floats
from ..monitor.segments import Masks
from ..monitor.shelf import Shelf
from .requests import outcomes_of, requests

_ADVICE: Mapping[str, str] = {
    "rollback": "roll back: the errors began with a version that began to serve",
    "retrain": "retrain: the model got worse, and no older version is known to be better",
    "patch": "patch what feeds the model",
    "wait": "wait: nothing shows harm",
    "label": "label a random sample",
    "unknown": "unknown: look into it, the evidence names no cause",
}
_OTHERS = 2000  # rows without labels that a cause is named with


def judged(plan: Path, traffic: Sequence[Path], released: str) -> dict[str, Any]:
    """Judge outcomes that were not judged yet, keep how far that went, and return what was found."""
    loaded = load_plan(plan)
    asked = outcomes_of(loaded, plan)
    began = _time(released)
    ready = _ready(loaded)
    with outcome_shelf.held(loaded.model) as shelf, on_duckdb.opened(loaded, traffic, answers=True) as rows:
        check_request(rows, asked.request)
        outcomes = shelf.outcomes()
        kept = _kept(shelf.folder, loaded, ready)
        times = moments(rows)
        document: dict[str, Any] = {"model": loaded.model, "orphans": (), "early": ()}
        if ready is not None:
            kept, labels = _answers(ready, kept, outcomes, rows, began)
            document |= labels
        kept, notes = _business(loaded, kept, outcomes, rows, times)
        kept.write(shelf.folder / "judged.json")
    accuracy = ready.expected.accuracy if ready is not None else None
    needed = labels_needed(accuracy, asked.effect) if accuracy is not None else 0
    count = int(document.get("labels", 0))
    alarms = [each for watched in (kept.answers, kept.business) if (each := watched.alarm) is not None]
    return document | {
        "judged": kept.answers.rows,
        "alarms": alarms,
        "past": len(kept.answers.alarms) + len(kept.business.alarms) - len(alarms),
        "reference_accuracy": accuracy,
        "effect": asked.effect,
        "labels_needed": needed,
        "detectable": detectable(accuracy, count) if accuracy is not None and count else None,
        "tells": count >= needed and (ready is not None or bool(kept.kpi)),
        "figures": [
            {"name": each.name, "until": each.until, "windows": each.windows, "evidence": each.evidence}
            for each in kept.kpi
        ],
        "notes": notes,
    }


def show(found: Mapping[str, Any]) -> None:
    """Print what was found."""
    out.print(f"{found['model']}: {found['judged']} random outcomes judged in all, {found['past']} alarms in the past")
    if found.get("labels"):
        low, high = found["accuracy_interval"]
        out.print(f"  accuracy of {found['labels']} random labels: {found['accuracy']:.1%} ({low:.1%} to {high:.1%})")
    for alarm in found["alarms"]:
        cause = alarm.cause
        out.print(led("bold red", "alarm ", f"since {_moment(alarm.began)}: {cause.kind}, {', '.join(cause.features)}"))
        for reason in cause.reasons:
            out.print(f"  {reason}")
        for reason in cause.against:
            out.print(f"  against it: {reason}")
        out.print(f"  advice: {_ADVICE[cause.advice]}")
    if not found["tells"] and found["reference_accuracy"] is not None:
        text = (
            f"{found['labels_needed']} random labels would show a fall of the accuracy by {found['effect']:.1%}; "
            f"these tables have {found.get('labels', 0)}"
        )
        out.print(led("yellow", "cannot tell whether answers are still right: ", text))
        out.print(f"  next: seatrial outcomes queue {found['model']} --number {found['labels_needed']}")
    elif found["tells"] and not found["alarms"]:
        out.print(led("green", "quiet ", "outcomes are as expected"))
    for lead, names in (
        ("no such request in the tables", found["orphans"]),
        ("older than its request", found["early"]),
    ):
        if names:
            out.print(led("yellow", f"{lead}: ", f"{len(names)} outcomes wait, {', '.join(names[:5])}"))
    for note in found["notes"]:
        out.print(led("yellow", "note: ", note))


def queued(
    model: str, plan: Path | None, traffic: Sequence[Path] | None, *, number: int, random_part: float, seed: int
) -> list[dict[str, Any]]:
    """Choose cases among requests without an outcome that were not handed out before."""
    shelf = outcome_shelf.shelf_of(model)
    known = {each.request for each in shelf.outcomes()} | set(shelf.queued())
    with requests(model, plan, traffic) as (loaded, asked, rows):
        columns = unmatched(rows, asked.request, known)
    names = [str(each) for each in columns[asked.request]]
    if not names:
        return []
    try:
        ready = _ready(loaded)
    except ConfigError:
        ready = None  # nothing learned that could say which cases decide: all are random
    suspects: Mapping[str, tuple[float, Masks]] = {}
    chance: Floats | None = None
    if ready is not None:
        chance = ready.chance(columns)
        kept = _kept(shelf.folder, loaded, ready)
        drifts = concept.drifting(ready.expected, kept.state(ready.expected))
        suspects = evidence_by_segment([each for each in drifts if each.part > 1.0], columns)
    draw = np.random.default_rng(seed or None)
    cases = chosen(number, len(names), draw, random_part=random_part, suspects=suspects, chance=chance)
    shown = [name for name in loaded.features if name in columns]
    return [
        {"request": names[case.place], "chosen_by": case.chosen_by, "time": float(columns[MOMENT][case.place])}
        | {name: _cell(columns[name][case.place]) for name in shown}
        for case in cases
    ]


def keep_queue(model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep why each case was chosen."""
    with outcome_shelf.held(model) as shelf:
        shelf.keep_queued({row["request"]: row["chosen_by"] for row in rows})


def write_cases(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write cases as a table, or as tasks of Label Studio.

    Raises:
        ConfigError: another ending.
        MachineError: the system refused.
    """
    if path.suffix.lower() != ".json":
        write_table(path, {name: np.array([row[name] for row in rows]) for name in rows[0]})
        return
    try:
        write_atomically(path, json.dumps([{"data": dict(row)} for row in rows], indent=1).encode())
    except OSError as error:
        raise MachineError(
            f"the cases cannot be written: {error.strerror or error}", where=str(path), next_step="check the folder"
        ) from error


def _ready(plan: Plan) -> AtHand | None:
    """Return the reference that answers are judged by; None where the plan does not say what the model answered."""
    if plan.estimate is None:
        return None
    shelf = Shelf(folder=home() / "watch" / plan.model)
    learned, _ = shelf.baseline()
    return at_hand(plan, learned.sketch, shelf.reference())


def _kept(folder: Path, plan: Plan, ready: AtHand | None) -> judging.Judgement:
    """Return how far outcomes were judged; from the first on where segments or figures are others than then."""
    segments = tuple(map(str, ready.segments)) if ready is not None else ()
    here = f"{said(plan)} {plan.kpi!r}"
    found = judging.Judgement.find(folder / "judged.json")
    if found is None or found.said != here or found.segments != segments:
        return judging.Judgement(said=here, segments=segments)
    return found


def _answers(
    ready: AtHand, kept: judging.Judgement, outcomes: Sequence[Outcome], rows: on_duckdb.Traffic, began: float | None
) -> tuple[judging.Judgement, dict[str, Any]]:
    """Judge the labels that were not judged yet; return also what all random labels of the tables say."""
    asked = outcomes_of(ready.plan, Path(ready.plan.model))
    known = random_truths(truths(outcomes))
    here = joining.joined(
        matched(rows, asked.request, known), asked.request, MOMENT, {name: each.moment for name, each in known.items()}
    )
    new = judging.unjudged(outcomes, kept.taken, kept.waiting)
    values = [known[name].value for name in here.requests]
    if here.requests:
        places = np.flatnonzero([name in new for name in here.requests])
        some = {name: column[places] for name, column in here.columns.items()}

        def explain(drifts: tuple[concept.Drifting, ...], end: float) -> Cause:
            before = here.moments < end
            columns = {name: column[before] for name, column in here.columns.items()}
            labels = [value for value, is_before in zip(values, before, strict=True) if is_before]
            others = _others(ready.plan, rows, known, float(here.moments[before][-500:].min()), end)
            cause, _ = ready.cause(columns, here.moments[before], labels, others, released=began)
            features = tuple(dict.fromkeys(str(each.segment) for each in drifts))
            reasons = (*(str(each) for each in drifts[:3]), *cause.reasons)
            return Cause(
                kind=cause.kind, advice=cause.advice, features=features, reasons=reasons[:5], against=cause.against
            )

        if len(places):
            judged_rows = ready.rows(some, here.moments[places], [values[place] for place in places])
            kept = judging.judge_answers(ready.plan, ready.expected, kept, judged_rows, explain)
    everything = replace(kept, taken=len(outcomes), waiting=here.orphans)
    count = len(here.requests)
    document: dict[str, Any] = {"labels": count, "orphans": here.orphans, "early": here.early}
    if count:
        right = int(ready.labelled(here.columns, values).correct.sum())
        low, high = share_interval(right, count)
        document |= {"accuracy": right / count, "accuracy_interval": (low, high)}
    return everything, document


def _others(plan: Plan, rows: on_duckdb.Traffic, known: Mapping[str, Truth], start: float, end: float) -> Columns:
    """Return rows of that time without labels, at most some thousand."""
    found = rows.between(start, end)
    count = len(next(iter(found.values())))
    names = outcomes_of(plan, Path(plan.model)).request
    left = np.flatnonzero([str(each) not in known for each in found[names]]) if count else np.zeros(0, np.int64)
    if not len(left):
        return {}
    places = left[np.linspace(0, len(left) - 1, min(_OTHERS, len(left))).astype(np.int64)]
    return {name: column[places] for name, column in found.items()}


def _business(
    plan: Plan, kept: judging.Judgement, outcomes: Sequence[Outcome], rows: on_duckdb.Traffic, times: Floats
) -> tuple[judging.Judgement, list[str]]:
    """Judge business figures whose outcomes have had time to come; learn the usual course of those that are new."""
    asked, notes = outcomes_of(plan, Path(plan.model)), list[str]()
    states = {each.name: each for each in kept.kpi}
    windows = {}
    until = float(times[-1]) - asked.delay
    for each in plan.kpi:
        taken = [one for one in standing(outcomes) if one.kind == each.outcome]
        when, values = _amounts(rows, asked.request, asked.delay, taken)
        if each.name not in states:
            end = float(times[0]) + plan.reference
            try:
                if until < end:
                    raise ValueError(f"{max(until - times[0], 0) / 86_400:.1f} of {plan.reference / 86_400:.0f} days")
                quiet = kpi.windows_of(plan, each, times, when, values, start=float(times[0]), until=end)
                states[each.name] = kpi.KpiState(
                    name=each.name, baseline=kpi.learn_kpi(plan, each, quiet), until=quiet[-1].end
                )
            except ValueError as error:
                notes.append(f"{each.name}: its usual course is not known yet: {error}")
                continue
        windows[each.name] = kpi.windows_of(plan, each, times, when, values, start=states[each.name].until, until=until)
    before = replace(kept, kpi=tuple(states.values()))
    if notes:  # one that is not known yet carries no evidence
        plan = replace(plan, kpi=tuple(each for each in plan.kpi if each.name in states))
    rate = len(times) / max((float(times[-1]) - float(times[0])) / 86_400, 1e-9)
    return (judging.judge_business(plan, before, windows, rate) if windows else before), notes


def _amounts(rows: on_duckdb.Traffic, request: str, delay: float, taken: Sequence[Outcome]) -> tuple[Floats, Floats]:
    """Return the times of requests with an outcome that came within the delay, and what it was."""
    found = matched(rows, request, {each.request for each in taken})
    at = {str(name): float(moment) for name, moment in zip(found[request], found[MOMENT], strict=True)}
    inside = [each for each in taken if each.request in at and 0 <= each.moment - at[each.request] <= delay]
    return np.array([at[each.request] for each in inside]), np.array([each.number for each in inside])


def _cell(value: Any) -> Any:
    """Return a cell as JSON has it."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not np.isfinite(plain) else plain


def _time(text: str) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time", where="--released", next_step="write it as 2026-03-02T10:00:00+00:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
