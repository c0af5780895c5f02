"""The latency-per-batch curve as data: what a served model took for batches of every size, by layout and round.

Pure. Keeps sums and counts as the server counted them, by window; every figure is computed on reading. How a window is
measured is `serve.plan.observe`'s business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.record import Record

from .setting import Layout

DRAWS = 1021  # a prime, so that sequences through it do not fall into step
_PIECES, _LEAST = 64, 0.3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Executions:
    """Runs of the model at one batch size: how many, and their seconds (input, inference and output) in all."""

    size: int
    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One closed-loop window: `concurrency` requests of `rows` rows in flight for `seconds`.

    `round` is which pass over the layouts it belongs to. `latencies` (seconds, at the client) are kept where nothing
    queues: one request in flight.
    """

    layout: Layout
    round: int
    concurrency: int
    rows: int
    seconds: float
    completed: int
    executions: tuple[Executions, ...]
    latencies: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Service:
    """Cost of a batch in one layout, drawn from its windows.

    `gap` is what an instance stands still between two batches although requests wait; `path` what a request takes
    beyond its batch: the wire, the server's front, the client. `jitter` is by how much single requests differed from
    their mean. `error` is the relative standard error of the curve, from how much its rounds differ. `overhead` is what
    a request more costs where the rows stay the same. Seconds.
    """

    sizes: Floats
    seconds: Floats
    gap: float
    path: float
    jitter: Floats
    error: float
    overhead: float | None

    @cached_property
    def table(self) -> Floats:
        """Seconds of a batch by its size, index 0 unused; straight between sizes seen, and beyond them."""
        top = int(self.sizes[-1])
        table: Floats = np.interp(np.arange(top + 1), self.sizes, self.seconds)
        return table

    def of(self, size: int) -> float:
        """Seconds that a batch of `size` requests takes; beyond what was seen it grows as the last doubling did."""
        top = len(self.table) - 1
        if size <= top:
            return float(self.table[size])
        half = max(top // 2, 1)
        slope = (self.table[top] - self.table[half]) / (top - half) if top > half else self.table[top]
        return float(self.table[top] + slope * (size - top))

    @cached_property
    def _drawn(self) -> dict[int, list[float]]:
        return {}

    def draws(self, size: int) -> list[float]:
        """`DRAWS` times of such a batch, about their mean `of(size)`.

        A batch that takes m times as long as one request is as jittery as m of them after another: a machine's stalls
        are so long whatever they hit, and hit a longer batch more often.
        """
        if size not in self._drawn:
            mean, pieces = self.of(size), max(round(self.of(size) / self.of(1)), 1)
            off = np.random.default_rng(size).choice(self.jitter, (DRAWS, min(pieces, _PIECES))).sum(axis=1)
            self._drawn[size] = np.maximum(mean + off, _LEAST * mean).tolist()
        return self._drawn[size]

    def scaled(self, factor: float) -> "Service":
        """The same with every batch that much slower."""
        return Service(
            sizes=self.sizes,
            seconds=self.seconds * factor,
            gap=self.gap * factor,
            path=self.path * factor,
            jitter=self.jitter * factor,
            error=self.error,
            overhead=self.overhead,
        )


@dataclass(frozen=True, kw_only=True)
class Curve(Record, schema=1, what="the latency curve", next_step="measure the curve again", computed=("kind",)):
    """All windows of one artifact on one machine; `largest` is the batch that the server was allowed."""

    subject: str
    largest: int
    cores: int
    windows: tuple[Window, ...]
    environment: Mapping[str, Any]

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts that were measured."""
        return tuple(sorted({window.layout for window in self.windows}))

    def service(self, layout: Layout) -> Service:
        """Return the cost of a batch in a layout.

        Raises:
            IntegrityError: it was not measured, or nothing was answered there.
        """
        return service([window for window in self.windows if window.layout == layout])

    def rounds(self, layout: Layout) -> tuple[Service, ...]:
        """Return the cost in each round alone; their spread shows how far the curve can be trusted."""
        mine = [window for window in self.windows if window.layout == layout]
        return tuple(
            service([window for window in mine if window.round == each]) for each in sorted({w.round for w in mine})
        )

    @property
    def kind(self) -> str:
        """Name of what is stored, beside its schema."""
        return "latency per batch"


def service(windows: Sequence[Window]) -> Service:
    """Fit the cost of a batch from the windows of one layout; it never falls as the batch grows (isotonic)."""
    single = [window for window in windows if window.rows == 1]
    sizes, seconds, counts = _pooled(single)
    if not len(sizes):
        raise IntegrityError("the curve has no measurement for one of its layouts", next_step="measure the curve again")
    from scipy.optimize import isotonic_regression

    risen = np.asarray(isotonic_regression(seconds, weights=counts).x, dtype=np.float64)
    alone = np.concatenate([np.asarray(each.latencies) for each in single] or [np.empty(0)])
    mean, path = (float(alone.mean()), max(float(alone.mean()) - risen[0], 0.0)) if len(alone) else (0.0, 0.0)
    return Service(
        sizes=sizes,
        seconds=risen,
        gap=_gap(single),
        path=path,
        jitter=alone - mean if len(alone) else np.zeros(1),
        error=_error(single),
        overhead=_overhead(windows, sizes, risen),
    )


def _pooled(windows: Sequence[Window]) -> tuple[Floats, Floats, Floats]:
    """Sizes, mean seconds and counts over all windows."""
    sums: dict[int, tuple[int, float]] = {}
    for each in (runs for window in windows for runs in window.executions if runs.count):
        count, seconds = sums.get(each.size, (0, 0.0))
        sums[each.size] = (count + each.count, seconds + each.seconds)
    sizes = sorted(sums)
    means = [sums[size][1] / sums[size][0] for size in sizes]
    return np.array(sizes, float), np.array(means), np.array([float(sums[size][0]) for size in sizes])


def _gap(windows: Sequence[Window]) -> float:
    """Time of an instance per batch beyond the batch, in windows where requests always waited: the fullest ones."""
    gaps, weights = [], []
    for window in windows:
        runs = sum(each.count for each in window.executions)
        if window.concurrency < max(each.concurrency for each in windows) or not runs or not window.completed:
            continue
        mean = sum(each.size * each.count for each in window.executions) / runs
        cycle = window.layout.instances * mean * window.seconds / window.completed
        gaps.append(cycle - sum(each.seconds for each in window.executions) / runs)
        weights.append(runs)
    return max(float(np.average(gaps, weights=weights)), 0.0) if gaps else 0.0


def _error(windows: Sequence[Window]) -> float:
    """Relative standard error of the curve: how much rounds differ over the sizes that they share, over their root."""
    rounds = sorted({window.round for window in windows})
    curves = [_pooled([window for window in windows if window.round == each]) for each in rounds]
    means = [dict(zip(sizes, zip(seconds, counts, strict=True), strict=True)) for sizes, seconds, counts in curves]
    shared = set.intersection(*(set(each) for each in means)) if len(means) > 1 else set()
    if not shared:
        return 0.1  # one round says nothing of the next; a tenth is what machines with neighbours differ by
    weights = np.array([min(each[size][1] for each in means) * size for size in shared])
    levels = np.array([[log(each[size][0]) for size in shared] for each in means])
    level = levels @ weights / weights.sum()
    return float(exp(level.std(ddof=1) / sqrt(len(level))) - 1)


def _overhead(windows: Sequence[Window], sizes: Floats, seconds: Floats) -> float | None:
    """Seconds that a request more costs where the rows stay the same: n requests of one row against one of n rows."""
    joined = _pooled([window for window in windows if window.rows > 1])
    if not len(joined[0]) or joined[0][0] < 2:
        return None
    rows = joined[0][0]
    return (float(np.interp(rows, sizes, seconds)) - float(joined[1][0])) / (float(rows) - 1)
