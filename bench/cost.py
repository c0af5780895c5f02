"""Dollars per million inferences, from measured saturation throughput and pinned prices.

Must not fetch prices and must not decide: a gate uses the price-free ratio of throughputs, in which the price cancels.
Throughput at saturation is the cheapest an inference can get; at utilisation U it costs 1/U times as much.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from optimize import config
from optimize.errors import ConfigError, MissingError

_PRICES = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an hour of a machine costs, where that was read and when."""

    name: str
    machine: str
    usd_hour: float
    source: str
    checked_at: str

    def __post_init__(self) -> None:
        if not self.usd_hour > 0:
            raise ConfigError(f"a price must be positive, got {self.usd_hour}", where=f"prices, {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The pinned prices by name."""

    schema: int
    prices: tuple[Price, ...]

    def of(self, name: str) -> Price:
        """The price of that name.

        Raises:
            MissingError: no such price is pinned.
        """
        for price in self.prices:
            if price.name == name:
                return price
        known = ", ".join(price.name for price in self.prices)
        raise MissingError(f"no price called {name!r}", where=str(_PRICES), next_step=f"known: {known}; or add a line")


@cache
def price_list(path: Path = _PRICES) -> PriceList:
    """Read the pinned prices, once per process."""
    return config.load(path, PriceList)


def usd_per_million(throughput: float, usd_hour: float, machines: int = 1) -> float:
    """``1e6 * machines * usd_hour / (3600 * throughput)``; `throughput` in inferences per second over all of them.

    The formula of the cloud vendors' own cost-per-inference pages. Raises ValueError where throughput is not positive.
    """
    if not throughput > 0:
        raise ValueError(f"throughput must be positive, got {throughput}")
    return 1e6 * machines * usd_hour / (3600 * throughput)
