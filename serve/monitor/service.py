"""What a plan says of the service around a model: its objectives, its worth, its owner, and where alerts go.

A section of the plan (`plan.Plan.service`); a baseline does not depend on it.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from seatrial.optimize.errors import ConfigError

Tier = Literal["warning", "critical", "emergency"]
TIERS: tuple[Tier, ...] = ("warning", "critical", "emergency")
"""Tiers of alarms, the least urgent first."""
Objective = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CRITICAL, EMERGENCY = 0.1, 0.5  # of the worth, where the plan names no money: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """Money lost an hour from which an alarm is critical, and from which it is an emergency; None: 10 % and 50 %."""

    critical: Amount | None = None
    emergency: Amount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service around a model; all of it may be left out.

    `availability` is the fraction of requests that must not fail, over 30 days; `latency` the fraction of answers that
    must take at most `latency_seconds`. 0 is no objective. `source` is where requests are counted: at the ``edge``, or
    by ``triton``, which counts failures alone. `failures` are the least failed requests that may alarm. `worth` is the
    money that an hour of right answers is worth, in `currency`; 0 is unknown, and then no alarm is an emergency.
    `owner` is called. `runbooks` is the address below which runbooks are published, `webhook` where alerts are sent.
    """

    source: Literal["edge", "triton"] = "edge"
    availability: Objective = 0.999
    latency: Objective = 0.99
    latency_seconds: Amount = 0.0
    failures: Annotated[int, Field(ge=1)] = 5
    worth: Amount = 0.0
    currency: str = "EUR"
    tiers: Tiers = field(default_factory=Tiers)
    owner: str = ""
    runbooks: str = ""
    webhook: str = ""

    def __post_init__(self) -> None:
        critical, emergency = self.tiers.critical, self.tiers.emergency
        if (critical, emergency) != (None, None) and not self.worth:
            raise ConfigError(
                "tiers by money need the worth of an hour",
                where="service.tiers",
                next_step="give worth in [service], or leave the tiers out",
            )
        if self.share("critical") > self.share("emergency"):
            raise ConfigError(
                "an emergency would be less than what is critical",
                where="service.tiers",
                next_step="let emergency be the larger amount",
            )
        for name in ("owner", "currency", "runbooks", "webhook"):
            if not getattr(self, name).isprintable():
                raise ConfigError(f"{name} has control characters", where=f"service.{name}", next_step="remove them")
        if self.webhook and not self.webhook.startswith(("http://", "https://")):
            raise ConfigError(
                f"{self.webhook!r} is not an address", where="service.webhook", next_step="write http://HOST:PORT/PATH"
            )

    def share(self, tier: Tier) -> float:
        """Return the harmed fraction of the requests from which an alarm is of that tier; above 1: never."""
        if tier == "warning":
            return 0.0
        if tier == "emergency" and not self.worth:
            return 2.0
        amount, usual = (self.tiers.critical, CRITICAL) if tier == "critical" else (self.tiers.emergency, EMERGENCY)
        return usual if amount is None else amount / self.worth

    def tier(self, share: float, *, least: Tier = "warning") -> Tier:
        """Return the tier of an alarm that harms a fraction of the requests, at least `least`."""
        reached = max(at for at, tier in enumerate(TIERS) if share >= self.share(tier))
        return TIERS[max(reached, TIERS.index(least))]

    def money(self, share: float) -> str:
        """Return what a harmed fraction costs, as text; empty where the worth is unknown."""
        return f"{share * self.worth:,.2f} {self.currency} an hour" if self.worth else ""
