"""A planning run as tables for people. Formats values; computes and measures nothing."""

from collections.abc import Mapping
from functools import partial
from math import exp
from statistics import fmean

from rich.table import Table

from seatrial.optimize.tables import table
from seatrial.optimize.terminal import led
from seatrial.optimize.units import format_milliseconds

from .choose import BatchPlan
from .run import Planned
from .tune import Tuned
from .verify import Verified

milliseconds = partial(format_milliseconds, digits=1)
_SIZES = 5  # batch sizes that a line names


def curve_table(found: Planned) -> Table:
    """Milliseconds of a batch by size and layout."""
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= found.curve.largest]
    rows = (
        (
            str(layout),
            *(f"{1e3 * service.of(size):.2f}" for size in sizes),
            f"{1e3 * service.gap:.2f}",
            "-" if service.overhead is None else f"{1e6 * service.overhead:.0f} us",
            f"{service.error:.0%}",
        )
        for layout, service in ((layout, found.curve.service(layout)) for layout in found.curve.layouts)
    )
    head = ("instances x threads", *map(str, sizes), "gap", "request", "error")
    return table(head, rows, look="boxed", title="latency per batch, ms")


def plan_table(plan: BatchPlan, verified: Verified | None) -> Table:
    """Return the predicted values at the rate beside the measured ones, as a table."""
    tail = f"p{100 * plan.slo.quantile:g}"
    low, high = (f"{1e3 * each:.1f}" for each in plan.tail)
    rows = [
        ("p50", milliseconds(plan.prediction.p50), verified and milliseconds(verified.p50)),
        (
            tail,
            f"{milliseconds(plan.prediction.tail)} ({low} to {high})",
            verified and milliseconds(verified.tail),
        ),
        ("over the limit", f"{plan.prediction.over:.2%}", verified and f"{verified.over:.2%}"),
        ("busy", f"{plan.prediction.utilisation:.0%}", ""),
        ("batches", sizes_text(plan.prediction.sizes), verified and sizes_text(verified.sizes)),
        ("of another size", "", verified and f"{verified.apart:.0%}"),
        ("sustains", f"{plan.sustains:.0f} requests/s", ""),
        ("TensorRT profile", str(list(plan.profile.range)), verified and f"{verified.missed:.1%} missed"),
    ]
    head = ("", "predicted", "measured")[: 3 if verified else 2]
    cells = ((name, predicted, measured or "")[: len(head)] for name, predicted, measured in rows)
    title = f"{plan.setting} at {plan.rate:g} requests/s, {plan.slo}"
    return table(head, cells, left=("",), look="boxed", title=title)


def trials_table(tuned: Tuned) -> Table:
    """Every trial, beside the best so far."""
    rows = (
        (
            str(trial.number),
            str(trial.setting),
            f"{fmean(pair.candidate for pair in trial.pairs):.0f}/s",
            "itself" if trial.itself else f"{fmean(pair.best for pair in trial.pairs):.0f}/s",
            f"{exp(trial.gain):.2f}",
            f"{exp(judged.low):.2f} to {exp(judged.high):.2f}",
            led("green", "best") if judged.better else "",
        )
        for judged, trial in ((judged, judged.trial) for judged in tuned.state.judged)
    )
    head = ("", "setting", "sustained", "best so far", "gain", "90 % interval", "")
    return table(head, rows, left=("setting",), look="boxed", title=f"trials: {tuned.stopped}")


def sizes_text(sizes: Mapping[int, float]) -> str:
    """Batch sizes and their shares, the most frequent first."""
    common = sorted(sizes.items(), key=lambda each: -each[1])
    text = ", ".join(f"{size}: {share:.0%}" for size, share in common[:_SIZES])
    return (text + (", ..." if len(common) > _SIZES else "")) or "-"
