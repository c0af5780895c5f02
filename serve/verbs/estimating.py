"""The verb that estimates a model's accuracy without labels, and says what would be needed to be sure."""

from pathlib import Path
from typing import Any

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.terminal import Json, emit, led, out

from .monitoring import Files, PlanFile


def estimate(plan: PlanFile, files: Files, json_: Json = False) -> None:
    """Estimate the accuracy of a model's answers without labels, by the labelled reference that `learn` kept.

    The interval covers covariate and label shift, and widens to "cannot tell" where the reference had no such inputs.
    It assumes that the answer to the same input has not changed: only labels show that. Exit codes: 0 the interval
    tells and enough random labels of these requests agree, 1 they contradict it, 2 wrong plan or table, 3 cannot tell
    or too few labels, 5 a damaged record.
    """
    found = estimated(plan, files)
    if json_:
        emit(found)
    else:
        _show(found)
    if found["contradicted"]:
        raise typer.Exit(1)
    if not (found["tells"] and found["checked_labels"] >= found["labels_needed"]):
        raise typer.Exit(3)


def estimated(plan: Path, files: list[Path]) -> dict[str, Any]:
    """Return the estimate of all rows of the tables, with what random labels of them say."""
    import numpy as np

    from ..monitor import joining, on_duckdb, outcome_shelf
    from ..monitor.answers_at_hand import at_hand, random_truths
    from ..monitor.label_power import labels_needed, share_interval
    from ..monitor.on_duckdb_outcomes import MOMENT, check_request, matched
    from ..monitor.outcomes import truths
    from ..monitor.plan import load_plan
    from ..monitor.shelf import Shelf

    loaded = load_plan(plan)
    shelf = Shelf(folder=home() / "watch" / loaded.model)
    learned, _ = shelf.baseline()
    ready = at_hand(loaded, learned.sketch, shelf.reference())
    known = random_truths(truths(outcome_shelf.shelf_of(loaded.model).outcomes()))
    checked = max((each.moment for each in known.values()), default=None)
    right = labels = 0
    with on_duckdb.opened(loaded, files, answers=True) as rows:
        columns = rows.sample(_MOST)
        if loaded.outcomes is not None and known:
            check_request(rows, loaded.outcomes.request)
            here = joining.joined(
                matched(rows, loaded.outcomes.request, known),
                loaded.outcomes.request,
                MOMENT,
                {name: each.moment for name, each in known.items()},
            )
            labels = len(here.requests)
            if labels:
                truth = [known[name].value for name in here.requests]
                right = int(np.count_nonzero(ready.labelled(here.columns, truth).correct))
    found = ready.estimate(columns, labels=len(known), checked=checked)
    low, high = share_interval(right, labels)
    usual = float(ready.known.correct.mean())
    effect = loaded.outcomes.effect if loaded.outcomes is not None else 0.05
    return {
        "model": loaded.model,
        "rows": rows.rows,
        "estimate": found,
        "tells": found.tells,
        "reference_accuracy": usual,
        "checked_labels": labels,
        "labelled_accuracy": right / labels if labels else None,
        "labelled_interval": (low, high) if labels else None,
        "contradicted": labels > 0 and (high < found.low or low > found.high),
        "effect": effect,
        "labels_needed": labels_needed(usual, effect),
    }


_MOST = 20_000  # rows that are estimated, of more an even sample


def _show(found: dict[str, Any]) -> None:
    import time

    guess = found["estimate"]
    lead = f"{found['model']}: estimated accuracy of {found['rows']} answers without labels"
    if found["tells"]:
        usual = f"{found['reference_accuracy']:.1%} in the reference"
        out.print(f"{lead}: {guess.value:.1%} ({guess.low:.1%} to {guess.high:.1%}), {usual}")
    else:
        out.print(led("yellow", "cannot tell: ", f"{lead} lies between {guess.low:.1%} and {guess.high:.1%}"))
    if guess.unsupported >= 0.01:
        out.print(f"  {guess.unsupported:.0%} of them are such as the reference did not have")
    when = (
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(guess.checked)) if guess.checked is not None else "no time yet"
    )
    out.print(f"  assumes that {guess.assumes}; last checked with {guess.labels} labels at {when}")
    if found["checked_labels"]:
        low, high = found["labelled_interval"]
        out.print(
            f"  {found['checked_labels']} random labels of these requests: {found['labelled_accuracy']:.1%} "
            f"({low:.1%} to {high:.1%})"
        )
    if found["contradicted"]:
        out.print(led("bold red", "the labels contradict it: ", "the answer to the same input may have changed"))
    elif found["checked_labels"] < found["labels_needed"]:
        out.print(
            led(
                "yellow",
                "not checked: ",
                f"{found['labels_needed']} random labels of these requests would show a fall by {found['effect']:.1%}",
            )
        )
