"""Plots of an assessment as HTML fragments, in the house's look (`optimize.report`). Draws what it is given."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from seatrial.optimize.report.on_plotly import fragment

from ..on_plotly import BASE_COLOUR, CANDIDATE_COLOUR

_COLOURS = {"base": BASE_COLOUR, "candidate": CANDIDATE_COLOUR}
_ACROSS = 4  # panels in a row


def reliability(curves: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> str:
    """Confidence (x) against the share right (y) for each arm, beside the diagonal."""
    figure = go.Figure()
    low = min(float(min(x.min(), y.min())) for x, y in curves.values())
    figure.add_scatter(
        x=[low, 1], y=[low, 1], mode="lines", line={"color": BASE_COLOUR, "dash": "dot"}, name="perfectly calibrated"
    )
    for name, (x, y) in curves.items():
        figure.add_scatter(
            x=x.tolist(),
            y=y.tolist(),
            mode="lines+markers",
            name=name,
            line={"color": _COLOURS[name], "width": 2.5},
            hovertemplate=f"{name}: confidence %{{x:.1%}}, accuracy %{{y:.1%}}<extra></extra>",
        )
    figure.update_xaxes(title="mean confidence", tickformat=".0%")
    figure.update_yaxes(title="accuracy", tickformat=".0%")
    return fragment(figure, 360)


def severities(panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]]) -> str:
    """One panel per corruption: mean score by severity for each arm."""
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = make_subplots(
        rows=down, cols=across, subplot_titles=list(panels), shared_yaxes="all", vertical_spacing=0.3 / down
    )
    for index, curves in enumerate(panels.values()):
        for name, (x, y) in curves.items():
            figure.add_scatter(
                x=list(x),
                y=list(y),
                mode="lines+markers",
                name=name,
                showlegend=False,  # it would stand on the panels' titles; the page says which colour is whose
                line={"color": _COLOURS[name], "width": 2},
                hovertemplate=f"{name}, severity %{{x}}: %{{y:.3f}}<extra></extra>",
                row=index // across + 1,
                col=index % across + 1,
            )
    figure.update_xaxes(dtick=1)
    return fragment(figure, 60 + 220 * down)


def groups(rows: Sequence[tuple[str, float | None, float]]) -> str:
    """One row per group: the rate in the base and in the candidate, joined by a line."""
    figure = go.Figure()
    names = [row[0] for row in rows]
    for name, base, candidate in rows:
        if base is not None:
            figure.add_scatter(
                x=[base, candidate],
                y=[name, name],
                mode="lines",
                line={"color": BASE_COLOUR, "width": 3},
                opacity=0.5,
                hoverinfo="skip",
                showlegend=False,
            )
    for arm, at in (("base", 1), ("candidate", 2)):
        values = [row[at] for row in rows]
        if any(value is not None for value in values):
            figure.add_scatter(
                x=values,
                y=names,
                mode="markers",
                name=arm,
                marker={"size": 11, "color": _COLOURS[arm]},
                hovertemplate=f"%{{y}}, {arm}: %{{x:.3f}}<extra></extra>",
            )
    known = [value for row in rows for value in row[1:] if value is not None]
    room = 0.05 * (max(known) - min(known)) or 0.05
    figure.update_xaxes(range=[min(known) - room, max(known) + room])
    figure.update_yaxes(autorange="reversed", type="category")
    return fragment(figure, 100 + 26 * len(rows))
