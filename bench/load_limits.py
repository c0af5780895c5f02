"""Validity limits of a load run; `bench.load.validity` checks a run against them. Values only."""

from dataclasses import dataclass

from seatrial.optimize.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Validity limits of a load run. Fractions are 0 to 1, times in seconds.

    `offered` is the least share of scheduled arrivals that was sent in time. The 99th percentile of the lag may reach
    `lag` or `lag_of_p50` times the median latency, whichever is more: lag is part of every latency, so it must stay
    small against what is measured. The default of `lag` is three to four times what two busy virtual cores mostly
    reach (p99 0.2 to 0.35 ms at 150 to 300 requests/s with real-time priority; where the host takes the core away it is
    1 to 2 ms, and such a run should not count). `client_cpu` is the share of one core beyond
    which the client itself queues; in a closed loop, running and waiting for a core may together reach `busy`, beyond
    which the client hardly ever waits for the server. `dropped` and `transport` are numbers of arrivals never sent or
    never answered, and of broken connections. Realised gaps between sends are called wrong where Kolmogorov and
    Smirnov's p is below `arrival_p` and their distance from the schedule's law above `arrival_distance`: with many
    arrivals p alone would object to microseconds.
    """

    offered: float = 0.995
    lag: float = 0.001
    lag_of_p50: float = 0.05
    client_cpu: float = 0.7
    dropped: int = 0
    transport: int = 0
    arrival_p: float = 0.001
    arrival_distance: float = 0.05

    def __post_init__(self) -> None:
        shares = (self.offered, self.client_cpu, self.arrival_p, self.arrival_distance)
        others = (self.lag, self.lag_of_p50, self.dropped, self.transport)
        if not all(0 <= share <= 1 for share in shares) or not all(each >= 0 for each in others):
            raise ConfigError(f"limits of a load run out of range: {self}", where="load")

    @property
    def busy(self) -> float:
        """The share of time that a closed loop's client may run or wait for a core: half way from `client_cpu` to 1."""
        return (1 + self.client_cpu) / 2
