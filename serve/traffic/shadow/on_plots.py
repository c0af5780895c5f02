"""Plots of a shadow comparison as HTML fragments, in the house's look. Draws what it is given."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from seatrial.bench.on_plotly import CANDIDATE_COLOUR, LIMIT_COLOUR, fragment

COLOURS = (CANDIDATE_COLOUR, "#3aa17e", "#8e6bbf", "#c98a2b")
_BAND = 0.18
_BINS = 40
_FEW = 6  # requests, for which a tick each


def courses(outputs: Sequence[tuple[str, Sequence[tuple[int, float, float, float]], float | None]]) -> str:
    """Per output the share answered otherwise, with its bounds, over the requests compared so far, and what is allowed.

    Both axes are logarithmic, for a limit of a thousandth is as worth seeing as the half with which all begins; a share
    of zero lies on the lower edge.
    """
    floor = min(point[3] for _, points, _ in outputs for point in points)
    floor = min([floor, *(limit for _, _, limit in outputs if limit is not None)]) / 10
    figure = go.Figure()
    for number, (name, points, limit) in enumerate(outputs):
        colour = COLOURS[number % len(COLOURS)]
        at, share, low, high = (list(each) for each in zip(*points, strict=True))
        figure.add_scatter(
            x=at + at[::-1],
            y=high + [max(each, floor) for each in low[::-1]],
            fill="toself",
            fillcolor=colour,
            opacity=_BAND,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=at,
            y=[max(each, floor) for each in share],
            mode="lines",
            name=name,
            line={"color": colour, "width": 2.5},
            customdata=list(zip(share, low, high, strict=True)),
            hovertemplate="%{x} requests: %{customdata[0]:.3%}, %{customdata[1]:.3%} to %{customdata[2]:.3%}"
            f"<extra>{name}</extra>",
            showlegend=len(outputs) > 1,
        )
        if limit is not None:
            figure.add_hline(y=limit, line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dot"})
    figure.update_xaxes(type="log", title="requests compared", dtick="D2")
    figure.update_yaxes(type="log", title="answered differently", tickformat="~%", dtick=1, range=[np.log10(floor), 0])
    return fragment(figure, 380)


def errors(outputs: Mapping[str, Sequence[float]]) -> str:
    """Per output how often which relative error came, on a logarithmic axis; those of zero are left out."""
    figure = go.Figure()
    logs = {name: np.log10(values) for name, values in outputs.items() if len(values)}
    low, high = min(float(each.min()) for each in logs.values()), max(float(each.max()) for each in logs.values())
    edges = np.linspace(low, max(high, low + 1e-3), _BINS + 1)
    for number, (name, values) in enumerate(logs.items()):
        count, _ = np.histogram(values, edges)
        figure.add_bar(
            x=(10 ** ((edges[1:] + edges[:-1]) / 2)).tolist(),
            y=count.tolist(),
            width=np.diff(10**edges).tolist(),
            name=name,
            marker={"color": COLOURS[number % len(COLOURS)]},
            opacity=0.8,
            hovertemplate="relative error about %{x:.2g}: %{y} requests<extra>" + name + "</extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.02)
    figure.update_xaxes(
        type="log", title="largest error over the largest value of the stable answer", exponentformat="power"
    )
    few = max(int(np.histogram(values, edges)[0].max()) for values in logs.values()) < _FEW
    figure.update_yaxes(title="requests", rangemode="tozero", **({"dtick": 1} if few else {}))
    return fragment(figure, 300)
