"""Forecast of a gate before its first slot: certifiable margins, power, pairs needed, minutes.

Pure. Computed from the spread that the archive of trials knows for this class of machine (its upper 80 % bound, since a
spread from few pairs is itself uncertain), or from stated assumptions where there is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import stats
from ..budget import Budget, Limit
from .findings import floor_margin
from .looks import looks_of, spent
from .noise import Noise, Trial

_OVERHEAD = 3.5  # seconds of a slot that the design does not name: server, load generator twice, stop


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitForecast:
    """Forecast of a design for one relative limit; powers are probabilities, margins relative.

    `certifiable` is the smallest regression that the whole design rules out with 90 % power, `passes` the chance that
    an unchanged candidate is certified within the margin, `blocks` the chance that twice the margin fails,
    `pairs_needed` how many pairs certify the margin (None: more than 400).
    """

    metric: str
    margin: float
    gating: bool
    sd: float
    assumed: bool
    certifiable: float
    passes: float
    blocks: float
    pairs_needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The forecast of a gate: per limit, and how long it takes at its first and at its last look."""

    limits: tuple[LimitForecast, ...]
    looks: tuple[int, ...]
    seconds: tuple[float, ...]
    source: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the limits that this design cannot certify, as sentences."""
        return tuple(
            f"cannot certify {each.metric} to {each.margin:.1%}: {self.looks[-1]} pairs can certify "
            f"{each.certifiable:.1%}, {_needs(each)}"
            for each in self.limits
            if each.gating and each.certifiable > each.margin
        )


def forecast(budget: Budget, trials: Sequence[Trial], model: str, format_: str) -> Forecast:
    """Forecast a gate of that budget on the machine whose trials these are.

    Trials of the same model count; where there are none, those of any model of the same format.
    """
    same = [trial for trial in trials if trial.model == model]
    other = [trial for trial in trials if trial.format == format_]
    used = same or other
    looks = looks_of(budget.design)
    slot = _slot_seconds(budget, used)
    relative = [limit for limit in budget.limits if limit.max_regression and limit.of.assumed_noise]
    family = max(1, sum(limit.gating for limit in relative))
    return Forecast(
        limits=tuple(_limit(budget, limit, used, looks, family) for limit in relative),
        looks=looks,
        seconds=tuple(2 * look * slot for look in looks),
        source=_source(same, other, model, format_),
    )


def _source(same: Sequence[Trial], other: Sequence[Trial], model: str, format_: str) -> str:
    if same:
        return f"noise of {len(same)} trial{'s' * (len(same) > 1)} of {model} on this class of machine"
    if other:
        return f"noise of {len(other)} trial{'s' * (len(other) > 1)} of other {format_} models on this class of machine"
    return "assumed noise of a shared machine; measure it with seatrial aa"


def _limit(budget: Budget, limit: Limit, trials: Sequence[Trial], looks: tuple[int, ...], family: int) -> LimitForecast:
    """Forecast the last look, at its fraction of the error rates; earlier looks only add power."""
    noise = [trial.noise[limit.metric] for trial in trials if limit.metric in trial.noise]
    sd = _sd(noise) if noise else limit.of.assumed_noise or 0.0
    last, n = len(looks) - 1, looks[-1]
    alpha_pass = spent(looks, last, budget.alpha_pass)
    alpha_fail = spent(looks, last, budget.alpha_fail) / family
    typical = noise[-1].typical if noise else 0.0
    margin = max(math.log1p(limit.max_regression or 0.0), floor_margin(limit, typical) if typical else 0.0)
    return LimitForecast(
        metric=limit.metric,
        margin=math.expm1(margin),
        gating=limit.gating,
        sd=sd,
        assumed=not noise,
        certifiable=stats.certifiable(n, sd, alpha=alpha_pass),
        passes=stats.pass_power(n, sd, margin, alpha=alpha_pass),
        blocks=stats.fail_power(n, sd, margin, alpha=alpha_fail, effect=math.log1p(2 * math.expm1(margin))),
        pairs_needed=stats.pairs_needed(sd, margin, alpha=alpha_pass),
    )


def _sd(noise: Sequence[Noise]) -> float:
    return stats.upper_sd(*stats.pooled_sd([(each.sd, each.df) for each in noise]))


def _slot_seconds(budget: Budget, trials: Sequence[Trial]) -> float:
    """A slot's time from trials with the same load, else from what the design asks for."""
    design = budget.design
    known = [t.slot_seconds for t in trials if (t.rate, t.seconds) == (design.rate, design.seconds) and t.slot_seconds]
    return known[-1] if known else _OVERHEAD + design.seconds + design.saturation_seconds


def _needs(limit: LimitForecast) -> str:
    return f"{limit.pairs_needed} are needed" if limit.pairs_needed else "and even 400 are not enough"
