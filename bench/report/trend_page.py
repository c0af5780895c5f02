"""A model's history as sparklines in a terminal and as plots on a page. What is a step, `bench.records.trend` says."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_value

from ..records.history import Point
from ..records.trend import Trend, sparkline, trend
from .page import TEMPLATES

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 60  # points of a sparkline; older ones are in the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric over time with what was found; `unit` is empty for a ratio, `said` tells each point for a reader."""

    metric: str
    unit: str
    at: tuple[str, ...]
    values: tuple[float, ...]
    said: tuple[str, ...]
    trend: Trend

    def format(self, value: float) -> str:
        """A value of the series for people."""
        return format_value(value, self.unit) if self.unit else f"×{value:.3f}"


def series(points: Sequence[Point], *, ratio: bool, only: Collection[str] = ()) -> list[Series]:
    """The history by metric, in the order of first appearance; points without a positive value are left out."""
    found = []
    for metric in dict.fromkeys(point.metric for point in points):
        kept = [
            (point, value)
            for point in points
            if point.metric == metric and (value := point.ratio if ratio else point.candidate) is not None and value > 0
        ]
        if not kept or (only and metric not in only):
            continue
        unit = "" if ratio else kept[0][0].unit
        values = tuple(value for _, value in kept)
        found.append(
            Series(
                metric=metric,
                unit=unit,
                at=tuple(point.at for point, _ in kept),
                values=values,
                said=tuple(_said(point) for point, _ in kept),
                trend=trend(values),
            )
        )
    return found


def sentences(one: Series) -> list[str]:
    """Return the findings of the trend, one sentence each."""
    steps = [
        f"step of {step.ratio - 1:+.1%} from {one.format(step.before)} to {one.format(step.after)} "
        f"with the gate of {one.at[step.index]}"
        for step in one.trend.steps
    ]
    return [*steps, *one.trend.notes]


def show(console: "Console", found: Sequence[Series]) -> None:
    """A sparkline for each metric with a mark below every step, and the sentences."""
    from rich.text import Text

    width = max(len(one.metric) for one in found)
    for one in found:
        shown = one.values[-_WIDEST:]
        first = len(one.values) - len(shown)
        ends = f"{one.format(one.values[0])} → {one.format(one.values[-1])}"
        console.print(Text(f"{one.metric:<{width}}  {sparkline(shown)}  {ends}"))
        marks = ["▲" if any(step.index == first + i for step in one.trend.steps) else " " for i in range(len(shown))]
        if "▲" in marks:
            console.print(Text(" " * (width + 2) + "".join(marks).rstrip(), "red"))
        for sentence in sentences(one):
            console.print(Text(" " * (width + 2) + sentence, "dim"))


def write_html(path: Path, model: str, machine: str, found: Sequence[Series]) -> None:
    """One page with a plot for each metric."""
    write_page(
        path,
        TEMPLATES / "run.html.j2",
        tables=[],
        title=f"{model} over its gates",
        outcome="",
        reasons=[],
        figures=[(one.metric, one.format(one.values[-1])) for one in found],
        sections=[(one.metric, ". ".join(sentences(one)) or "No step and no drift.", _plot(one)) for one in found],
        lines=[
            ("machine", machine),
            ("gates", str(max(len(one.values) for one in found))),
            ("first", found[0].at[0]),
            ("last", found[0].at[-1]),
        ],
    )


_AXES = {"s": (1e3, "ms"), "B": (1 / (1 << 20), "MiB"), "1/s": (1.0, "per second"), "share": (100.0, "%")}


def _plot(one: Series) -> str:
    from .. import on_plotly

    scale, unit = _AXES.get(one.unit, (1.0, one.unit or "candidate over base"))
    drawn = [(at, value * scale, said) for at, value, said in zip(one.at, one.values, one.said, strict=True)]
    steps = [(step.index, step.before * scale, step.after * scale) for step in one.trend.steps]
    return on_plotly.trend(drawn, steps, unit=unit)


def _said(point: Point) -> str:
    change = f", {point.ratio - 1:+.1%} against its base" if point.ratio is not None else ""
    commit = f", commit {point.commit}" if point.commit else ""
    return f"{point.at}: {format_value(point.candidate, point.unit)}{change} ({point.verdict}{commit})"
