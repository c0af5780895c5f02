"""The baseline: what is normal of each quantity, learned from windows of quiet traffic.

A mean is its season (harmonics of day and week, and the hour of the week where it explains more), plus an error that
remembers the window before (first-order autoregression), of a spread that counts what the windows showed beyond it.
Rare counts are binomial, with the reference's upper bound. Pure: windows in, arrays out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from .plan import WEEK, Plan
from .quantities import COUNTED, Floats, Quantity
from .season import HOURS, cell, design
from .window import Window

LEAST = 48  # windows, below which no spread is worth the name: chosen
RARE = 10.0  # rows expected of a count in a window, below which it is held to be binomial and not normal
SEASONAL = 2 * WEEK  # reference below which a season cannot be told from a trend: each hour of the week seen twice
_LARGEST_PHI = 0.98
_SLOW = (6, 24)  # windows over whose mean the error must not scatter more than its spread says
_DENSE = 5  # location means, below which their common statistic says nothing that each does not


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What is normal. Arrays are of shape [quantities] where nothing else is said.

    `season` holds the regressors' weights, shape [regressors, quantities], `weekly` what the hour of the week adds,
    shape [168, quantities]. `phi` is the memory of the error from one window to the next, `spread` its standard
    deviation at `rows` rows once that memory is taken away, `tails` its degrees of freedom. `unsure` is the standard
    error of the expected mean itself. `rare` marks counts for the exact test, whose share is at most `ceiling`;
    `clumping` is how much more than binomial they scatter. `tolerance` is the change that is no news; `weight` shares
    the budget, sums to 0.9, and is 0 where the reference never varied. `common` holds mean and spread of the log of the
    mean squared location.
    """

    quantities: tuple[Quantity, ...]
    start: float
    end: float
    interval: float
    windows: int
    rows: float
    threshold: float
    seasonal: bool
    season: Floats
    weekly: Floats
    unsure: Floats
    phi: Floats
    spread: Floats
    tails: Floats
    rare: NDArray[np.bool_]
    ceiling: Floats
    clumping: Floats
    tolerance: Floats
    weight: Floats
    locations: NDArray[np.int64]
    common: tuple[float, float]

    def expected(self, time: float) -> Floats:
        """Return the mean that is expected of a window whose middle is at `time`, in seconds of the Unix epoch."""
        times = np.array([time])
        found: Floats = design(times, seasonal=self.seasonal)[0] @ self.season + self.weekly[cell(times)[0]]
        return found


def learn_baseline(plan: Plan, quantities: Sequence[Quantity], windows: Sequence[Window]) -> Baseline:
    """Learn from windows in order of time, each with about as many rows as those that will be judged.

    Raises:
        ValueError: fewer than `LEAST` windows.
    """
    if len(windows) < LEAST:
        raise ValueError(f"{len(windows)} windows, and at least {LEAST} are needed")
    rows = np.array([each.rows for each in windows], dtype=np.float64)
    sums = np.stack([each.sums for each in windows])
    means = sums / rows[:, None]
    times = np.array([(each.start + each.end) / 2 for each in windows])
    seasonal = windows[-1].end - windows[0].start >= SEASONAL
    season, weekly, errors, freedom, unsure = _fit(times, means, seasonal=seasonal)
    adjacent = np.diff(times) < 1.5 * plan.interval
    phi, spread, tails = _memory(errors, adjacent, freedom)
    counted = np.array([each.what in COUNTED for each in quantities])
    share = sums.sum(axis=0) / rows.sum()
    spread = np.maximum(spread, 1e-9 + np.where(counted, _one_more(share, rows), 0.0))
    rare, ceiling, clumping = _rare(counted, sums, rows)
    varied = counted | (means.std(axis=0) > 1e-9)
    locations = np.array([at for at, each in enumerate(quantities) if each.what == "location" and varied[at]], np.int64)
    return Baseline(
        quantities=tuple(quantities),
        start=windows[0].start,
        end=windows[-1].end,
        interval=plan.interval,
        windows=len(windows),
        rows=float(rows.mean()),
        threshold=plan.threshold,
        seasonal=seasonal,
        season=season,
        weekly=weekly,
        unsure=unsure,
        phi=phi,
        spread=spread,
        tails=tails,
        rare=rare,
        ceiling=ceiling,
        clumping=clumping,
        tolerance=np.array([plan.tolerated(each) for each in quantities]),
        weight=_weights(quantities, varied),
        locations=locations if len(locations) >= _DENSE else locations[:0],
        common=_common(innovations(errors, phi, adjacent)[:, locations] / spread[locations]),
    )


def innovations(errors: Floats, phi: Floats, adjacent: NDArray[np.bool_]) -> Floats:
    """Return what each error adds to the one before, shape [windows - 1, quantities]; across a gap nothing is known."""
    fresh: Floats = errors[1:] - np.where(adjacent[:, None], phi * errors[:-1], 0.0)
    return fresh[adjacent] if adjacent.any() else fresh


def _fit(times: Floats, means: Floats, *, seasonal: bool) -> tuple[Floats, Floats, Floats, int, Floats]:
    """Return season, hour of the week, errors, their degrees of freedom, and the standard error of the expected mean.

    The hour of the week is shrunk: it counts by the part of its scatter that the errors within it do not explain
    (empirical Bayes, one factor for each quantity).
    """
    regressors = design(times, seasonal=seasonal)
    season = np.linalg.lstsq(regressors, means, rcond=None)[0]
    errors = means - regressors @ season
    freedom = len(means) - regressors.shape[1]
    weekly = np.zeros((HOURS, means.shape[1]))
    leverage = regressors.shape[1] / len(means)
    if seasonal:
        cells = cell(times)
        counts = np.bincount(cells, minlength=HOURS)
        np.add.at(weekly, cells, errors)
        weekly /= np.maximum(counts, 1)[:, None]
        there = counts > 0
        typical = float(np.median(counts[there]))
        within = ((errors - weekly[cells]) ** 2).sum(axis=0) / max(1, len(errors) - int(there.sum()))
        between = np.maximum((weekly[there] ** 2).mean(axis=0) - within / typical, 0.0)
        kept = between / np.maximum(between + within / typical, 1e-30)
        weekly *= kept
        errors = (errors - weekly[cells]) / np.sqrt(np.maximum(1 - kept / typical, 0.3))
        leverage = leverage + kept / typical
    unsure = np.sqrt((errors**2).sum(axis=0) / freedom * leverage)
    return season, weekly, errors, freedom, unsure


def _memory(errors: Floats, adjacent: NDArray[np.bool_], freedom: int) -> tuple[Floats, Floats, Floats]:
    """Return memory, spread and tails of the errors, shape [windows, quantities].

    The memory is the lag-1 autocorrelation, taken one standard error larger than estimated (``sqrt((1-r^2)/n)``) and as
    0 where it does not differ from chance: what is underestimated here alarms falsely. For the same reason the spread
    grows where means over several windows scatter more than independent ones could (99th percentile of chi squared).
    """
    before, after = errors[:-1][adjacent], errors[1:][adjacent]
    count = max(len(after), 1)
    lag = (before * after).sum(axis=0) / np.maximum((errors**2).sum(axis=0), 1e-30) + 1.5 / count
    phi = np.where(
        lag > 2 / np.sqrt(count), np.minimum(lag + np.sqrt(np.maximum(1 - lag**2, 0) / count), _LARGEST_PHI), 0.0
    )
    fresh = innovations(errors, phi, adjacent)
    variance = (fresh**2).sum(axis=0) / max(1, len(fresh) - (len(errors) - freedom) - 1)
    grown = np.ones_like(variance)
    for length in _SLOW:
        blocks = len(fresh) // length
        if blocks < 4:
            continue
        scatter = fresh[: blocks * length].reshape(blocks, length, -1).mean(axis=1)
        ratio = (scatter**2).mean(axis=0) * length / np.maximum(variance, 1e-30)
        grown = np.maximum(grown, ratio / (chi2.ppf(0.99, blocks) / blocks))
    spread = np.sqrt(variance * grown)
    scaled = fresh / np.maximum(np.sqrt(variance), 1e-30)
    excess = (scaled**4).mean(axis=0) / np.maximum((scaled**2).mean(axis=0) ** 2, 1e-12) - 3
    return phi, spread, np.clip(4 + 6 / np.maximum(excess, 1e-3), 5, 600)


def _one_more(share: Floats, rows: Floats) -> Floats:
    """Return the binomial standard deviation of a window's share if the reference had had one more such row."""
    found: Floats = np.sqrt(np.clip(share + 1 / rows.sum(), 0, 1) / rows.mean())
    return found


def _rare(counted: NDArray[np.bool_], sums: Floats, rows: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Return which counts are rare, the upper 95 % limit of their share (Clopper and Pearson), and their clumping."""
    total = sums.sum(axis=0)
    expected = total / rows.sum() * rows.mean()
    rare = counted & (expected < RARE)
    ceiling = np.where(rare, chi2.ppf(0.95, 2 * (np.round(total) + 1)) / 2 / rows.sum(), 0.5)
    clumping = np.maximum(1.0, sums.var(axis=0, ddof=1) / np.maximum(expected, 1e-9))
    return rare, ceiling, np.where(rare & (total >= 5), clumping, 1.0)


def _weights(quantities: Sequence[Quantity], varied: NDArray[np.bool_]) -> Floats:
    """Share out the budget: 0.5 to single quantities, 0.4 to pairs, and to those all 0.9 where there is no pair."""
    pair = np.array([each.what == "pair" for each in quantities])
    single = ~pair & varied
    pair &= varied
    weight = np.zeros(len(quantities))
    weight[single] = (0.5 if pair.any() else 0.9) / max(1, int(single.sum()))
    weight[pair] = 0.4 / max(1, int(pair.sum()))
    return weight


def _common(scaled: Floats) -> tuple[float, float]:
    """Return mean and spread of the log mean square of all locations, widened where it remembers; scaled is [t, q]."""
    if scaled.shape[1] < _DENSE:
        return (0.0, 1.0)
    value = np.log(np.maximum((scaled**2).mean(axis=1), 1e-9))
    centred = value - value.mean()
    lag = max(0.0, float((centred[1:] * centred[:-1]).sum() / max(float((centred**2).sum()), 1e-30)))
    return float(value.mean()), float(value.std(ddof=1) * np.sqrt((1 + lag) / max(1 - lag, 0.05)))
