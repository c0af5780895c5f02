"""A service-level objective on latency, and what a number of requests can say about it.

Pure: counts in, bounds out. LoadGen's rule and ours are the same exact binomial; ours counts independent requests,
since neighbours in a queue are slow together.
"""

import re
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, isfinite

from seatrial.optimize.errors import ConfigError

from ..scenarios import CONFIDENCE, exceedances
from ..stats import clopper_pearson

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_TEXT = re.compile(r"\s*p(\d{1,2}(?:\.\d+)?)\s*<=?\s*(\d+(?:\.\d+)?|\.\d+)\s*(s|ms|us)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """At least a share `quantile` of all requests is answered well within `seconds` of when they were due."""

    quantile: float
    seconds: float

    def __post_init__(self) -> None:
        if not (0.5 <= self.quantile < 1 and isfinite(self.seconds) and self.seconds > 0):
            raise ConfigError(f"an SLO needs a percentile of at least 50 and below 100 and a positive time, got {self}")

    @classmethod
    def parse(cls, text: str) -> "Slo":
        """Read ``p99<=20ms``.

        Raises:
            ConfigError: it says something else.
        """
        if (found := _TEXT.fullmatch(text)) is None:
            raise ConfigError(f"invalid SLO {text!r}", next_step='write it as "p99<=20ms" (units s, ms, us)')
        percentile, time, unit = found.groups()
        return cls(quantile=float(percentile) / 100, seconds=float(time) * _UNITS[unit])

    @property
    def budget(self) -> float:
        """The share of requests that may be slower or fail."""
        return 1 - self.quantile

    def __str__(self) -> str:
        return f"p{100 * self.quantile:g} <= {1e3 * self.seconds:g} ms"


@cache
def needed(over: int, quantile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest independent requests with which `over` misses still prove the objective: 459 at p99 for none."""
    low, high = over, over + 1
    while (allowed := exceedances(high, quantile, confidence)) is None or allowed < over:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        allowed = exceedances(middle, quantile, confidence)
        low, high = (low, middle) if allowed is not None and allowed >= over else (middle, high)
    return high


def share_bounds(share: float, effective: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact one-sided bounds (Clopper and Pearson) of a share seen among so many independent requests.

    Counts of independent requests are not whole numbers; each bound takes the whole numbers that widen it.
    """
    if effective < 1:
        return 0.0, 1.0
    n, over = floor(effective), share * floor(effective)
    low = clopper_pearson(floor(over), n, 1 - confidence)[0]
    return low, clopper_pearson(min(ceil(over), n), n, 1 - confidence)[1]
