"""Forecasts, trials and ledgers as tables for a terminal. Computes nothing of its own."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from .. import stats
from ..budget import LedgerLimits
from ..measurement import METRICS, spell, spell_minutes
from ..records.accepted import Entry
from ..records.archive import Trial
from .forecast import Forecast
from .trials import rate


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left")
    return table


def forecast_lines(forecast: Forecast) -> list[str]:
    """The forecast in a few sentences, as the gate prints it before its first slot."""
    last = forecast.looks[-1]
    took = " or ".join(
        f"{spell_minutes(seconds)} ({look} pairs)"
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
    """What the design can say about each relative limit."""
    table = _table(
        "metric", "margin", "noise of a pair", "certifiable", "unchanged passes", "twice fails", "pairs needed"
    )
    for each in forecast.limits:
        table.add_row(
            each.metric if each.gating else f"{each.metric} (told only)",
            f"{each.margin:.1%}",
            f"{each.sd:.1%}" + (" (assumed)" if each.assumed else ""),
            f"{each.certifiable:.1%}",
            f"{each.passes:.0%}",
            f"{each.blocks:.0%}",
            "over 400" if each.pairs_needed is None else str(each.pairs_needed),
        )
    return table


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
    """How the gates of trials ended, with exact 95 % intervals of the shares."""
    table = _table("trial", "model", "pairs", "PASS", "FAIL", "invalid", "resampled PASS", "resampled FAIL")
    for each in trials:
        drawn = [str(rate(each.resampled, name)) if each.resampled else "" for name in ("PASS", "FAIL")]
        table.add_row(
            f"drill {each.injected:+.0%}" if each.injected else "A/A",
            each.model,
            str(each.pairs),
            *(str(rate(each.outcomes, name)) for name in ("PASS", "FAIL")),
            str(each.outcomes.get("INVALID", 0)),
            *drawn,
        )
    return table


def noise_table(trial: Trial) -> Table:
    """The spread of each metric between slots, and what that lets six and twelve pairs certify."""
    table = _table("metric", "typical slot", "noise of a pair", "candidate", "6 pairs certify", "12 pairs certify")
    for metric, noise in trial.noise.items():
        sd = stats.upper_sd(noise.sd, noise.df)
        ratio = trial.ratios.get(metric)
        table.add_row(
            metric,
            spell(noise.typical, METRICS[metric].unit),
            f"{noise.sd:.1%} (at most {sd:.1%})",
            "" if ratio is None else f"{ratio - 1:+.1%}",
            *(f"{stats.certifiable(pairs, sd, alpha=0.05):.1%}" for pairs in (6, 12)),
        )
    return table


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial with its rates."""
    made = trial.to_json()
    for kind in ("outcomes", "resampled"):
        counts = made[kind] = dict(made[kind])
        made[f"{kind}_rates"] = {name: asdict(rate(counts, name)) for name in ("PASS", "FAIL", "INCONCLUSIVE")}
    return made


def ledger_table(entries: Sequence[Entry]) -> Table:
    """Accepted losses, oldest first."""
    table = _table("accepted", "metric", "loss", "90 % interval", "candidate")
    for entry in entries:
        table.add_row(
            entry.at,
            entry.metric,
            f"{math.expm1(entry.loss):.2%}",
            f"{math.expm1(entry.lower):.2%} … {math.expm1(entry.upper):.2%}",
            entry.candidate.removeprefix("sha256:")[:12],
        )
    return table


def ledger_lines(held: dict[str, float], limits: LedgerLimits) -> list[str]:
    """How full a ledger is, by metric."""
    return [
        f"{metric}: {math.expm1(loss):.2%} of {limits.at_most[metric]:.2%} within {limits.days:g} days"
        for metric, loss in held.items()
    ]
