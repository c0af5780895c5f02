"""Finds the highest rate within the objective: bracket, bisect, repeat at both ends, then look at the latencies below.

Pure: what offers a load at a rate is handed in. Keeps to a budget of time, and stops where the client, not the server,
cannot go on. Judges nothing in the end: `bench.capacity.result` does, from the probes alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from random import Random

from seatrial.optimize.errors import ConfigError

from .curve import crossing, points
from .probe import Decision, Phase, Probe, decide, pooled
from .slo import Slo, needed

Prober = Callable[[float, float, Phase], Probe]
"""Offers load (rate, seconds, phase) and returns the resulting probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bounds of the search. Rates in arrivals per second, times in seconds.

    `seconds` is the load offered in all, `probe_seconds` the most at one rate before it is taken by its estimate. The
    bracket grows by `step`; bisection ends when its ends are within `resolution`. `replicates` runs are made at both
    ends; `shares` of the found rate get a latency.
    """

    seconds: float = 600.0
    probe_seconds: float = 60.0
    shortest: float = 4.0
    max_rate: float = 20_000.0
    step: float = 1.5
    resolution: float = 1.05
    replicates: int = 3
    shares: tuple[float, ...] = (0.5, 0.7, 0.9)

    def __post_init__(self) -> None:
        if not min(self.seconds, self.max_rate, self.shortest) > 0:
            raise ConfigError(f"a search needs a positive time and rate, got {self.seconds} s and {self.max_rate}/s")
        if self.probe_seconds < self.shortest:
            raise ConfigError(
                f"{self.probe_seconds:g} s are too short to judge a rate",
                where="--probe-seconds",
                next_step=f"use at least {self.shortest:g} s",
            )
        if self.step <= 1 or self.resolution <= 1 or self.replicates < 0:
            raise ConfigError(f"step and resolution must be above 1, got {self.step} and {self.resolution}")
        if not all(0 < share < 1 for share in self.shares):
            raise ConfigError(f"fractions of the capacity must lie between 0 and 1, got {self.shares}")


class _StopSearch(Exception):
    """No further probe can be made; the message says why."""


@dataclass(slots=True, kw_only=True)
class _Log:
    """Probes so far and the time left; offers a rate for as long as its decision needs."""

    probe: Prober
    slo: Slo
    plan: Plan
    probes: list[Probe] = field(default_factory=list)
    spent: float = 0.0

    def at(self, rate: float) -> list[Probe]:
        return [probe for probe in self.probes if probe.rate == rate]

    def run(self, rate: float, seconds: float, phase: Phase) -> Probe:
        """One probe. A run that was spoiled is made once more; where it is spoiled again, the search ends."""
        for _ in range(2):
            if self.spent + seconds > self.plan.seconds:
                raise _StopSearch(f"the load time of {self.plan.seconds:g} s was used up")
            self.spent += seconds
            self.probes.append(self.probe(rate, seconds, phase))
            if not self.probes[-1].faults:
                return self.probes[-1]
        raise _StopSearch(f"two runs at {rate:.4g}/s were invalid: {self.probes[-1].faults[0]}")

    def length(self, rate: float) -> float:
        """Seconds for enough independent requests to prove the objective with a few misses, going by the last probe."""
        usable = [probe for probe in self.probes if not probe.faults and probe.effective > 0]
        tau = usable[-1].counted / usable[-1].effective if usable else 2.0
        wanted = needed(2, self.slo.quantile) * tau / rate
        return min(self.plan.probe_seconds, max(self.plan.shortest, wanted))

    def settle(self, rate: float, phase: Phase) -> Decision:
        """Probe until the rate is decided, longer each time; beyond the limit the estimate decides."""
        seconds = self.length(rate)
        while True:
            self.run(rate, seconds, phase)
            decision = decide(self.at(rate), self.slo)
            if decision != "OPEN":
                return decision
            done = sum(probe.seconds for probe in self.at(rate))
            if done >= self.plan.probe_seconds:
                share, _ = pooled([probe for probe in self.at(rate) if not probe.faults])
                return "SUSTAIN" if share <= self.slo.budget else "NOT"
            seconds = min(2 * seconds, max(self.plan.probe_seconds - done, self.plan.shortest))


def search(probe: Prober, slo: Slo, *, start: float, plan: Plan, seed: int) -> tuple[tuple[Probe, ...], str]:
    """All probes of one search, and why it ended early (empty where it did not).

    `start` is a rate that the server should bear easily, such as 0.3 of its saturation.

    Raises:
        ConfigError: a start that is not positive.
    """
    if not start > 0:
        raise ConfigError(f"the search cannot start at {start}/s")
    log = _Log(probe=probe, slo=slo, plan=plan)
    try:
        low, high = _bracket(log, min(start, plan.max_rate))
        while high / low > plan.resolution:
            middle = sqrt(low * high)
            low, high = (middle, high) if log.settle(middle, "bisect") == "SUSTAIN" else (low, middle)
        ends = [low, high] * plan.replicates
        Random(seed).shuffle(ends)
        for rate in ends:
            log.run(rate, log.length(rate), "replicate")
        found = crossing(points(log.probes), slo)
        for rate in [share * found for share in plan.shares] if found else ():
            log.run(rate, min(2 * log.length(rate), plan.probe_seconds), "profile")  # long enough for a bound
    except _StopSearch as stop:
        return tuple(log.probes), str(stop)
    return tuple(log.probes), ""


def _bracket(log: _Log, rate: float) -> tuple[float, float]:
    """A rate that is sustained and one that is not, a step apart.

    Raises:
        _StopSearch: there is none below the cap, or none above a hundredth of the start.
    """
    first, step = rate, log.plan.step
    if log.settle(rate, "bracket") == "SUSTAIN":
        while True:
            if rate >= log.plan.max_rate:
                raise _StopSearch(f"the highest allowed rate, {rate:.4g}/s, is sustained")
            low, rate = rate, min(rate * step, log.plan.max_rate)
            if log.settle(rate, "bracket") != "SUSTAIN":
                return low, rate
    while rate > first / 100:
        high, rate = rate, rate / step
        if log.settle(rate, "bracket") == "SUSTAIN":
            return rate, high
    raise _StopSearch(f"even {rate:.4g}/s is not sustained")
