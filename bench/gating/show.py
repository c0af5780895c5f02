"""Forecasts and trials as tables for a terminal. Computes nothing of its own."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from seatrial.optimize.tables import table
from seatrial.optimize.units import format_change, format_duration, format_value

from .. import stats
from ..metrics import metric_of
from .forecast import Forecast
from .noise import Trial
from .trials import rate


def forecast_lines(forecast: Forecast) -> list[str]:
    """The forecast in a few sentences, as the gate prints it before its first slot."""
    last = forecast.looks[-1]
    took = " or ".join(
        f"{format_duration(seconds)} ({look} pairs)"
        for look, seconds in zip(forecast.looks, forecast.seconds, strict=True)
    )
    able = ", ".join(
        f"{each.metric} {each.certifiable:.1%} of {each.margin:.1%}" for each in forecast.limits if each.gating
    )
    lines = [f"forecast: about {took}; {forecast.source}"]
    if able:
        lines.append(f"certifiable with {last} pairs: {able}")
    return [*lines, *forecast.warnings]


def forecast_table(forecast: Forecast) -> Table:
    """Return the forecast of each relative limit as a table."""
    powers = ("passes if unchanged", "fails at twice the margin", "pairs needed")
    rows = (
        (
            each.metric if each.gating else f"{each.metric} (informational)",
            f"{each.margin:.1%}",
            f"{each.sd:.1%}" + (" (assumed)" if each.assumed else ""),
            f"{each.certifiable:.1%}",
            f"{each.passes:.0%}",
            f"{each.blocks:.0%}",
            "over 400" if each.pairs_needed is None else str(each.pairs_needed),
        )
        for each in forecast.limits
    )
    return table(("metric", "margin", "noise per pair", "certifiable", *powers), rows, left=("metric",))


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """The forecast as JSON values."""
    return {
        "limits": [asdict(each) for each in forecast.limits],
        "looks": list(forecast.looks),
        "seconds": list(forecast.seconds),
        "source": forecast.source,
        "warnings": list(forecast.warnings),
    }


def trial_table(trials: Sequence[Trial]) -> Table:
    """Return the outcomes of trial gates as a table, with exact 95 % intervals of the rates."""
    head = ("trial", "model", "pairs", "PASS", "FAIL", "invalid", "resampled PASS", "resampled FAIL")
    rows = (
        (
            f"drill {each.injected:+.0%}" if each.injected else "A/A",
            each.model,
            str(each.pairs),
            *(str(rate(each.outcomes, name)) for name in ("PASS", "FAIL")),
            str(each.outcomes.get("INVALID", 0)),
            *(str(rate(each.resampled, name)) if each.resampled else "" for name in ("PASS", "FAIL")),
        )
        for each in trials
    )
    return table(head, rows, left=("trial",))


def noise_table(trial: Trial) -> Table:
    """The spread of each metric between slots, and what that lets six and twelve pairs certify."""
    head = ("metric", "typical per slot", "noise per pair", "candidate", "6 pairs certify", "12 pairs certify")
    highest = {metric: stats.upper_sd(noise.sd, noise.df) for metric, noise in trial.noise.items()}
    rows = (
        (
            metric,
            format_value(noise.typical, metric_of(metric).unit),
            f"{noise.sd:.1%} (at most {highest[metric]:.1%})",
            format_change(trial.ratios.get(metric)),
            *(f"{stats.certifiable(pairs, highest[metric], alpha=0.05):.1%}" for pairs in (6, 12)),
        )
        for metric, noise in trial.noise.items()
    )
    return table(head, rows, left=("metric",))


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial with its rates."""
    made = trial.to_json()
    for kind in ("outcomes", "resampled"):
        counts = made[kind] = dict(made[kind])
        made[f"{kind}_rates"] = {name: asdict(rate(counts, name)) for name in ("PASS", "FAIL", "INCONCLUSIVE")}
    return made
