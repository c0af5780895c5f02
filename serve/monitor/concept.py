"""Concept drift: evidence from outcomes that answers went wrong more often than their inputs explain, by segment.

Each outcome bets on a higher error rate than is allowed for its row; no bet is worth more than 1 on average while the
rate is at most that. Each segment and bet has a Shiryaev-Roberts statistic ``R = (R + w) * L``, where w is the time
that went by, in windows. A weighted mean of all passes N after N windows on average at least, however the outcomes were
batched. Groups are also held against each other: given all errors of a window, their number
in one group follows Fisher's noncentral hypergeometric distribution. Pure.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp

from .expectation import Expectation, allowed
from .quantities import Floats
from .segments import Masks, Segment

RATIOS = np.array([1.25, 1.5, 2.0, 3.0])  # of the odds of errors, that bets expect over what is allowed
RISES = np.array([0.05, 0.1, 0.2])  # of the error rate, which shows first where the model was sure
_SURE = 0.98  # highest error rate that a bet expects
GAPS = 0.25  # the budget's part for groups held against each other, where there are any
_LARGEST = 1e30


@dataclass(frozen=True, kw_only=True)
class ErrorState:
    """The statistics after the last outcomes: `errors` and `gaps` of shape [bets, segments].

    `labels`, `wrong` and `expected` count outcomes, errors and expected errors of each segment since the last alarm.
    """

    errors: Floats
    gaps: Floats
    labels: Floats
    wrong: Floats
    expected: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is no news: a rise of the error rate by `tolerance`, of a group's beyond the others' by `gap`.

    `elapsed` is how many windows went by since the outcomes before, which earns the evidence its false alarms.
    """

    tolerance: float
    gap: float
    elapsed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifting:
    """A segment whose errors, or whose distance to the rest (`gap`), carry evidence; `part` is its share of it."""

    segment: Segment
    gap: bool
    part: float
    labels: int
    observed: float
    expected: float

    def __str__(self) -> str:
        """Return it as reports print it."""
        what = "its distance to the others grew; error" if self.gap else "error"
        return f"{self.segment}: {what} {self.observed:.1%} of {self.labels} outcomes, {self.expected:.1%} expected"


def fresh(expected: Expectation) -> ErrorState:
    """Return the state before the first outcome."""
    none = np.zeros(len(expected.segments))
    errors, gaps = (np.zeros((bets, len(none))) for bets in (len(RATIOS) + len(RISES), len(RATIOS)))
    return ErrorState(errors=errors, gaps=gaps, labels=none, wrong=none, expected=none)


def step(
    expected: Expectation, state: ErrorState, correct: Floats, chance: Floats, masks: Masks, bounds: Bounds
) -> ErrorState:
    """Take in the outcomes of one window: which were right, their chance, [rows]; `masks` is [segments, rows]."""
    wrong = 1 - correct
    counts = masks @ wrong
    errors = _grown(state.errors, _bets(allowed(expected, chance, bounds.tolerance), wrong, masks), bounds.elapsed)
    return ErrorState(
        errors=errors,
        gaps=_grown(state.gaps, _gaps(expected, wrong, chance, masks, bounds), bounds.elapsed),
        labels=state.labels + masks.sum(axis=1),
        wrong=state.wrong + counts,
        expected=state.expected + masks @ (1 - chance),
    )


def total(expected: Expectation, state: ErrorState) -> float:
    """Return the evidence of all segments together, to be held against the threshold."""
    parts = _parts(expected, state)
    return float(sum(float(each.sum()) for each in parts))


def drifting(expected: Expectation, state: ErrorState, *, most: int = 5) -> tuple[Drifting, ...]:
    """Return what carries the evidence, the largest part first: all within a tenth of the largest."""
    errors, gaps = _parts(expected, state)
    found = [
        Drifting(
            segment=segment,
            gap=gap,
            part=float(part[at]),
            labels=round(float(state.labels[at])),
            observed=float(state.wrong[at] / max(state.labels[at], 1.0)),
            expected=float(state.expected[at] / max(state.labels[at], 1.0)),
        )
        for gap, part in ((False, errors), (True, gaps))
        for at, segment in enumerate(expected.segments)
    ]
    found.sort(key=lambda each: -each.part)
    return tuple(each for each in found[:most] if each.part > 0 and each.part >= 0.1 * found[0].part)


def _grown(statistic: Floats, log: Floats, elapsed: float) -> Floats:
    found: Floats = np.minimum((statistic + elapsed) * np.exp(np.clip(log, -60, 60)), _LARGEST)
    return found


def _bets(rates: Floats, wrong: Floats, masks: Masks) -> Floats:
    """Return the log likelihood ratios of each bet on a higher error rate than `rates`, shape [bets, segments]."""
    of_ratios = [(masks * (wrong * np.log(ratio) - np.log1p(rates * (ratio - 1)))).sum(axis=1) for ratio in RATIOS]
    of_rises = []
    for rise in RISES:
        higher = np.maximum(np.minimum(rates + rise, _SURE), rates)
        right = np.log1p(-higher) - np.log1p(-rates)
        of_rises.append((masks * (wrong * (np.log(higher / rates) - right) + right)).sum(axis=1))
    return np.stack(of_ratios + of_rises)


def _parts(expected: Expectation, state: ErrorState) -> tuple[Floats, Floats]:
    """Return each segment's part of the evidence: of its errors, and of its distance to the others."""
    weight = np.array([each.weight for each in expected.segments])
    group = np.array([each.group for each in expected.segments])
    share = GAPS if group.any() else 0.0
    fair = np.where(group, share / max(int(group.sum()), 1), 0.0)
    return (1 - share) * weight * state.errors.mean(axis=0), fair * state.gaps.mean(axis=0)


def _gaps(expected: Expectation, wrong: Floats, chance: Floats, masks: Masks, bounds: Bounds) -> Floats:
    """Return the log likelihood ratios of a group's errors among all errors of the window, shape [bets, segments]."""
    found = np.zeros((len(RATIOS), len(expected.segments)))
    for at, segment in enumerate(expected.segments):
        mine = masks[at]
        sizes = int(mine.sum()), int((~mine).sum())
        if not segment.group or not sizes[0] or not sizes[1] or not wrong.any():
            continue
        rates = [float(np.clip((1 - chance[part]).mean(), 0.01, 0.9)) for part in (mine, ~mine)]
        upper = min(rates[0] + float(expected.unsure[at]) + bounds.gap, 0.95)
        usual = _odds(upper) / _odds(rates[1])
        errors = int(wrong[mine].sum()), int(wrong.sum())
        weights = [_normalizer(sizes, errors[1], float(np.log(usual * bet))) for bet in (1.0, *RATIOS)]
        found[:, at] = errors[0] * np.log(RATIOS) + weights[0] - np.array(weights[1:])
    return found


def _odds(rate: float) -> float:
    return rate / (1 - rate)


def _normalizer(sizes: tuple[int, int], errors: int, log_ratio: float) -> float:
    """Return the log normalizer of Fisher's noncentral hypergeometric distribution."""
    group, rest = sizes
    count = np.arange(max(0, errors - rest), min(group, errors) + 1)
    ways = _log_choose(group, count) + _log_choose(rest, errors - count)
    return float(logsumexp(ways + count * log_ratio))


def _log_choose(total_: int, some: np.ndarray[Any, Any]) -> Floats:
    found: Floats = gammaln(total_ + 1) - gammaln(some + 1) - gammaln(total_ - some + 1)
    return found
