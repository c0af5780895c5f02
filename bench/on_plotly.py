"""A gate's plots as HTML fragments. Draws what it is given; computes no statistic.

The look of both floors' plots, and the one copy of plotly's own script that a page holds, stand in
`optimize.on_plotly`. Colours are mid-tones that read on light and dark paper; text takes the page's own colour through
``currentColor`` in the page's style sheet.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from optimize.on_plotly import fragment

BASE_COLOUR, CANDIDATE_COLOUR, LIMIT_COLOUR = "#8a8f98", "#2f7ed8", "#d9534f"
_POINTS = 400  # of a distribution drawn; the tail is kept whole


def latency_cdf(base: npt.NDArray[np.float64], candidate: npt.NDArray[np.float64]) -> str:
    """Both arms' latency distributions (seconds in, milliseconds drawn), the tail stretched so that p99 is visible."""
    figure = go.Figure()
    for name, values, colour in (("base", base, BASE_COLOUR), ("candidate", candidate, CANDIDATE_COLOUR)):
        x, y = thinned_tail(values)
        label = [f"p{100 * (1 - 10**-each):.4g}" for each in y]
        figure.add_scatter(
            x=(x * 1e3).tolist(),
            y=y.tolist(),
            customdata=label,
            name=name,
            mode="lines",
            line={"color": colour, "width": 2.5},
            hovertemplate="%{customdata}: %{x:.3g} ms<extra>" + name + "</extra>",
        )
    ticks = {0: "0", 1: "90 %", 2: "99 %", 3: "99.9 %", -np.log10(0.5): "50 %"}
    figure.update_yaxes(tickvals=list(ticks), ticktext=list(ticks.values()), title="requests answered within")
    shown = log_ticks(1e3 * min(base.min(), candidate.min()), 1e3 * max(base.max(), candidate.max()))
    figure.update_xaxes(title="latency from the intended send, ms", type="log")
    figure.update_xaxes(tickvals=shown, ticktext=[f"{each:g}" for each in shown])
    return fragment(figure, 330)


def thinned_tail(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At most some hundred points of the distribution, as values and ``-log10(1 - share)``, to stretch the tail."""
    ordered = np.sort(values)
    share = (np.arange(ordered.size) + 0.5) / ordered.size
    depth = -np.log10(1 - share)
    wanted = np.searchsorted(depth, np.linspace(0, depth[-1], min(_POINTS, ordered.size)))
    keep = np.unique(np.minimum(wanted, ordered.size - 1))
    return ordered[keep], depth[keep]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive ends: finer steps where the ends lie close together."""
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5) if high < 1000 * low else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [each for power in powers for step in steps if low <= (each := float(f"{step}e{power}")) <= high]


def pair_ratios(rows: Sequence[tuple[str, Sequence[float], tuple[float, float] | None, float | None]]) -> str:
    """One row per metric: every pair's candidate/base ratio, the interval as a bar, the bound as a mark.

    `rows` are (name, ratios, interval, bound); ratios are drawn as percent change.
    """
    figure = go.Figure()
    for index, (name, ratios, interval, bound) in enumerate(rows):
        if interval is not None:
            figure.add_scatter(
                x=[100 * (end - 1) for end in interval],
                y=[index, index],
                mode="lines",
                line={"color": CANDIDATE_COLOUR, "width": 9},
                opacity=0.35,
                hovertemplate=f"{name}, interval end: %{{x:+.1f}} %<extra></extra>",
                showlegend=index == 0,
                name="interval",
            )
        figure.add_scatter(
            x=[100 * (ratio - 1) for ratio in ratios],
            y=[index] * len(ratios),
            mode="markers",
            marker={"color": CANDIDATE_COLOUR, "size": 8, "line": {"width": 1, "color": "white"}},
            customdata=list(range(1, len(ratios) + 1)),
            hovertemplate=f"{name}, pair %{{customdata}}: %{{x:+.1f}} %<extra></extra>",
            showlegend=index == 0,
            name="one pair",
        )
        if bound is not None:
            figure.add_scatter(
                x=[100 * (bound - 1)],
                y=[index],
                mode="markers",
                marker={"size": 22, "symbol": "line-ns", "line": {"width": 3, "color": LIMIT_COLOUR}},
                hovertemplate=f"{name}, allowed: %{{x:+.1f}} %<extra></extra>",
                showlegend=index == 0,
                name="allowed",
            )
    names = [row[0] for row in rows]
    middle = list(range(len(names)))
    figure.update_yaxes(tickvals=middle, ticktext=names, range=[len(names) - 0.4, -0.6], showgrid=False, zeroline=False)
    figure.update_xaxes(title="candidate against base, %", zeroline=True, zerolinecolor="#8a8f98", zerolinewidth=1.5)
    return fragment(figure, 110 + 46 * len(rows))
