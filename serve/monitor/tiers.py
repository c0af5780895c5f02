"""Tiers of alarms: how many rows a change can concern at most, and so how much money an hour is at stake.

A count that moved concerns its difference of the rows. A mean, a spread or a dependence that moved concerns at most as
many rows as two distributions differ in (their total variation distance): exact for a shift of a normal score, by
Pinsker's inequality else. Whether a row that differs is answered wrongly is not known, so this is an upper bound.
"""

import math

from .baseline import Baseline
from .detect import Evidence
from .diagnosis import carrying
from .quantities import COUNTED, What


def harmed(baseline: Baseline, evidence: Evidence, faults: tuple[str, ...] = ()) -> float:
    """Return the fraction of rows that a change concerns at most; all where a column is absent or unreadable."""
    if faults:
        return 1.0
    shares = [
        differing(baseline.quantities[at].what, float(evidence.difference[at])) for at in carrying(baseline, evidence)
    ]
    return max(shares, default=0.0)


def differing(what: What, change: float) -> float:
    """Return the fraction of rows in which a mean that moved by `change` can differ from the reference."""
    if what in COUNTED:
        return min(1.0, abs(change))
    if what == "location":
        return math.erf(abs(change) / (2 * math.sqrt(2)))
    if what == "scale":
        variance = max(1e-9, 1 + change)
        divergence = (variance - 1 - math.log(variance)) / 2
    else:  # of a pair: from independence to that correlation
        divergence = -math.log1p(-(min(abs(change), 0.999) ** 2)) / 2
    return min(1.0, math.sqrt(divergence / 2))
