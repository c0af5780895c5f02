"""Ranking of candidates that were compared whole: the winner, and which of them deserve a second timing. Pure.

Candidate 0 is fp32 in ONNX Runtime, against which all others were timed: its ratio is 1, and it is within every floor.
A faster time is a gain only beyond `noise`, by which two timings of one model differ on this machine; within it, the
more accurate candidate is preferred.
"""

import math
from collections.abc import Sequence

from ..recipe.space import Objective
from .search import Candidate

SECOND_TIMINGS = 4
"""The most candidates that are timed again: the fastest of many timings is biased towards luck."""


def winner(candidates: Sequence[Candidate], noise: float) -> Candidate:
    """Return the candidate to serve: the fastest that keeps the floor and gains beyond the noise; else fp32.

    Of those that the noise does not tell from the fastest, the one with the best quality, then the greatest signal to
    noise, then the first.
    """
    able = [each for each in candidates[1:] if gains(each, noise)]
    if not able:
        return candidates[0]
    best = min(_ratio(each) for each in able)
    equal = [each for each in able if _ratio(each) <= best * (1 + noise)]
    return min(equal, key=lambda each: (-_value(each, "quality"), -_value(each, "snr"), each.number))


def gains(candidate: Candidate, noise: float) -> bool:
    """Tell whether a candidate keeps the floor and is faster than fp32, by more than the noise and its own interval."""
    if candidate.failure or candidate.violation > 0 or candidate.interval is None:
        return False
    ratio = _ratio(candidate)
    return math.isfinite(ratio) and ratio * (1 + noise) < 1 and candidate.interval[1] < 1


def contenders(candidates: Sequence[Candidate], noise: float) -> list[Candidate]:
    """Return the candidates that may be the fastest by their intervals, fastest first, at most `SECOND_TIMINGS`."""
    able = sorted((each for each in candidates[1:] if gains(each, noise)), key=_ratio)
    reach = min((each.interval[1] for each in able if each.interval is not None), default=0.0) * (1 + noise)
    near = [each for each in able if each.interval is not None and each.interval[0] <= reach]
    return near[:SECOND_TIMINGS]


def _ratio(candidate: Candidate) -> float:
    value = candidate.values.get("latency")
    return math.inf if value is None else value


def _value(candidate: Candidate, name: Objective) -> float:
    """Return a figure of which more is better; minus infinity where it is missing."""
    value = candidate.values.get(name)
    return -math.inf if value is None else value
