"""The share over the objective as a rising function of the rate: isotonic fit, its crossing, and how sure that is.

Pure. The fit assumes only that more traffic is never faster; scipy's pool-adjacent-violators does it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
import numpy.typing as npt

from .probe import Probe
from .slo import Slo

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int_]
DRAWS = 500  # of the bootstrap; chosen: the ends of a 97 % interval then rest on 7 draws each
LEVEL = 0.97
"""Level of the bootstrap. A nominal 97 % interval covered the truth in 77 of 80 simulated searches, a 95 % one in 74:
few probes understate the uncertainty.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One probe on the curve: its rate, arrivals, how many of them missed, and how many independent ones they are."""

    rate: float
    counted: int
    over: int
    effective: float


def points(probes: Sequence[Probe]) -> list[Point]:
    """The probes that say something about the server, in order of rate."""
    usable = [probe for probe in probes if not probe.faults and probe.effective >= 1]
    return sorted(
        (Point(rate=p.rate, counted=p.counted, over=p.over, effective=p.effective) for p in usable),
        key=lambda each: each.rate,
    )


def fit(curve: Sequence[Point], slo: Slo) -> tuple[Floats, Floats, Floats, Floats]:
    """Isotonic regression of logit(share) on ln rate: rates, fitted logits, pooled logits, weights; one per rate.

    Shares are ``(misses + budget) / (n + 1)``: one request more, that misses as often as is allowed. So no logit is
    infinite, and a rate of which little is known lies near the budget and moves nothing across it. A logit weighs
    ``n s (1 - s)``, the inverse of its variance.
    """
    from scipy.optimize import isotonic_regression

    rates = np.array(sorted({point.rate for point in curve}))
    at = np.searchsorted(rates, [point.rate for point in curve])
    counted = np.bincount(at, [point.counted for point in curve])
    effective = counted**2 / np.bincount(at, [point.counted**2 / point.effective for point in curve])
    misses = np.bincount(at, [point.over for point in curve]) / counted * effective
    share = (misses + slo.budget) / (effective + 1)
    logits, weights = np.log(share / (1 - share)), effective * share * (1 - share)
    return rates, np.asarray(isotonic_regression(logits, weights=weights).x, dtype=np.float64), logits, weights


def crossing(curve: Sequence[Point], slo: Slo) -> float | None:
    """The rate at which the fitted share reaches the objective's budget, None where it stays on one side.

    Between two rates the logit is taken as straight in ln rate.
    """
    if len({point.rate for point in curve}) < 2:
        return None
    rates, fitted, _, _ = fit(curve, slo)
    target = log(slo.budget / (1 - slo.budget))
    above = int(np.searchsorted(fitted, target, "right"))
    if above in (0, len(rates)):
        return None
    left, right = fitted[above - 1], fitted[above]
    part = (target - left) / (right - left)
    return float(exp(np.log(rates[above - 1]) + part * np.log(rates[above] / rates[above - 1])))


def interval(probes: Sequence[Probe], slo: Slo, *, seed: int, level: float = LEVEL) -> tuple[float, float] | None:
    """A 95 % interval of the crossing by a block bootstrap over the probes.

    Each draw takes as many probes at every rate as there were, and of each probe as many stretches of its time, so both
    runs that differ and requests that are slow together widen it. Draws without a crossing are left out; None where
    they are more than half.
    """
    usable = sorted((p for p in probes if not p.faults and p.effective >= 1), key=lambda each: each.rate)
    random, found = np.random.default_rng(seed), []
    by_rate: dict[float, list[tuple[Probe, Counts]]] = {}
    for probe in usable:
        by_rate.setdefault(probe.rate, []).append((probe, np.array(probe.blocks)))
    for _ in range(DRAWS):
        drawn = []
        for group in by_rate.values():
            for index in random.integers(0, len(group), len(group)):
                probe, blocks = group[index]
                drawn.append(_redrawn(probe, blocks, random))
        if (rate := crossing(drawn, slo)) is not None:
            found.append(rate)
    if len(found) < DRAWS / 2:
        return None
    tail = (1 - level) / 2
    return float(np.quantile(found, tail)), float(np.quantile(found, 1 - tail))


def misfit(curve: Sequence[Point], slo: Slo) -> tuple[float, float]:
    """The rate that lies farthest from the rising fit, and how far in standard errors.

    Beyond 3 the share does not rise with the rate: the server behaves differently at the same or a lower rate, as with
    a batcher that has two regimes, or one that has not recovered.
    """
    rates, fitted, logits, weights = fit(curve, slo)
    away = np.abs(logits - fitted) * np.sqrt(weights)
    return float(rates[np.argmax(away)]), float(np.max(away))


def _redrawn(probe: Probe, blocks: Counts, random: np.random.Generator) -> Point:
    """The probe with as many of its `blocks` (n rows: arrivals, misses) as it has, drawn with replacement."""
    counted, over = blocks.take(random.integers(0, len(blocks), len(blocks)), axis=0).sum(axis=0)
    return Point(rate=probe.rate, counted=int(counted), over=int(over), effective=probe.effective)
