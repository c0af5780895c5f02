"""Trend of a metric's history: steps, drift, or neither. Pure; positive values in order of time.

A step needs both sides: enough points before and after, medians that differ by far more than the noise, and ranks that
agree. So one spike is no step, and the newest points cannot be one yet: this explains, it never blocks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEAST = 5  # points on either side: the first number at which an exact rank test reaches 1 %
NEEDED = 2 * LEAST
_ALPHA = 0.01  # of the rank test; chosen: a trend explains and never blocks
_CLEAR = 4.0  # standard errors between the medians; the place was searched for, so 2 would cry wolf
_SMALLEST = 0.01  # relative: smaller steps are not worth a name
_RESOLUTION = 1e-4  # relative noise below which a series counts as this noisy, lest rounding become steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A new level from `index` on: the medians `before` and `after`, and the exact rank test's p-value."""

    index: int
    before: float
    after: float
    p: float

    @property
    def ratio(self) -> float:
        """The new level over the old."""
        return self.after / self.before


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Trend with confirmed `steps`, `drift` (last over first on a fitted line) or None, and notes for readers.

    `pending` is the index of a possible step that too few points follow yet. `noise` is one point's relative spread.
    """

    steps: tuple[Step, ...] = ()
    drift: float | None = None
    pending: int | None = None
    noise: float = 0.0
    notes: tuple[str, ...] = ()


def trend(values: Sequence[float]) -> Trend:
    """Look for steps and drift in a series.

    Raises:
        ValueError: a value that is not finite and positive.
    """
    x = np.asarray(values, np.float64)
    if not (np.all(np.isfinite(x)) and np.all(x > 0)):
        raise ValueError("a trend needs finite, positive values")
    if x.size < NEEDED:
        return Trend(notes=(f"too few points for a trend: {x.size}, {NEEDED} are needed",))
    logs = np.log(x)
    noise = spread(logs)
    calm = _calmed(logs, noise)
    steps = _steps(logs, calm, noise)
    drift = _drift(calm, [step.index for step in steps])
    if drift is not None:
        change = math.exp(drift) - 1
        return Trend(drift=math.exp(drift), noise=noise, notes=(f"drift of {change:+.1%} over {x.size} gates",))
    pending = _pending(calm, steps[-1].index if steps else 0, noise)
    late = (
        (f"the last {x.size - pending} points may be a new level; {LEAST} are needed to confirm it",)
        if pending is not None
        else ()
    )
    return Trend(steps=tuple(steps), pending=pending, noise=noise, notes=late)


def spread(logs: Array) -> float:
    """The noise of one of [n] logarithms, from differences of neighbours, which steps and drift hardly touch."""
    steps = np.diff(logs)
    return max(1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2), _RESOLUTION)


def sparkline(values: Sequence[float]) -> str:
    """The series as one line of bars, lowest to highest."""
    bars, low, high = "▁▂▃▄▅▆▇█", min(values), max(values)
    width = (high - low) or 1.0
    return "".join(bars[min(int((value - low) / width * len(bars)), len(bars) - 1)] for value in values)


def _calmed(logs: Array, noise: float) -> Array:
    """The series, [n] logarithms, with spikes cut to three spreads about the median of their neighbourhood of five."""
    padded = np.pad(logs, 2, mode="edge")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    return np.asarray(np.clip(logs, middle - 3 * noise, middle + 3 * noise), np.float64)


def _steps(logs: Array, calm: Array, noise: float) -> list[Step]:
    """PELT's jumps in logarithms [n], those taken out that both sides do not confirm, until all that are left stand."""
    from .on_ruptures import jumps

    places = jumps(calm, 3 * noise**2 * math.log(logs.size), LEAST)
    while places:
        ends = [0, *places, logs.size]
        found = [_step(logs, start, at, stop, noise) for start, at, stop in zip(ends, ends[1:], ends[2:], strict=False)]
        if all(step is not None for step in found):
            return [step for step in found if step is not None]
        weakest = min(range(len(places)), key=lambda i: 0.0 if found[i] is not None else -_rank_p(logs, ends, i))
        del places[weakest]
    return []


def _step(logs: Array, start: int, at: int, stop: int, noise: float) -> Step | None:
    """Return the step at index `at` of logarithms [n], between its neighbours `start` and `stop`; None for none."""
    before, after = logs[start:at], logs[at:stop]
    old, new = float(np.median(before)), float(np.median(after))
    shift, sign = abs(new - old), 1.0 if new > old else -1.0
    error = 1.2533 * noise * math.sqrt(1 / before.size + 1 / after.size)  # of a difference of medians, normal noise
    p = float(_scipy().mannwhitneyu(before, after).pvalue)
    own = [int(np.sum(side * sign * (part - (old + new) / 2) > 0)) for side, part in ((-1, before), (1, after))]
    if min(own) < LEAST or p > _ALPHA or shift < max(_CLEAR * error, _SMALLEST):
        return None
    return Step(index=at, before=math.exp(old), after=math.exp(new), p=p)


def _rank_p(logs: Array, ends: Sequence[int], index: int) -> float:
    """Return the p-value of the rank test between both sides of one of the `ends` of logarithms [n]."""
    start, at, stop = ends[index : index + 3]
    return float(_scipy().mannwhitneyu(logs[start:at], logs[at:stop]).pvalue)


def _drift(calm: Array, places: Sequence[int]) -> float | None:
    """The total of a straight drift of logarithms [n], where a line explains them better than their steps do (BIC)."""
    n, at = calm.size, np.arange(calm.size, dtype=np.float64)
    if float(_scipy().kendalltau(at, calm).pvalue) > _ALPHA:
        return None
    slope, intercept, _, _ = _scipy().theilslopes(calm, at)
    levels = np.concatenate([np.full(b - a, np.mean(calm[a:b])) for a, b in pairwise([0, *places, n])])
    line = _bic(calm - intercept - slope * at, 2)
    total = float(slope) * (n - 1)
    return total if line < _bic(calm - levels, 2 * len(places) + 1) and abs(total) >= _SMALLEST else None


def _bic(residual: Array, parameters: int) -> float:
    """Return the Bayesian information criterion of residuals [n] under normal noise."""
    n = residual.size
    return n * math.log(max(float(residual @ residual) / n, _RESOLUTION**2)) + parameters * math.log(n)


def _pending(calm: Array, start: int, noise: float) -> int | None:
    """Return where the newest of logarithms [n] begin that all lie beyond their predecessors: too few for a step."""
    for newest in range(LEAST - 1, 1, -1):
        old, new = calm[start : calm.size - newest], calm[calm.size - newest :]
        if old.size < LEAST:
            continue
        gap = max(_SMALLEST, 3 * noise)
        if np.min(new) > np.median(old) + gap or np.max(new) < np.median(old) - gap:
            return int(calm.size - newest)
    return None


def _scipy() -> Any:
    """Import scipy.stats lazily, because it takes most of a second."""
    from scipy import stats

    return stats
