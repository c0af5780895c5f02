"""Detection: evidence that a mean has left what is tolerated, valid however long one watches.

Each quantity has two Shiryaev-Roberts statistics, for more and for less than tolerated: ``R = (R + 1) * L``, L a bet on
the newest window that is worth at most 1 on average while nothing is wrong. So R grows by at most 1 a window, and the
first time that a weighted mean of all of them passes N comes after N windows on average at least (e-detectors: Shin,
Ramdas and Rinaldo, 2022). Bets of several sizes run over whole paths and are averaged last: an average taken at each
step never finds a small change. Rare counts are bet on by exact binomial ratios.

Pure: baseline, state and window in, state and evidence out.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from .baseline import Baseline
from .quantities import Floats
from .window import Window

BETS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])  # standard deviations that a bet expects, beyond what is tolerated
RATIOS = np.array([1.5, 2.0, 4.0, 10.0, 50.0])  # shares over the ceiling that a bet on a rare count expects
_PRICE = 1.05  # on a bet's variance, for a spread that is itself estimated
_FURTHEST = 8.0  # standard deviations that one window counts at most
_LARGEST = 1e30
COMMON = 0.1  # the budget's part for all locations together


@dataclass(frozen=True, kw_only=True)
class State:
    """The statistics after the last window: `up` and `down` of shape [bets, quantities], `common` of shape [bets].

    `error` is the last window's difference from what was expected, shape [quantities], and `at` its middle in seconds
    of the Unix epoch; None before the first. `since` counts windows since the start or the last alarm.
    """

    up: Floats
    down: Floats
    common: Floats
    error: Floats
    at: float | None = None
    since: int = 0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence of a window: `total` against `threshold`; of each quantity its statistic, surprise and difference.

    `statistic` is the mean over bets and directions, `surprise` the newest error in standard deviations, `difference`
    what the mean is above what was expected, in its own unit. Arrays are of shape [quantities].
    """

    total: float
    threshold: float
    common: float
    statistic: Floats
    surprise: Floats
    difference: Floats

    @property
    def alarms(self) -> bool:
        """Whether the evidence passes the threshold."""
        return self.total >= self.threshold


def fresh(baseline: Baseline) -> State:
    """Return the state before the first window."""
    count = len(baseline.quantities)
    bets = np.zeros((len(BETS), count))
    return State(up=bets, down=bets, common=np.zeros(len(BETS)), error=np.zeros(count))


def restarted(state: State) -> State:
    """Return the state with all evidence spent, which follows an alarm; what the last window showed stays."""
    return replace(
        state, up=np.zeros_like(state.up), down=np.zeros_like(state.down), common=np.zeros_like(state.common), since=0
    )


def step(baseline: Baseline, state: State, window: Window) -> tuple[State, Evidence]:
    """Judge one window, later than the one before; of windows that were left out only the memory is lost."""
    middle = (window.start + window.end) / 2
    difference = window.sums / window.rows - baseline.expected(middle)
    carried, spread = _carried(baseline, state, middle, window.rows)
    surprise = (difference - carried * state.error) / spread
    allowed = (baseline.tolerance + baseline.unsure) * (1 - carried) / spread
    normal, least = as_normal(surprise, baseline.tails), as_normal(allowed, baseline.tails)
    up, down = bet(normal - least), bet(-normal - least)
    if baseline.rare.any():
        up[:, baseline.rare], down[:, baseline.rare] = _rare(baseline, window), 0.0
    up, down = (np.minimum((before + 1) * bet, _LARGEST) for before, bet in ((state.up, up), (state.down, down)))
    common = np.minimum((state.common + 1) * _all_together(baseline, surprise, allowed), _LARGEST)
    statistic = 0.5 * (up.mean(axis=0) + down.mean(axis=0))
    after = State(up=up, down=down, common=common, error=difference, at=middle, since=state.since + 1)
    together = float(common.mean())
    return after, Evidence(
        total=float(baseline.weight @ statistic) + COMMON * together,
        threshold=baseline.threshold,
        common=together,
        statistic=statistic,
        surprise=surprise,
        difference=difference,
    )


def ranked_features(baseline: Baseline, evidence: Evidence) -> list[tuple[str, float]]:
    """Return the features with their part of the evidence, the largest first; of a pair each gets half of it."""
    parts = dict[str, float]()
    for quantity, part in zip(baseline.quantities, baseline.weight * evidence.statistic, strict=True):
        for name in quantity.features:
            parts[name] = max(parts.get(name, 0.0), float(part) / len(quantity.features))
    return sorted(parts.items(), key=lambda each: -each[1])


def _carried(baseline: Baseline, state: State, middle: float, rows: int) -> tuple[Floats, Floats]:
    """Return what is left of the last error after the time since, and the spread of what is new, at so many rows."""
    gap = math.inf if state.at is None else max(1.0, (middle - state.at) / baseline.interval)
    phi = baseline.phi
    carried = phi**gap if gap < math.inf else np.zeros_like(phi)
    grown = (1 - carried**2) / (1 - phi**2)
    return carried, baseline.spread * np.sqrt(grown * max(1.0, baseline.rows / rows))


def as_normal(value: Floats, tails: Floats) -> Floats:
    """Return the normal value of about the same quantile as a t variable's `value` (Wallace, 1959)."""
    found: Floats = np.sign(value) * np.sqrt(tails * np.log1p(value * value / tails))
    return found


def bet(value: Floats) -> Floats:
    """Return what each bet makes of standard normal values, shape [bets, values]: at most 1 on average."""
    bets = BETS[:, None]
    found: Floats = np.exp(bets * np.clip(value, -_FURTHEST, _FURTHEST) - bets**2 / 2 * _PRICE)
    return found


def _rare(baseline: Baseline, window: Window) -> Floats:
    """Return the likelihood ratios of higher shares for rare counts, shape [bets, rare counts]."""
    at = baseline.rare
    usual = np.minimum(baseline.ceiling[at] + baseline.tolerance[at], 0.3)
    count, rows = window.sums[at] / baseline.clumping[at], window.rows / baseline.clumping[at]
    higher = np.minimum(RATIOS[:, None] * usual, 0.9)
    ratio = count * np.log(higher / usual) + (rows - count) * (np.log1p(-higher) - np.log1p(-usual))
    found: Floats = np.exp(np.clip(ratio, -60, 60))
    return found


def _all_together(baseline: Baseline, surprise: Floats, allowed: Floats) -> Floats:
    """Return the bets on all locations at once, shape [bets]: many small changes add up.

    A surprise that is off by as much as is `allowed` (both in spreads) has a mean square of ``1 + allowed^2``.
    """
    if not len(baseline.locations):
        return np.zeros(len(BETS))
    middle, spread = baseline.common
    usual = 1 + float((allowed[baseline.locations] ** 2).mean())
    value = np.log(max(float((surprise[baseline.locations] ** 2).mean()) / usual, 1e-9))
    return bet(np.array([0.9 * ((value - middle) / spread - 0.5)]))[:, 0]
