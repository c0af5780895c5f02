"""Advice on an INCONCLUSIVE finding: more pairs, a quieter machine, more samples, longer slots, or nothing.

Pure, and the only place that says so: the reason of a finding and the advice after a verdict are both made from it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from .. import stats
from ..verdict import Finding

Means = Literal["pairs", "noise", "margin", "samples", "slots"]
NEAR = 0.5  # of the margin: an effect within so much of it, to either side, is close to it
MOST = 400  # pairs that are ever counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """The means, and how many pairs in all where more of them would do (0 otherwise).

    `noise`: no number of pairs, since slots differ too much. `margin`: no number of pairs, since the effect is close to
    the margin. `samples`: more evaluation samples. `slots`: longer slots.
    """

    means: Means
    pairs: int = 0
    near: bool = False


def settling(finding: Finding) -> Settling:
    """Return what would settle a finding."""
    if finding.method == "growth":
        return Settling(means="slots")
    if finding.unit in ("score", "share") or finding.metric == "quality":
        return Settling(means="margin" if near(finding) and _exact_enough(finding) else "samples", near=near(finding))
    needed = _for_level(finding) if finding.method == "level" else finding.pairs_needed
    if needed is None or needed > MOST:
        return Settling(means="margin" if near(finding) else "noise", near=near(finding))
    return Settling(means="pairs", pairs=max(needed, _next(finding.n)), near=near(finding))


def share_of_margin(finding: Finding) -> float | None:
    """Return how much of its margin the effect takes: 0 unchanged, 1 at the margin, negative where it is better."""
    if finding.ratio is not None and finding.bound and finding.bound > 0 and finding.bound != 1 and finding.ratio > 0:
        return math.log(finding.ratio) / math.log(finding.bound)
    if finding.difference is not None and finding.bound:
        return finding.difference / finding.bound
    return None


def near(finding: Finding) -> bool:
    """Return whether the effect is close to the margin, or a value close to its limit."""
    share = share_of_margin(finding)
    if share is not None:
        return abs(1 - share) < NEAR
    if finding.candidate is None or not finding.bound or finding.candidate <= 0:
        return False
    return abs(math.log(finding.candidate / finding.bound)) < math.log1p(NEAR * 0.2)


def pairs_to_settle(sd: float, effect: float, margin: float, *, alpha: float) -> int | None:
    """The pairs that would show an effect of this size to lie on its side of the margin (log scale); None beyond 400.

    An improvement is taken for no change: what it was by luck will not stay.
    """
    return stats.pairs_needed(sd, abs(margin - max(effect, 0.0)), alpha=alpha, most=MOST)


def _for_level(finding: Finding) -> int | None:
    """The slots after which the interval of a value would no longer reach its limit, if it stays where it is."""
    if finding.candidate is None or finding.interval is None or not finding.bound or finding.candidate <= 0:
        return None
    above = finding.bound > finding.candidate
    reach = abs(math.log(max(finding.interval[1 if above else 0], 1e-300) / finding.candidate))
    distance = abs(math.log(finding.bound / finding.candidate))
    if not distance or not math.isfinite(reach):
        return None
    return math.ceil(finding.n * (reach / distance) ** 2 / 2) * 2


def _exact_enough(finding: Finding) -> bool:
    """Return whether the sample could have certified the margin at no effect."""
    return finding.certifiable is not None and finding.certifiable <= finding.margin


def _next(n: int) -> int:
    """Half as many pairs again, even."""
    return n + max(2, math.ceil(n / 4) * 2)
