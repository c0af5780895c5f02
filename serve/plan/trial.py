"""Trials of a search as values: pairs of measurements, the gain with its interval, and which setting stands best.

Pure. A trial measures a setting beside the best one so far, in turning order, so that what the machine does to one it
does to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

from seatrial.optimize.record import Record

from .setting import Setting

SCHEMA = 1
LEVEL = 0.9  # of the interval of a gain; chosen: each end is a one-sided test at 5 %
PRIOR_SD, PRIOR_DF = 0.08, 2
"""Standard deviation of the log ratio of one pair before any measurement: ramps of one setting on two shared cores."""
MODEL_SD, MODEL_DF = 0.15, 4
"""Standard deviation of the log gain beyond the model's prediction, before any trial shows the model's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Rates (requests per second) that two settings sustained one right after the other; `swapped`: best went first."""

    candidate: float
    best: float
    swapped: bool

    @property
    def gain(self) -> float:
        """Log of the candidate's rate over the best's."""
        return log(self.candidate / self.best)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record, schema=SCHEMA, what="the trial"):
    """A setting beside the best one until then; `predicted` is the log gain that the model expected.

    The first trial holds the plan beside itself: the noise of a pair, and what it sustains.
    """

    number: int
    setting: Setting
    against: Setting
    predicted: float
    pairs: tuple[Pair, ...]

    @property
    def gain(self) -> float:
        """Mean log gain over the pairs."""
        return sum(pair.gain for pair in self.pairs) / len(self.pairs)

    @property
    def itself(self) -> bool:
        """Return whether both sides were the same setting."""
        return self.setting == self.against


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A trial with the 90 % interval of its gain (log scale), and whether it became the best.

    `level` is the log of what it sustained over what the start does: its own gain and those on the way to its opponent.
    """

    trial: Trial
    low: float
    high: float
    level: float
    better: bool

    def to_json(self) -> dict[str, Any]:
        """JSON values; gains as ratios."""
        return self.trial.to_json() | {
            "gain": exp(self.trial.gain),
            "interval": [exp(self.low), exp(self.high)],
            "better": self.better,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """State of a search: its judged trials, the best setting, and the errors of model and pairs (log scale)."""

    best: Setting
    judged: tuple[Judged, ...]
    pair_sd: float
    pair_df: int
    model_sd: float
    model_df: int
    level: float

    @property
    def tried(self) -> frozenset[Setting]:
        """Settings that need no trial any more."""
        return frozenset({self.best, *(each.trial.setting for each in self.judged)})


def standing(start: Setting, trials: Sequence[Trial]) -> Standing:
    """Judge all trials in order, with the noise that all of them together show.

    A setting becomes the best where its interval lies above no gain. `level` is the log of what the best sustains over
    what the start does, by the gains on the way.
    """
    sd, df = _pair_noise(trials)
    best, level, judged = start, 0.0, []
    for trial in trials:
        reach = _t((1 + LEVEL) / 2, df) * sd / sqrt(len(trial.pairs))
        better = not trial.itself and trial.gain - reach > 0
        low, high, reached = trial.gain - reach, trial.gain + reach, level + trial.gain
        judged.append(Judged(trial=trial, low=low, high=high, level=reached, better=better))
        if better:
            best, level = trial.setting, reached
    off = [trial.gain - trial.predicted for trial in trials if not trial.itself]
    model_df = MODEL_DF + len(off)
    return Standing(
        best=best,
        judged=tuple(judged),
        pair_sd=sd,
        pair_df=df,
        model_sd=sqrt((MODEL_DF * MODEL_SD**2 + sum(each**2 for each in off)) / model_df),
        model_df=model_df,
        level=level,
    )


def most_together(state: Standing, trials: Sequence[Trial]) -> float:
    """The log gain over their opponents that all pairs of these trials together leave possible, at 95 %."""
    gains = [pair.gain for trial in trials for pair in trial.pairs]
    return sum(gains) / len(gains) + _t((1 + LEVEL) / 2, state.pair_df) * state.pair_sd / sqrt(len(gains))


def undecided(state: Standing, pairs: Sequence[Pair]) -> bool:
    """Return whether another pair is worthwhile: the candidate leads, but not yet credibly.

    Looking after every pair makes the interval of a winner a little too short; it is held against the best again
    only by settings that follow, so a search may end with one that is no better, seldom with one that is worse.
    """
    if not pairs:
        return True
    gain = sum(pair.gain for pair in pairs) / len(pairs)
    return 0 < gain <= _t((1 + LEVEL) / 2, state.pair_df) * state.pair_sd / sqrt(len(pairs))


def credible(state: Standing, predicted: float, level: float = 0.95) -> float:
    """The log gain over the best that an untried setting may have, by the model and how far it errs."""
    return predicted + _t(level, state.model_df) * state.model_sd


def _pair_noise(trials: Sequence[Trial]) -> tuple[float, int]:
    """Standard deviation of a pair's log ratio about its trial's mean, pooled, and its degrees of freedom."""
    squares, df = PRIOR_DF * PRIOR_SD**2, PRIOR_DF
    for trial in trials:
        mean = 0.0 if trial.itself else trial.gain
        squares += sum((pair.gain - mean) ** 2 for pair in trial.pairs)
        df += len(trial.pairs) - (0 if trial.itself else 1)
    return sqrt(squares / df), df


def _t(level: float, df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, level))
