"""Default checks without a budget: one of every kind that the samples allow. Informational.

The margins are placeholders: only a budget's margins decide.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from seatrial.optimize.samples import Samples

from ..checks import Check, check_from_json
from .corruption import applicable
from .quantities import Array

_GROUPS = 20  # a column with more values is no grouping
_SAMPLES = 500  # asked at each severity: a look, not a gate
_EPSILON = 0.03  # of the input's range
_LOWER = ("calibration", "gap", "flips", "ks", "jensen_shannon")  # kinds and statistics that are good when low


def default_checks(samples: Samples, *, against: bool, attack: bool) -> tuple[Check, ...]:
    """Checks for these samples; `against` where there is a base, `attack` where there is a source to attack."""
    labels = np.asarray(samples.labels)
    classes = labels.ndim == 1 and labels.dtype.kind in "iub"
    wanted: list[dict[str, Any]] = [{"kind": "metric"}]
    if classes:
        wanted.append({"kind": "metric", "metric": "f1_macro"})
        wanted += [{"kind": "calibration", "statistic": name} for name in ("ece", "nll")]
        wanted.append({"kind": "fairness", "by": "class"})
    for name, column in samples.columns.items():
        if 2 <= len(np.unique(column)) <= _GROUPS:
            wanted += [{"kind": "fairness", "by": name, "statistic": each} for each in ("worst", "gap")]
    wanted.append({"kind": "segments"})
    wanted += [
        {"kind": "corruption", "corruption": kind, "statistic": "score", "samples": _SAMPLES}
        for kind in applicable(samples.inputs)
    ]
    floats = [array for array in samples.inputs.values() if _float(array)]
    if attack and floats:
        epsilon = float(f"{_EPSILON * max(float(np.ptp(array)) for array in floats):.2g}") or _EPSILON
        wanted += [{"kind": "adversarial", "attack": name, "epsilon": epsilon} for name in ("fgsm", "pgd")]
    if against:
        drifts = ("flips", "jensen_shannon", "cosine", "ks") if classes else ("cosine", "ks")
        wanted += [{"kind": "drift", "statistic": name} for name in drifts]
    return tuple(check_from_json(each | _told(each, against)) for each in wanted)


def _told(check: Mapping[str, Any], against: bool) -> dict[str, Any]:
    """A rule that only asks for the figure: what changed where there is a base, else how much it is."""
    if against and check["kind"] != "drift":
        return {"max_drop": 0.0, "gating": False}
    low = bool({check["kind"], check.get("statistic")} & set(_LOWER))
    return {"at_most": 1.0, "gating": False} if low else {"at_least": 0.0, "gating": False}


def _float(array: Array) -> bool:
    return array.dtype.kind == "f"
