"""Noise of a machine as gates measured it: spread of each metric between slots, time of a slot, record of one trial.

Values and how they follow from runs; `bench.records.archive` keeps them. Judges nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from seatrial.optimize.record import Record

from .. import stats
from ..metrics import METRICS
from .findings import complete_pairs, slot_values
from .pairs import GateRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread of one metric: `sd` of a pair's log ratio with `df` degrees of freedom, `typical` value of a slot."""

    sd: float
    df: int
    typical: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record, schema=1, what="the trial"):
    """One `aa` or `drill`: real gates and how they ended, and what they say about the machine.

    `injected` is the slow-down of a drill (0 in an A/A run). `outcomes` counts the verdicts of the real gates,
    `resampled` those of pseudo-gates made of their slots (`bench.gating.resample`). `ratios` are candidate over base by
    metric, the geometric mean over the gates: what an injected slow-down really did. `slot_seconds` is a slot's median
    time.
    """

    kind: Literal["aa", "drill"]
    model: str
    format: str
    rate: float
    seconds: float
    pairs: int
    injected: float = 0.0
    outcomes: Mapping[str, int]
    resampled: Mapping[str, int] = field(default_factory=dict)
    ratios: Mapping[str, float]
    noise: Mapping[str, Noise]
    slot_seconds: float
    machine: Mapping[str, str | int | tuple[str, ...]]
    runs: tuple[str, ...]
    at: str


def noise_of(runs: Sequence[GateRun]) -> dict[str, Noise]:
    """Pooled spread of every metric that varies between slots, over the pairs of these runs.

    Taken about each run's own effect and order effect, so a drill says as much about noise as an A/A run.
    """
    found = {}
    for metric in METRICS.built_in:
        if METRICS.get(metric).assumed_noise is None:
            continue
        parts, typical = [], []
        for run in runs:
            base, candidate, order = slot_values(run, metric)
            if len(base) < 4 or sum(order) != 0 or not all(0 < each < math.inf for each in (*base, *candidate)):
                continue
            estimate = stats.paired(stats.log_ratios(base, candidate, METRICS.get(metric).sign), order)
            parts.append((estimate.sd, estimate.df))
            typical.append(float(np.median(base)))
        if parts:
            sd, df = stats.pooled_sd(parts)
            found[metric] = Noise(sd=sd, df=df, typical=float(np.median(typical)))
    return found


def slot_seconds(runs: Sequence[GateRun]) -> float:
    """The median time of a slot over these runs; 0 where none was usable."""
    times = [slot.seconds for run in runs for pair in complete_pairs(run) for slot in pair]
    return float(np.median(times)) if times else 0.0
