"""The baseline verbs: keep what a run measured for this class of machine, show it, hold a run against it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, echo, emit, led, out
from seatrial.optimize.units import format_change, format_range, format_value
from seatrial.optimize.visible import visible

from ..measurement import Measurement
from ..measuring.machine_class import MachineClass
from ..records import baseline
from ..records.baseline import Baseline, spread
from ..report.kinds import tell

app = typer.Typer(
    no_args_is_help=True,
    help=("Store measured values of a model per machine class, for comparison. A gate never uses them as an arm."),
)
Run = Annotated[Path, typer.Argument(help="A run's folder, for instance .seatrial/runs/gate-...")]
Name = Annotated[str, typer.Option(help="The baseline's name, for instance the branch that it represents.")]


class Side(StrEnum):
    """Arm of a gate's run."""

    BASE = "base"
    CANDIDATE = "candidate"


Arm = Annotated[Side, typer.Option(help="The arm of a gate's run whose values are used.")]


@app.command()
def record(run: Run, name: Name = "main", arm: Arm = Side.CANDIDATE, json_: Json = False) -> None:
    """Store the values of RUN, slot by slot, as a named baseline of the model on RUN's machine class.

    Baselines serve trends, absolute limits and forecasts. A gate always measures its base again, because stored values
    drift.
    """
    model, measured = _measured(run, arm)
    made = baseline.record(machine.home(), name, measured, model=model, run=baseline.digest_of(run))
    if json_:
        emit(made.to_json())
    else:
        out.print(f"{name} of {model}: {len(made.measurements)} metrics on {made.machine}", highlight=False)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Only this model.")] = "",
    limits: Annotated[
        float | None,
        typer.Option("--as-limits", help="Print absolute limits for a budget, with this margin (0.1 = 10 %)."),
    ] = None,
    name: Annotated[str, typer.Option(help="Only baselines of this name.")] = "",
    json_: Json = False,
) -> None:
    """Show the stored baselines: typical values, range and spread between slots, by machine class."""
    found = [each for each in baseline.known(machine.home()) if model in ("", each.model) and name in ("", each.name)]
    newest = list({(each.name, each.model, each.machine): each for each in found}.values())
    if json_:
        emit({"baselines": [each.to_json() for each in newest]})
    elif limits is not None:
        for each in newest:
            title = visible(f"# {each.name} of {each.model}, {each.at}, {each.machine}", one_line=True)
            echo(f"{title}\n{baseline.as_limits(each, limits)}")
    elif not newest:
        out.print("There are no baselines yet: seatrial baseline record RUN", highlight=False)
    for each in newest if not json_ and limits is None else ():
        _print(each)


@app.command()
def compare(run: Run, name: Name = "main", arm: Arm = Side.CANDIDATE, json_: Json = False) -> None:
    """Compare RUN's values with a baseline; the result is informational, not a verdict.

    Refused (exit 2) if the baseline belongs to another machine class.
    """
    model, measured = _measured(run, arm)
    if not measured:
        raise ConfigError("the run holds no values of that arm", where=str(run), next_step="name a completed run")
    stored = baseline.read(machine.home(), model, name, MachineClass.of(measured[0].environment))
    moved = baseline.compare(stored, measured)
    if json_:
        emit(
            {"baseline": name, "model": model, "at": stored.at, "machine": stored.machine.key}
            | {"metrics": {each.metric: {"then": each.then, "now": each.now, "ratio": each.ratio} for each in moved}}
        )
        return
    rows = (
        (
            each.metric,
            format_value(each.then, each.unit),
            format_value(each.now, each.unit),
            format_change(each.ratio) + (" !" if each.outside else ""),
            format_range(each.lowest, each.highest, each.unit),
        )
        for each in moved
    )
    out.print(table(("metric", "then", "now", "change", "values per slot"), rows, left=("metric",)))
    out.print(
        (
            f"{name} of {model} was recorded {stored.at}. This comparison is informational; use seatrial "
            "gate for a decision."
        ),
        highlight=False,
    )


def _measured(run: Path, arm: Side) -> tuple[str, list[Measurement]]:
    told = tell(run)
    if told.measured is None:
        raise ConfigError(
            f"a run of kind {told.kind!r} cannot become a baseline", where=str(run), next_step="name a gate's run"
        )
    return told.measured(arm.value)


def _print(stored: Baseline) -> None:
    out.print(led("bold", stored.name, f" of {stored.model}, {stored.at}, {stored.machine}"))
    rows = []
    for each in stored.measurements:
        noise, unit = spread(stored, each.metric.name), each.metric.unit
        values = sorted(each.values)
        rows.append(
            (
                each.metric.name,
                format_value(values[len(values) // 2], unit),
                format_range(values[0], values[-1], unit),
                "" if noise is None else f"{noise:.1%}",
                str(len(values)),
            )
        )
    out.print(table(("metric", "typical", "values per slot", "spread", "slots"), rows, left=("metric",)))
