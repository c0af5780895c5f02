"""The trend verb: a model's gates over time, with steps and drift."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.errors import MissingError
from seatrial.optimize.terminal import Json, emit, out

from ..gating import gate
from ..measuring.machine_class import MachineClass
from ..records import baseline, history
from ..report import trend_page
from ..report.trend_page import Series


class Of(StrEnum):
    """Value of a gate that is followed over time."""

    VALUE = "value"
    RATIO = "ratio"


def trend(
    model: Annotated[
        str, typer.Argument(help="The candidate's name as recorded by the gates; default: list all.")
    ] = "",
    metric: Annotated[list[str] | None, typer.Option(help="Only this metric; may be given several times.")] = None,
    of: Annotated[Of, typer.Option(help="Follow the candidate's value, or its ratio to the base.")] = Of.VALUE,
    add: Annotated[
        list[Path] | None, typer.Option(help="Append this gate's run first; a recorded run is not added twice.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    json_: Json = False,
) -> None:
    """Show a model's metrics over its gates on this machine class, with steps and drift.

    A step needs five gates on either side. It is informational and never blocks; a single spike is not a step.
    """
    here = MachineClass.of(machine.environment().to_json())
    added = sum(len(_append(folder)) for folder in add or ())
    if not model:
        known = history.models(machine.home(), here)
        emit({"models": known, "added": added}) if json_ else out.print(
            f"names with a history on {here}: {', '.join(known) or 'none'}", highlight=False
        )
        return
    points = history.points(machine.home(), model, here)
    found = trend_page.series(points, ratio=of is Of.RATIO, only=metric or ())
    if not found:
        known_models = ", ".join(history.models(machine.home(), here)) or "none"
        raise MissingError(
            f"there is no history of {model} on {here}",
            where=str(history.path_of(machine.home(), here, model)),
            next_step=f"add one with seatrial trend --add RUN after a gate; known: {known_models}",
        )
    if html is not None:
        trend_page.write_html(html, model, str(here), found)
    if json_:
        emit({"model": model, "machine": here.key, "added": added, "series": [_json(each) for each in found]})
        return
    trend_page.show(out, found)
    out.print(f"{len({point.run for point in points})} gates on {here}", highlight=False)
    if html is not None:
        out.print(f"page: {html}", soft_wrap=True, highlight=False)


def _append(folder: Path) -> tuple[object, ...]:
    gate.rejudge(folder)
    run, verdict = gate.read_gate(folder)
    return history.record(machine.home(), run, verdict, baseline.digest_of(folder))


def _json(series: Series) -> dict[str, object]:
    return {
        "metric": series.metric,
        "unit": series.unit,
        "values": [{"at": at, "value": value} for at, value in zip(series.at, series.values, strict=True)],
        "trend": asdict(series.trend),
    }
