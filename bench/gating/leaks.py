"""The limit on growth of memory: what the candidate's slots say together about memory that goes on growing. Pure.

Each slot is a server of its own, so the growths of several can be compared with each other; and each has noise within,
which need not differ between slots: a collector that runs every thousand requests does so in all of them. A bound holds
only if both say so. PASS needs the upper bound of every later part of the run within the limit, FAIL the lower bound of
one beyond it; anything else is INCONCLUSIVE, so that a leak which a short run cannot show is never passed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seatrial.optimize.units import format_value

from ..measuring.growth import Part
from ..measuring.usage import parts_of
from ..verdict import Finding
from .pairs import SlotRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLevel:
    """The mean growth of the slots over one part of the run, its one-sided bounds, and p against "within the limit"."""

    begin: float
    mean: float
    lower: float
    upper: float
    p_above: float


def leak_finding(blank: Finding, base: Sequence[SlotRecord], candidate: Sequence[SlotRecord], alpha: float) -> Finding:
    """Return what the slots show about a limit of `blank.margin` bytes per 1,000 requests."""
    parts = [parts_of(record.memory) for record in candidate]
    if len(parts) < 2 or not all(parts):
        return replace(blank, reason="leak: the growth of memory was not recorded in every slot.")
    levels = [_level(column, blank.margin, alpha) for column in zip(*parts, strict=True)]
    worst = max(levels, key=lambda each: each.upper)
    sure = max(levels, key=lambda each: each.lower)
    passed = worst.upper <= blank.margin
    shown = worst if passed or sure.lower <= blank.margin else sure
    before = [max(part.slope for part in found) for found in map(_of, base) if found]
    return replace(
        blank,
        base=float(np.mean(before)) if before else None,
        candidate=shown.mean,
        interval=(shown.lower, shown.upper),
        bound=blank.margin,
        p=min(1.0, len(levels) * min(each.p_above for each in levels)),
        n=len(parts),
        outcome="PASS" if passed else "INCONCLUSIVE",
        reason=_reason(blank.margin, shown, passed=passed),
        method="growth",
    )


def _of(record: SlotRecord) -> tuple[Part, ...]:
    return parts_of(record.memory)


def _level(parts: Sequence[Part], limit: float, alpha: float) -> PartLevel:
    """One part over all slots: the wider of the interval between slots and the typical one within a slot."""
    from scipy import stats

    slopes, n = np.array([part.slope for part in parts]), len(parts)
    mean, between = float(slopes.mean()), float(slopes.std(ddof=1)) / math.sqrt(n)
    within, freedom = (float(np.median([getattr(part, name) for part in parts])) for name in ("error", "freedom"))
    ways = ((between, n - 1.0), (within, freedom))
    reach = max(float(stats.t.ppf(1 - alpha, df)) * error for error, df in ways)
    p = max(float(stats.t.sf((mean - limit) / error, df)) if error else float(mean <= limit) for error, df in ways)
    collected = sum(part.collected for part in parts) * 2 > n  # the next collection may take the rise back
    return PartLevel(
        begin=parts[0].begin,
        mean=mean,
        lower=-math.inf if collected and parts[0].begin > 0.5 else mean - reach,
        upper=mean + reach,
        p_above=1.0 if collected and parts[0].begin > 0.5 else p,
    )


def _reason(limit: float, shown: PartLevel, *, passed: bool) -> str:
    said = (
        f"leak: over the last {1 - shown.begin:.0%} of the requests memory grew by "
        f"{format_value(shown.mean, 'B/1k')}, upper bound {format_value(shown.upper, 'B/1k')}; allowed at most "
        f"{format_value(limit, 'B/1k')}."
    )
    return said if passed else f"{said} Longer slots (design.seconds) measure growth more precisely."
