"""A gate's and a capacity's plots as HTML fragments. Draws what it is given; computes no statistic.

The look of both floors' plots, and the one copy of plotly's own script that a page holds, stand in
`optimize.report.on_plotly`. Colours are mid-tones that read on light and dark paper; text takes the page's own colour
through ``currentColor`` in the page's style sheet.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from seatrial.optimize.report import on_plotly as house

BASE_COLOUR, CANDIDATE_COLOUR, LIMIT_COLOUR = "#8a8f98", "#2f7ed8", "#d9534f"
Array = npt.NDArray[np.float64]
WORSE, BETTER = LIMIT_COLOUR, "#3a9d5d"
_ZERO = "rgba(128,128,128,0.4)"
_MOMENTS = 2000  # of a run over time
_POINTS = 400  # of a distribution drawn; the tail is kept whole


def fragment(figure: Any, height: int) -> str:
    """A figure in the house's look; zero is a line of the grid, which reads on light and dark paper."""
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(zerolinecolor=_ZERO, zerolinewidth=1)
    return house.fragment(figure, height)


def latency_cdf(base: Array, candidate: Array) -> str:
    """Both arms' latency distributions (seconds in, milliseconds drawn), the tail stretched so that p99 is visible."""
    return _distributions([("base", base, BASE_COLOUR), ("candidate", candidate, CANDIDATE_COLOUR)])


def latency_curve(values: Array) -> str:
    """One run's latency distribution, [requests] in seconds, drawn as `latency_cdf` draws two."""
    return _distributions([("latency", values, CANDIDATE_COLOUR)])


def _distributions(arms: Sequence[tuple[str, Array, str]]) -> str:
    """Return the figure of the arms: name, latencies in seconds [requests], and colour of each."""
    figure = go.Figure()
    for name, values, colour in arms:
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
    shown = log_ticks(1e3 * min(arm[1].min() for arm in arms), 1e3 * max(arm[1].max() for arm in arms))
    figure.update_xaxes(title="latency from the intended send, ms", type="log")
    figure.update_xaxes(tickvals=shown, ticktext=[f"{each:g}" for each in shown])
    return fragment(figure, 330)


def latency_over_time(at: Array, latency: Array) -> str:
    """Latency by the time a request was due (seconds in), the slowest of each moment where there are many."""
    order = np.argsort(at, kind="stable")
    parts = np.array_split(order, min(_MOMENTS, order.size))
    kept = np.array([part[np.argmax(latency[part])] for part in parts if part.size])
    figure = go.Figure()
    figure.add_scattergl(
        x=at[kept].tolist(),
        y=(1e3 * latency[kept]).tolist(),
        mode="markers",
        marker={"color": CANDIDATE_COLOUR, "size": 4},
        hovertemplate="due at %{x:.2f} s: %{y:.3g} ms<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title="seconds into the run")
    figure.update_yaxes(title="latency, ms", rangemode="tozero")
    return fragment(figure, 260)


def thinned_tail(values: Array) -> tuple[Array, Array]:
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

    `rows` are (name, ratios, interval, bound). The axis is that of the logarithm, so that half and double lie equally
    far from "unchanged"; it is marked in percent.
    """
    figure = go.Figure()
    ends: list[float] = [1.0]
    for index, (name, ratios, interval, bound) in enumerate(rows):
        first = {"showlegend": index == 0}
        ends += [*ratios, *(interval or ()), *([bound] if bound else [])]
        if interval is not None:
            figure.add_scatter(
                x=list(interval),
                y=[index, index],
                customdata=[100 * (end - 1) for end in interval],
                mode="lines",
                line={"color": CANDIDATE_COLOUR, "width": 9},
                opacity=0.35,
                hovertemplate=f"{name}, interval end: %{{customdata:+.1f}} %<extra></extra>",
                name="interval",
                **first,
            )
        figure.add_scatter(
            x=list(ratios),
            y=[index] * len(ratios),
            mode="markers",
            marker={"color": CANDIDATE_COLOUR, "size": 8, "line": {"width": 1, "color": "white"}},
            text=[f"{name}, pair {number}: {100 * (each - 1):+.1f} %" for number, each in enumerate(ratios, start=1)],
            hovertemplate="%{text}<extra></extra>",
            name="one pair",
            **first,
        )
        if bound is not None:
            figure.add_scatter(
                x=[bound],
                y=[index],
                mode="markers",
                marker={"size": 22, "symbol": "line-ns", "line": {"width": 3, "color": LIMIT_COLOUR}},
                hovertemplate=f"{name}, allowed: {100 * (bound - 1):+.1f} %<extra></extra>",
                name="allowed",
                **first,
            )
    names = [row[0] for row in rows]
    middle = list(range(len(names)))
    figure.update_yaxes(tickvals=middle, ticktext=names, range=[len(names) - 0.4, -0.6], showgrid=False, zeroline=False)
    ticks = percent_ticks(min(ends), max(ends))
    figure.update_xaxes(title="candidate against base, %", type="log", zeroline=False)
    figure.update_xaxes(
        tickvals=[1 + each / 100 for each in ticks], ticktext=[f"{each:+g}" if each else "0" for each in ticks]
    )
    figure.add_vline(x=1.0, line={"color": BASE_COLOUR, "width": 1.5}, layer="below")
    return fragment(figure, 110 + 46 * len(rows))


def percent_ticks(low: float, high: float, most: int = 11) -> list[float]:
    """Round changes in percent between two ratios, thinned so that on the log axis none stands on its neighbour."""
    smaller = [0, 1, 2, 3, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99]
    larger = [1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 400, 900, 1900, 4900, 9900]
    gap = max(float(np.log(high / low)) / most, 1e-9)
    kept: list[float] = [0]
    for side in ([-each for each in smaller[1:]], larger):
        last = 0.0
        for each in side:
            at = float(np.log1p(each / 100))
            if abs(at - last) >= gap and low <= 1 + each / 100 <= high:
                kept, last = [*kept, float(each)], at
    return sorted(kept)


def waterfall(before: float, steps: Mapping[str, float], after: float) -> str:
    """From the base's mean latency to the candidate's, one floating bar per part (seconds in, milliseconds drawn)."""
    changes = [1e3 * each for each in steps.values()]
    levels = np.cumsum([1e3 * before, *changes]).tolist()
    names = ["base", *steps, "candidate"]
    figure = go.Figure()
    figure.add_bar(
        x=names,
        base=[0.0, *levels[:-1], 0.0],
        y=[1e3 * before, *changes, 1e3 * after],
        marker={"color": [BASE_COLOUR, *(WORSE if each > 0 else BETTER for each in changes), CANDIDATE_COLOUR]},
        hovertemplate="%{x}: %{customdata} ms<extra></extra>",
        customdata=[f"{1e3 * before:.3g}", *(f"{each:+.3g}" for each in changes), f"{1e3 * after:.3g}"],
        showlegend=False,
    )
    tops = [1e3 * before, *(max(pair) for pair in pairwise(levels)), 1e3 * after]
    figure.add_scatter(
        x=names,
        y=tops,
        mode="text",
        text=[f"{1e3 * before:.3g}", *(f"{each:+.2g}" for each in changes), f"{1e3 * after:.3g}"],
        textposition="top center",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_yaxes(title="mean latency, ms", range=[0, 1.15 * max(*tops, 1e-6)])
    figure.update_xaxes(showgrid=False)
    figure.update_layout(bargap=0.45)
    return fragment(figure, 300)


def batch_sizes(base: Mapping[int, int], candidate: Mapping[int, int]) -> str:
    """The share of executions at each batch size, both arms side by side."""
    sizes = sorted({*base, *candidate})
    figure = go.Figure()
    for name, counts, colour in (("base", base, BASE_COLOUR), ("candidate", candidate, CANDIDATE_COLOUR)):
        total = sum(counts.values()) or 1
        figure.add_bar(
            x=[str(size) for size in sizes],
            y=[100 * counts.get(size, 0) / total for size in sizes],
            customdata=[counts.get(size, 0) for size in sizes],
            name=name,
            marker={"color": colour},
            hovertemplate="batch %{x}: %{customdata} executions, %{y:.1f} %<extra>" + name + "</extra>",
        )
    figure.update_xaxes(title="executed batch size", type="category")
    figure.update_yaxes(title="executions, %", rangemode="tozero")
    figure.update_layout(bargap=0.3, barmode="group")
    return fragment(figure, 260)


def memory_curves(curves: Sequence[tuple[str, int, Sequence[float], Sequence[float]]]) -> str:
    """Resident memory over the life of each slot's server; curves are (arm, pair, seconds, bytes)."""
    figure, seen = go.Figure(), set[str]()
    for arm, pair, at, resident in curves:
        figure.add_scatter(
            x=list(at),
            y=[each / (1 << 20) for each in resident],
            mode="lines",
            line={"color": BASE_COLOUR if arm == "base" else CANDIDATE_COLOUR, "width": 1.5},
            opacity=0.7,
            name=arm,
            legendgroup=arm,
            showlegend=arm not in seen,
            hovertemplate=f"{arm}, pair {pair}: %{{y:.0f}} MiB after %{{x:.1f}} s<extra></extra>",
        )
        seen.add(arm)
    figure.update_xaxes(title="seconds since the server was there")
    figure.update_yaxes(title="resident memory, MiB", rangemode="tozero")
    return fragment(figure, 280)


def controls(points: Sequence[tuple[int, str, float]]) -> str:
    """The control workload before every slot, in the order taken; points are (slot, arm, seconds)."""
    figure = go.Figure()
    for arm, colour in (("base", BASE_COLOUR), ("candidate", CANDIDATE_COLOUR)):
        mine = [point for point in points if point[1] == arm]
        figure.add_scatter(
            x=[point[0] for point in mine],
            y=[1e3 * point[2] for point in mine],
            mode="markers",
            marker={"color": colour, "size": 9, "line": {"width": 1, "color": "white"}},
            name=arm,
            hovertemplate="slot %{x}: %{y:.3g} ms<extra>" + arm + "</extra>",
        )
    figure.update_xaxes(title="slot, in the order taken", tickformat="d")
    figure.update_yaxes(title="control, ms", rangemode="tozero")
    return fragment(figure, 220)


def trend(points: Sequence[tuple[str, float, str]], steps: Sequence[tuple[int, float, float]], *, unit: str) -> str:
    """A metric over its gates: points are (time, value, what to say of it), steps (index, level before, after)."""
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(points) + 1)),
        y=[point[1] for point in points],
        customdata=[point[2] for point in points],
        mode="lines+markers",
        line={"color": CANDIDATE_COLOUR, "width": 1.2},
        marker={"size": 7, "color": CANDIDATE_COLOUR},
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    edges = [0, *(index for index, _, _ in steps), len(points)]
    levels = [*(before for _, before, _ in steps), *([steps[-1][2]] if steps else [])]
    for level, (start, stop) in zip(levels, pairwise(edges), strict=False):
        figure.add_scatter(
            x=[start + 1, stop],
            y=[level, level],
            mode="lines",
            line={"color": BASE_COLOUR, "width": 5},
            opacity=0.5,
            hoverinfo="skip",
            showlegend=False,
        )
    for index, _, _ in steps:
        figure.add_vline(x=index + 0.5, line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dot"})
    shown = list(range(1, len(points) + 1, max(1, -(-len(points) // 8))))
    figure.update_xaxes(title="gates, oldest first", tickvals=shown, ticktext=[points[at - 1][0][:10] for at in shown])
    figure.update_yaxes(title=unit)
    return fragment(figure, 260)


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
