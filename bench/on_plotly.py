"""A gate's and a capacity's plots as HTML fragments. Draws what it is given; computes no statistic.

The look of both floors' plots, and the one copy of plotly's own script that a page holds, stand in
`optimize.on_plotly`. Colours are mid-tones that read on light and dark paper; text takes the page's own colour through
``currentColor`` in the page's style sheet.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

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


CapacityRow = tuple[float, float, float | None, float | None, str, str]
DECISION_COLOURS = {"SUSTAIN": "#3a9d5d", "NOT": LIMIT_COLOUR, "OPEN": "#d9a441"}


def capacity_curve(
    probes: Sequence[CapacityRow],
    *,
    fitted: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None,
    objective: tuple[str, float, float],
    rate: float | None,
    interval: tuple[float, float] | None,
    cliff: float | None,
) -> str:
    """Two panels over the rate: the share beyond the objective with its fit, and median and tail latency.

    `probes` are (rate, share, p50, tail, decision, what to say); `fitted` rates and logits; `objective` the name of its
    percentile, the share that it allows beyond, and its seconds.
    """
    percentile, budget, seconds = objective
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    _shares(figure, probes, fitted, budget)
    medians, tails = [(row[0], row[2]) for row in probes], [(row[0], row[3]) for row in probes]
    for name, latencies, colour in (("p50", medians, BASE_COLOUR), (percentile, tails, CANDIDATE_COLOUR)):
        known = [(at, 1e3 * value) for at, value in latencies if value is not None]
        figure.add_scatter(
            x=[each[0] for each in known],
            y=[each[1] for each in known],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 7},
            hovertemplate=name + " at %{x:.4g}/s: %{y:.3g} ms<extra></extra>",
            row=2,
            col=1,
        )
    for row, level in ((1, 100 * budget), (2, 1e3 * seconds)):
        figure.add_hline(y=level, line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dot"}, row=row, col=1)
    if interval is not None:
        figure.add_vrect(x0=interval[0], x1=interval[1], fillcolor=CANDIDATE_COLOUR, opacity=0.18, line_width=0)
    if rate is not None:
        figure.add_vline(x=rate, line={"color": CANDIDATE_COLOUR, "width": 1.5})
    if cliff is not None:
        figure.add_vline(x=cliff, line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dash"})
    figure.update_yaxes(type="log", title="beyond the objective, %", row=1, col=1)
    figure.update_yaxes(type="log", title="latency, ms", row=2, col=1)
    figure.update_xaxes(title="requests per second", row=2, col=1)
    return fragment(figure, 560)


def _shares(
    figure: go.Figure,
    probes: Sequence[CapacityRow],
    fitted: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None,
    budget: float,
) -> None:
    """The upper panel; shares of 0 are drawn at the lower edge of the logarithmic axis."""
    floor = min([budget / 50, *(row[1] for row in probes if row[1] > 0)]) / 2
    for decision, colour in DECISION_COLOURS.items():
        shown = [row for row in probes if row[4] == decision]
        figure.add_scatter(
            x=[row[0] for row in shown],
            y=[100 * max(row[1], floor) for row in shown],
            customdata=[[100 * row[1], row[5]] for row in shown],
            mode="markers",
            name=decision,
            marker={"color": colour, "size": 9, "line": {"width": 1, "color": "white"}},
            hovertemplate="%{x:.4g}/s: %{customdata[0]:.2f} %<br>%{customdata[1]}<extra></extra>",
            row=1,
            col=1,
        )
    if fitted is not None:
        share = 100 * np.maximum(1 / (1 + np.exp(-fitted[1])), floor)
        line = {"color": CANDIDATE_COLOUR, "width": 2}
        figure.add_scatter(
            x=fitted[0].tolist(), y=share.tolist(), mode="lines", name="fit", line=line, hoverinfo="skip", row=1, col=1
        )
