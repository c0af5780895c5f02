"""Diagnosis: which kind of change an alarm looks like, and what to do about it.

Read from the pattern of the quantities that moved: what no user does to the data (values out of range, missing,
unknown, another unit, dependences that broke while each feature stayed) points at the pipeline that feeds the model. A
shift of means and shares may be the world's; whether it harms is for labels to say, so it is never advice to retrain.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .attribution import Attributed
from .baseline import Baseline
from .detect import Evidence
from .quantities import COUNTED

Kind = Literal["pipeline", "data", "none", "covariate", "label", "concept", "unknown", "business"]
Advice = Literal["patch", "label", "rollback", "retrain", "wait", "unknown"]
_PART = 0.2  # of the alarm's evidence, on a log scale, from which a quantity counts as having moved
_BROKEN = ("missing", "outside", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The likely kind of a change, the advice that follows, the features to look at first, and the reasons.

    ``pipeline``: patch what feeds the model. ``data``: the inputs moved; label a random sample to learn whether the
    model still holds. The others rest on outcomes (`attribution`), ``business`` on a figure that fell. `against` is
    what speaks against the kind.
    """

    kind: Kind
    advice: Advice
    features: tuple[str, ...]
    reasons: tuple[str, ...]
    against: tuple[str, ...] = ()


def diagnose(baseline: Baseline, evidence: Evidence, faults: tuple[str, ...] = ()) -> Cause:
    """Name the kind of a change from what moved; `faults` are columns that were absent or of another type."""
    moved = carrying(baseline, evidence)
    features = _features(baseline, moved)
    broken = [at for at in moved if baseline.quantities[at].what in _BROKEN and evidence.difference[at] > 0]
    marginal = [at for at in moved if baseline.quantities[at].what in ("location", "scale", "share")]
    pairs = [at for at in moved if baseline.quantities[at].what == "pair"]
    reasons = [*faults, *(_described(baseline, evidence, at) for at in broken)]
    if pairs and not marginal:
        reasons += [f"{_described(baseline, evidence, at)}, while each feature stayed as it was" for at in pairs]
    if reasons:
        return Cause(kind="pipeline", advice="patch", features=features, reasons=tuple(reasons[:5]))
    shown = tuple(_described(baseline, evidence, at) for at in moved[:5])
    return Cause(kind="data", advice="label", features=features, reasons=shown)


def advised(found: Attributed, *, harmed: bool, released: bool) -> Cause:
    """Return the cause that outcomes point at, and what to do about it.

    `harmed` says whether outcomes show that the model got worse, `released` whether a version began to serve shortly
    before. New inputs or shares that do no harm are no reason to retrain.
    """
    advice: Advice = "unknown" if found.shift == "unknown" else "wait"
    reasons = found.reasons
    if harmed and found.shift in ("covariate", "label", "concept"):
        advice = "retrain"
    if harmed and released and found.shift in ("none", "concept"):
        advice, reasons = "rollback", (*reasons, "a version began to serve shortly before")
    elif harmed and found.shift == "none":
        advice = "unknown"
    return Cause(
        kind=found.shift,
        advice=advice,
        features=(found.segment,) if found.segment else (),
        reasons=reasons,
        against=found.against,
    )


def _features(baseline: Baseline, moved: list[int]) -> tuple[str, ...]:
    """Return the features that moved, the strongest first; a pair adds none where one of the two is there already."""
    found = dict[str, None]()
    for at in moved:
        names = baseline.quantities[at].features
        if not any(name in found for name in names):
            found |= dict.fromkeys(names)
    return tuple(found)


def carrying(baseline: Baseline, evidence: Evidence) -> list[int]:
    """Return the places of the quantities that carry the alarm, the strongest first."""
    part = np.log1p(baseline.weight * evidence.statistic)
    order = np.argsort(-part, kind="stable")
    return [int(at) for at in order if part[at] > 0 and part[at] >= _PART * part[order[0]]]


def _described(baseline: Baseline, evidence: Evidence, at: int) -> str:
    """Return what one quantity did, in its own unit."""
    quantity, change = baseline.quantities[at], float(evidence.difference[at])
    if quantity.what in COUNTED:
        return f"{quantity}: {change * 100:+.2g} percentage points of the rows"
    unit = {"location": "standard deviations", "scale": "of the variance", "pair": "of the correlation"}[quantity.what]
    return f"{quantity}: {change:+.2g} {unit}"
