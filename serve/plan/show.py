"""A planning run as tables for people. Formats values; computes and measures nothing."""

from collections.abc import Mapping
from math import exp
from typing import TYPE_CHECKING

from seatrial.optimize.terminal import led

from .choose import BatchPlan
from .run import Planned
from .tune import Tuned
from .verify import Verified

if TYPE_CHECKING:
    from rich.table import Table

_SIZES = 5  # batch sizes that a line names


def curve_table(found: Planned) -> "Table":
    """Milliseconds of a batch by size and layout."""
    from rich.table import Table

    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= found.curve.largest]
    table = Table(title="latency per batch, ms", title_justify="left")
    for name in ("instances x threads", *map(str, sizes), "gap", "request", "error"):
        table.add_column(name, justify="right")
    for layout in found.curve.layouts:
        service = found.curve.service(layout)
        cells = [f"{1e3 * service.of(size):.2f}" for size in sizes]
        overhead = "-" if service.overhead is None else f"{1e6 * service.overhead:.0f} us"
        table.add_row(str(layout), *cells, f"{1e3 * service.gap:.2f}", overhead, f"{service.error:.0%}")
    return table


def plan_table(plan: BatchPlan, verified: Verified | None) -> "Table":
    """Return the predicted values at the rate beside the measured ones, as a table."""
    from rich.table import Table

    tail = f"p{100 * plan.slo.quantile:g}"
    table = Table(title=f"{plan.setting} at {plan.rate:g} requests/s, {plan.slo}", title_justify="left")
    table.add_column("")
    table.add_column("predicted", justify="right")
    if verified:
        table.add_column("measured", justify="right")
    low, high = (f"{1e3 * each:.1f}" for each in plan.tail)
    rows = [
        ("p50", f"{1e3 * plan.prediction.p50:.1f} ms", verified and f"{1e3 * verified.p50:.1f} ms"),
        (
            tail,
            f"{1e3 * plan.prediction.tail:.1f} ms ({low} to {high})",
            verified and f"{1e3 * verified.tail:.1f} ms",
        ),
        ("over the limit", f"{plan.prediction.over:.2%}", verified and f"{verified.over:.2%}"),
        ("busy", f"{plan.prediction.utilisation:.0%}", ""),
        ("batches", sizes_text(plan.prediction.sizes), verified and sizes_text(verified.sizes)),
        ("of another size", "", verified and f"{verified.apart:.0%}"),
        ("sustains", f"{plan.sustains:.0f} requests/s", ""),
        ("TensorRT profile", str(list(plan.profile.range)), verified and f"{verified.missed:.1%} missed"),
    ]
    for name, predicted, measured in rows:
        table.add_row(name, predicted, *([measured or ""] if verified else []))
    return table


def trials_table(tuned: Tuned) -> "Table":
    """Every trial, beside the best so far."""
    from rich.table import Table

    table = Table(title=f"trials: {tuned.stopped}", title_justify="left")
    for name in ("", "setting", "sustained", "best so far", "gain", "90 % interval", ""):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for judged in tuned.state.judged:
        trial = judged.trial
        mine, best = ([getattr(pair, side) for pair in trial.pairs] for side in ("candidate", "best"))
        table.add_row(
            str(trial.number),
            str(trial.setting),
            f"{sum(mine) / len(mine):.0f}/s",
            "itself" if trial.itself else f"{sum(best) / len(best):.0f}/s",
            f"{exp(trial.gain):.2f}",
            f"{exp(judged.low):.2f} to {exp(judged.high):.2f}",
            led("green", "best") if judged.better else "",
        )
    return table


def sizes_text(sizes: Mapping[int, float]) -> str:
    """Batch sizes and their shares, the most frequent first."""
    common = sorted(sizes.items(), key=lambda each: -each[1])
    text = ", ".join(f"{size}: {share:.0%}" for size, share in common[:_SIZES])
    return (text + (", ..." if len(common) > _SIZES else "")) or "-"
