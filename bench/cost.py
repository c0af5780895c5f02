"""Cost of inferences: dollars per million at the objective and at real traffic, fleets, own machines, energy.

Must not fetch prices and must not decide: a gate uses the price-free ratio of throughputs, in which the price cancels.
Throughput at saturation is not a real cost: what a machine bears within its objective (`bench.capacity`) is,
and at utilisation U an inference costs 1/U times as much. Rates are inferences per second, money is US dollars.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.record import Record

_PRICES = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Price of a machine hour, with its source and date."""

    name: str
    machine: str
    usd_hour: float
    source: str
    checked_at: str

    def __post_init__(self) -> None:
        if not self.usd_hour > 0:
            raise ConfigError(f"a price must be positive, got {self.usd_hour}", where=f"prices, {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A machine of one's own: what `own_usd_hour` needs to make a price of it."""

    name: str
    machine: str
    capex: float
    years: float
    source: str
    checked_at: str
    availability: float = 0.95
    kilowatts: float = 0.0
    pue: float = 1.3
    usd_kwh: float = 0.0
    opex_hour: float = 0.0

    def __post_init__(self) -> None:
        try:
            hour = self.usd_hour
        except ValueError as error:
            raise ConfigError(str(error), where=f"prices, {self.name!r}") from error
        if not hour > 0:
            raise ConfigError("a machine must have a positive cost", where=f"prices, {self.name!r}")

    @property
    def usd_hour(self) -> float:
        """Return the cost of an hour of serving, in dollars."""
        return own_usd_hour(
            self.capex,
            self.years,
            availability=self.availability,
            kilowatts=self.kilowatts,
            pue=self.pue,
            usd_kwh=self.usd_kwh,
            opex_hour=self.opex_hour,
        )

    @property
    def price(self) -> Price:
        """Return that cost as a price."""
        about = f"{self.machine}, owned over {self.years:g} years"
        hour, source = self.usd_hour, self.source
        return Price(name=self.name, machine=about, usd_hour=hour, source=source, checked_at=self.checked_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The pinned prices by name, and machines of one's own."""

    schema: int
    prices: tuple[Price, ...]
    owned: tuple[Owned, ...] = ()

    def of(self, name: str) -> Price:
        """The price of that name.

        Raises:
            MissingError: no such price is pinned.
        """
        every = (*self.prices, *(owned.price for owned in self.owned))
        for price in every:
            if price.name == name:
                return price
        known = ", ".join(price.name for price in every)
        raise MissingError(
            f"unknown price {name!r}", where=str(_PRICES), next_step=f"known prices: {known}; or add an entry"
        )


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


HOURS_PER_YEAR = 8760
HOURS_PER_MONTH = 730
JOULES_PER_KWH = 3.6e6
HEADROOM = 0.3  # of the capacity, kept free for peaks and for a machine that fails


def utilisation(traffic: float, capacity: float, machines: int = 1) -> float:
    """``traffic / (machines * capacity)``: the share of what the fleet could bear that it does bear.

    To be measured, not assumed: the same accelerator has been seen to cost 2.5 to 36 times its best price at low
    traffic (arXiv 2606.11690). Raises ValueError where a figure is not positive.
    """
    if not (traffic > 0 and capacity > 0 and machines > 0):
        raise ValueError(
            f"traffic, machines and capacity must be positive, got {traffic}/s on {machines} x {capacity}/s"
        )
    return traffic / (machines * capacity)


def machines_needed(peak: float, capacity: float, headroom: float = HEADROOM) -> int:
    """``ceil(peak / (capacity * (1 - headroom)))``, the sizing of NVIDIA's TCO guide: benchmark, instances, servers.

    Raises ValueError where a rate is not positive or the headroom is not a share below 1.
    """
    if not (peak > 0 and capacity > 0 and 0 <= headroom < 1):
        raise ValueError(f"cannot size a fleet for {peak}/s at {capacity}/s per machine with headroom {headroom}")
    return ceil(peak / (capacity * (1 - headroom)) - 1e-9)


def usd_month(machines: int, usd_hour: float) -> float:
    """A month of 730 hours."""
    return machines * usd_hour * HOURS_PER_MONTH


def own_usd_hour(
    capex: float,
    years: float,
    *,
    availability: float = 0.95,
    kilowatts: float = 0.0,
    pue: float = 1.3,
    usd_kwh: float = 0.0,
    opex_hour: float = 0.0,
) -> float:
    """An hour of a machine that is owned: ``capex / (years * 8760 * availability) + kW * PUE * $/kWh + opex``.

    Straight-line depreciation over the hours in which it serves, as total-cost-of-ownership models do (NVIDIA's TCO
    guide). `pue` is the data centre's power usage effectiveness. Raises ValueError for figures that cannot be.
    """
    if capex < 0 or years <= 0 or not 0 < availability <= 1 or pue < 1 or min(kilowatts, usd_kwh, opex_hour) < 0:
        raise ValueError(
            "capital, power and prices must not be negative, years must be positive, PUE must be at least 1"
        )
    return capex / (years * HOURS_PER_YEAR * availability) + kilowatts * pue * usd_kwh + opex_hour


def joules_per_inference(
    start: float | None, end: float | None, inferences: int, *, idle_watts: float = 0.0, seconds: float = 0.0
) -> float | None:
    """``(E_end - E_start - idle_watts * seconds) / N`` of a cumulative counter in joules; None where there is none.

    With `idle_watts` it is the energy that serving adds, as zeus and AIPerf report it beside the whole. A counter that
    is missing is unknown, never 0. Raises ValueError where no inference was made or the counter ran backwards.
    """
    if start is None or end is None:
        return None
    if inferences < 1 or end < start:
        raise ValueError(
            f"energy per inference needs inferences and rising counters, got {inferences} between {start} J and {end} J"
        )
    return (end - start - idle_watts * seconds) / inferences


def usd_of_energy(joules: float, usd_kwh: float, pue: float = 1.3) -> float:
    """``J / 3.6e6 * PUE * $/kWh``."""
    return joules / JOULES_PER_KWH * pue * usd_kwh


def grams_co2(joules: float, grams_per_kwh: float, pue: float = 1.3) -> float:
    """``kWh * PUE * intensity of the grid``, as codecarbon counts it."""
    return joules / JOULES_PER_KWH * pue * grams_per_kwh


def usd_of_run(seconds: float, usd_hour: float, machines: int = 1) -> float:
    """Return the cost of a gate or a search in dollars: the machines' time at their price."""
    return seconds / 3600 * usd_hour * machines


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill(Record):
    """Cost of serving on one machine type, from its capacity within an objective.

    `per_million` is at full capacity, with the interval that the capacity's leaves; `effective` is at the `traffic`
    that there is, on the `machines` that it takes, of which `utilisation` is used. Those are None without traffic.
    `spent` is what finding out cost.
    """

    price: Price
    capacity: float
    per_million: float
    per_million_interval: tuple[float, float] | None
    traffic: float | None
    headroom: float
    machines: int | None
    utilisation: float | None
    effective: float | None
    month: float | None
    spent: float


def bill(
    price: Price,
    capacity: float,
    *,
    interval: tuple[float, float] | None = None,
    traffic: float | None = None,
    headroom: float = HEADROOM,
    seconds: float = 0.0,
) -> Bill:
    """The bill for a capacity in inferences per second and, where `traffic` (its peak) is known, for a fleet.

    ``effective = per_million / utilisation``. A higher capacity is a lower cost, so the interval turns round. `seconds`
    is how long measuring took. Raises ValueError as the formulas do.
    """
    machines = None if traffic is None else machines_needed(traffic, capacity, headroom)
    used = None if traffic is None or machines is None else utilisation(traffic, capacity, machines)
    full = usd_per_million(capacity, price.usd_hour)
    return Bill(
        price=price,
        capacity=capacity,
        per_million=full,
        per_million_interval=(
            (usd_per_million(interval[1], price.usd_hour), usd_per_million(interval[0], price.usd_hour))
            if interval
            else None
        ),
        traffic=traffic,
        headroom=headroom,
        machines=machines,
        utilisation=used,
        effective=None if used is None else full / used,
        month=None if machines is None else usd_month(machines, price.usd_hour),
        spent=usd_of_run(seconds, price.usd_hour),
    )
