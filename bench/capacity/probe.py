"""One probe: a load at one rate, and what its replies say about the objective.

Pure; computed from a `LoadRun` each time. Every arrival after the warm-up counts, and one without a good answer in time
is over the objective, whatever the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seatrial.optimize.record import Record

from ..load.run import OK, LoadRun
from ..load.steady import Label, autocorrelation_time, steady_state
from ..load.validity import breaches
from ..load_limits import LoadLimits
from ..scenarios import exceedances
from .slo import Slo, share_bounds

Phase = Literal["bracket", "bisect", "replicate", "profile"]
Decision = Literal["SUSTAIN", "NOT", "OPEN", "INVALID"]

LEAD, LEAD_SHARE = 1.0, 0.05
"""Of every probe the first second, or this share of a long one, is not counted.

Fixed beforehand: a cut that is chosen by the data, as MSER's, tends to fall behind a burst and so to lose slow requests
(a tenth of the misses in ten seconds of a simulated queue). It still says whether the run had warmed up.
"""
BLOCKS = 20  # stretches of a probe that a bootstrap may exchange; each long against a queue's memory
SERVER_RULES = ("dropped", "unanswered", "offered")
"""Breaches that an overloaded server causes: its backlog reaches the cap on requests in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Record, computed=("over", "share")):
    """Result of one run at `rate` arrivals per second.

    `counted` arrivals after the warm-up, `blocks` their (arrivals, misses) in order of time; `effective` is how many
    independent ones they are worth. `faults` are breaches that no load excuses: such a run says nothing of the server.
    Latencies in seconds; `tail_upper` bounds the objective's percentile with 99 % confidence, None where the run is too
    short for that.
    """

    number: int
    phase: Phase
    rate: float
    seconds: float
    counted: int
    effective: float
    blocks: tuple[tuple[int, int], ...]
    state: Label
    reasons: tuple[str, ...]
    faults: tuple[str, ...]
    p50: float | None
    tail: float | None
    tail_upper: float | None

    @property
    def over(self) -> int:
        """Arrivals that missed the objective."""
        return sum(block[1] for block in self.blocks)

    @property
    def share(self) -> float:
        """The share of them."""
        return self.over / self.counted if self.counted else 1.0


def evaluate(run: LoadRun, slo: Slo, *, number: int, phase: Phase, limits: LoadLimits | None = None) -> Probe:
    """Evaluate a run against the objective.

    Misses come in runs, so their number is worth less: it is divided by the larger of two autocorrelation times, of
    "over the objective" and of "slower than the run's own percentile" (the first is blind where nothing was over).
    """
    steady = steady_state(run)
    kept = run.intended >= min(max(LEAD, LEAD_SHARE * run.schedule.seconds), run.schedule.seconds / 4)
    latency, good = (run.done - run.intended)[kept], (run.status == OK)[kept]
    over = ~good | (latency > slo.seconds)
    counted = len(latency)
    tau = 1.0
    if counted:
        own = latency > np.quantile(latency, slo.quantile)
        tau = max(autocorrelation_time(over), autocorrelation_time(own))
    effective = counted / tau
    allowed = exceedances(int(effective), slo.quantile)
    upper = None if allowed is None else float(np.quantile(latency, 1 - allowed / int(effective), method="higher"))
    broken = breaches(run, limits)
    return Probe(
        number=number,
        phase=phase,
        rate=float(run.schedule.rate),
        seconds=float(run.schedule.seconds),
        counted=counted,
        effective=effective,
        blocks=tuple((len(part), int(np.count_nonzero(part))) for part in np.array_split(over, BLOCKS)),
        state=steady.label,
        reasons=steady.reasons,
        faults=tuple(breach for breach in broken if breach.split(":")[0] not in SERVER_RULES),
        p50=float(np.median(latency)) if counted else None,
        tail=float(np.quantile(latency, slo.quantile)) if counted else None,
        tail_upper=upper,
    )


def decide(probes: Sequence[Probe], slo: Slo) -> Decision:
    """Decide a rate from all its probes, at 99 % confidence.

    SUSTAIN: the share over the objective is proven to be within its budget, and the last run was steady. NOT: it is
    proven to be beyond, or the backlog grew in the last run. OPEN: neither, so look longer.
    """
    usable = [probe for probe in probes if not probe.faults]
    if not usable:
        return "INVALID"
    share, effective = pooled(usable)
    low, high = share_bounds(share, effective)
    if low > slo.budget or usable[-1].state == "overload":
        return "NOT"
    return "SUSTAIN" if high <= slo.budget and usable[-1].state == "steady" else "OPEN"


def pooled(probes: Sequence[Probe]) -> tuple[float, float]:
    """Share over the objective and number of independent requests of several probes together.

    Arrivals count alike; weighing runs by their independent requests would favour those in which few were slow.
    """
    counted = sum(probe.counted for probe in probes)
    if not counted:
        return 1.0, 0.0
    tau = sum(probe.counted**2 / probe.effective for probe in probes if probe.counted) / counted
    return sum(probe.over for probe in probes) / counted, counted / tau
