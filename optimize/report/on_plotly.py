"""Plots of a build as HTML fragments, the only importer of plotly on this floor. Draws what it is given.

Fragments carry no library: `library` gives its one copy for the page. Colours are mid-tones that read on light and dark
paper; text takes the page's own colour from its style sheet.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

QUIET, ACCENT, WORSE = "#8a8f98", "#2f7ed8", "#d9534f"
PRECISIONS = {"fp32": QUIET, "int8": ACCENT, "fp16": "#3aa17e", "bf16": "#57b894", "fp8": "#8e6bbf"}
_GRID = "rgba(128,128,128,0.22)"


def library() -> str:
    """The plotly script, to be put into the page once."""
    return str(get_plotlyjs())


def waterfall(labels: Sequence[str], panels: Sequence[tuple[str, Sequence[float | None], str, bool]]) -> str:
    """One panel per figure, one bar per step from the value before to its own.

    `panels` are (title, values by label, d3 number format, larger is better); a step without a value has no bar.
    """
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=[panel[0] for panel in panels], shared_yaxes=True)
    for column, (title, values, spelling, larger) in enumerate(panels, start=1):
        base, width, colour, text = [], [], [], []
        before = None
        for value in values:
            start = value if before is None or value is None else before
            base.append(start or 0.0)
            width.append((value or 0.0) - (start or 0.0) if value is not None else None)
            better = value is not None and before is not None and (value > before) == larger
            colour.append(QUIET if value == before or before is None else ACCENT if better else WORSE)
            text.append(value)
            before = value if value is not None else before
        figure.add_bar(
            y=list(labels),
            x=width,
            base=base,
            orientation="h",
            marker={"color": colour},
            customdata=text,
            hovertemplate=f"%{{y}}: %{{customdata:{spelling}}}<extra>{title}</extra>",
            row=1,
            col=column,
        )
        figure.add_scatter(
            y=list(labels),
            x=list(values),
            mode="markers+text",
            marker={"color": colour, "size": 9},
            text=[_spelt(value, spelling) for value in values],
            textposition="top center",
            hoverinfo="skip",
            row=1,
            col=column,
        )
        known = [value for value in values if value is not None]
        margin = 0.25 * ((max(known) - min(known)) or abs(max(known)) or 1.0)
        figure.update_xaxes(range=[min(known) - margin, max(known) + margin], nticks=4, row=1, col=column)
    figure.update_yaxes(autorange="reversed", range=[len(labels) - 0.4, -0.7])
    figure.update_layout(showlegend=False, bargap=0.8)
    return fragment(figure, 120 + 56 * len(labels))


def pareto(
    names: tuple[str, str], points: Sequence[tuple[float, float, str]], front: Sequence[tuple[float, float, str]]
) -> str:
    """Every candidate that ranks as a dot, the front as a line; points are (x, y, what to say of it)."""
    figure = go.Figure()
    for shown, title, colour, mode in (
        (points, "tried", QUIET, "markers"),
        (sorted(front), "on the front", ACCENT, "lines+markers"),
    ):
        figure.add_scatter(
            x=[point[0] for point in shown],
            y=[point[1] for point in shown],
            customdata=[point[2] for point in shown],
            mode=mode,
            name=title,
            line={"color": colour, "width": 2, "shape": "hv"},
            marker={"size": 10, "color": colour, "line": {"width": 1, "color": "white"}},
            hovertemplate="%{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        )
    figure.update_xaxes(title=names[0])
    figure.update_yaxes(title=names[1])
    return fragment(figure, 360)


def bars(rows: Sequence[tuple[str, float]], title: str, marked: Collection[str] = ()) -> str:
    """One bar per row, the longest first; `marked` rows stand out."""
    ordered = sorted(rows, key=lambda row: -row[1])
    figure = go.Figure()
    figure.add_bar(
        y=[row[0] for row in ordered],
        x=[row[1] for row in ordered],
        orientation="h",
        marker={"color": [ACCENT if row[0] in marked else QUIET for row in ordered]},
        hovertemplate="%{y}: %{x:.4g}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title=title, rangemode="tozero")
    return fragment(figure, 90 + 24 * len(rows))


def shares(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One bar per row, of the shares that add up to it."""
    kinds = sorted({kind for each in rows.values() for kind in each})
    figure = go.Figure()
    for kind in kinds:
        parts = [each.get(kind, 0.0) for each in rows.values()]
        figure.add_bar(
            y=list(rows),
            x=parts,
            name=kind,
            orientation="h",
            marker={"color": PRECISIONS.get(kind, QUIET)},
            text=[f"{kind} {part:.0%}" if part >= 0.06 else "" for part in parts],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate=f"%{{y}}: %{{x:.1%}} in {kind}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of multiply-accumulates", tickformat=".0%", range=[0, 1.01])
    return fragment(figure, 110 + 40 * len(rows))


def walk(probes: Sequence[tuple[int, str, float, float]]) -> str:
    """Error along a graph on a logarithmic scale, with what rounding explains as a line.

    Probes are (place, tensor, error, limit); an error that is infinite stands at the top edge.
    """
    finite = [error for _, _, error, _ in probes if 0 < error < float("inf")] + [limit for *_, limit in probes if limit]
    ceiling, floor = 10 * max(finite, default=1.0), 0.1 * min(finite, default=1e-9)
    figure = go.Figure()
    figure.add_scatter(
        x=[place for place, *_ in probes],
        y=[limit or floor for *_, limit in probes],
        mode="lines",
        name="what rounding explains",
        line={"color": QUIET, "width": 2},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[place for place, *_ in probes],
        y=[min(max(error, floor), ceiling) for _, _, error, _ in probes],
        customdata=[(tensor, f"{error:.2e}") for _, tensor, error, _ in probes],
        mode="markers",
        name="difference",
        marker={"size": 10, "color": [WORSE if not error <= limit else ACCENT for *_, error, limit in probes]},
        hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
    )
    figure.update_xaxes(title="order of execution")
    figure.update_yaxes(title="relative error", type="log", exponentformat="power")
    return fragment(figure, 340)


def _spelt(value: float | None, spelling: str) -> str:
    return "" if value is None else f"{value:{spelling}}"


def fragment(figure: Any, height: int) -> str:
    """A figure in the house's look, `height` pixels high, as HTML for a page that holds `library` once."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "inherit", "size": 13, "color": "#808792"},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        hoverlabel={"namelength": -1},
    )
    axis = {"gridcolor": _GRID, "automargin": True, "fixedrange": True, "title_font_size": 13}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    config = {"displayModeBar": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))
