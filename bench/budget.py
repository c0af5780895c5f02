"""The budget: what a candidate may cost, per metric, and the design of the run that finds out.

Read from TOML (`load_budget`) and checked here, before a server is started; holds no result and decides nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from seatrial.optimize import config
from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked
from seatrial.optimize.record import Record

from .checks import BY_KIND, Check
from .load_limits import LoadLimits
from .metrics import METRICS, SlotMetric

RULES = ("max_regression", "max_drop", "at_least", "at_most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Limit on one metric; several rules may be combined, and each becomes its own finding.

    `max_regression` is relative to the base (0.05 = 5 % worse), `max_drop` absolute (quality only), `at_least` and
    `at_most` bind the candidate alone. A relative regression whose absolute size is under `floor` (in the metric's
    unit) does not count. `gating = false` reports the metric without letting it decide.
    """

    metric: str
    max_regression: float | None = None
    max_drop: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    floor: float = 0.0
    gating: bool = True

    def __post_init__(self) -> None:
        of = METRICS.get(self.metric, where="limits")
        where = f"limits, metric {self.metric!r}"
        if not self.rules:
            raise ConfigError("the limit has no rule", where=where, next_step=f"give one of {', '.join(RULES)}")
        for name, value in self.rules.items():
            if not math.isfinite(value) or value < 0:
                raise ConfigError(f"{name} must be finite and not negative, got {value}", where=where)
        if foreign := [rule for rule in self.rules if rule not in of.rules]:
            raise ConfigError(
                f"{self.metric} does not support {foreign[0]}", where=where, next_step=f"use {of.rules[0]}"
            )
        wrong = "at_most" if of.direction == "higher" else "at_least"
        if getattr(self, wrong) is not None:
            raise ConfigError(
                f"{wrong} would forbid improvement: {of.direction} values of this metric are better", where=where
            )
        if not math.isfinite(self.floor) or self.floor < 0 or (self.floor and self.max_regression is None):
            raise ConfigError(f"floor needs max_regression and must not be negative, got {self.floor}", where=where)

    @property
    def of(self) -> SlotMetric:
        """The metric it speaks about."""
        return METRICS.get(self.metric)

    @property
    def rules(self) -> dict[str, float]:
        """The rules given, by name."""
        return {name: value for name in RULES if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Design(Record, sparse=("looks", "control_rule")):
    """Design of the run. Rates per second, times in seconds.

    Every slot starts a fresh server, sends `warmup_requests`, answers its share of the evaluation set in batches of
    `quality_batch`, takes an open-loop Poisson load of `rate` for `seconds`, then saturation with `concurrency` clients
    sending batches of `saturation_batch` (the largest that the deployment takes, unless it is given) for
    `saturation_seconds`. A pair that the machine or the client spoiled is run
    again up to `reruns` times. `client_cores` pins the load generator, where the server leaves some to it.

    With `looks` (for instance 6, 12 and 20) the gate may stop after that many pairs, and `pairs`, the last look, is the
    most that it runs; the error rates are spent over the looks (`gating.looks`). The first look's pairs share the whole
    evaluation set, later ones ask none: an early stop says as much about quality as a late one.

    A control workload (a fixed matrix product) runs before and after each slot. With `control_limit` set, the 95 %
    interval of the control's difference between the arms makes the run INVALID: under the rule "differs" where it lies
    beyond the limit, under "contained" where it does not lie wholly within. Half of the smallest margin is a good
    limit; "contained" needs a machine whose control hardly moves.
    """

    pairs: int = 6
    looks: tuple[int, ...] = ()
    reruns: int = 2
    rate: float
    seconds: float
    saturation_seconds: float = 3.0
    saturation_batch: int | None = None
    concurrency: int = 4
    quality_batch: int = 32
    warmup_requests: int = 32
    control_limit: float | None = None
    control_rule: Literal["differs", "contained"] = "differs"
    client_cores: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs < 4 or self.pairs % 2:
            raise ConfigError(
                f"pairs must be even and at least 4 to balance the order, got {self.pairs}",
                where="design.pairs",
                next_step="use 6, the usual choice",
            )
        if self.looks and (
            any(look < 4 or look % 2 for look in self.looks)
            or list(self.looks) != sorted(set(self.looks))
            or self.looks[-1] != self.pairs
        ):
            raise ConfigError(
                (
                    f"looks must be even, at least 4, increasing and end with pairs ({self.pairs}), got "
                    f"{list(self.looks)}"
                ),
                where="design.looks",
                next_step="for instance pairs = 20, looks = [6, 12, 20]",
            )
        for name in ("rate", "seconds", "saturation_seconds", "concurrency", "saturation_batch", "quality_batch"):
            value = getattr(self, name)
            if value is not None and (not math.isfinite(value) or value <= 0):
                raise ConfigError(f"must be positive, got {value}", where=f"design.{name}")
        for name in ("warmup_requests", "seed", "reruns"):
            if getattr(self, name) < 0:
                raise ConfigError(f"must not be negative, got {getattr(self, name)}", where=f"design.{name}")
        if self.control_limit is not None and not 0 < self.control_limit < 1:
            raise ConfigError(f"must lie between 0 and 1, got {self.control_limit}", where="design.control_limit")

    @property
    def first_look(self) -> int:
        """The pairs after which the gate may stop for the first time; they share the evaluation set."""
        return self.looks[0] if self.looks else self.pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLimits:
    """Limits on the accumulated accepted loss in the ledger called `name`, before a gate fails.

    `at_most` maps a metric to the relative loss that all candidates accepted within `days` may bring together.
    """

    name: str
    days: float = 30.0
    at_most: Mapping[str, float]

    def __post_init__(self) -> None:
        checked(self.name, "ledger name", where="ledger.name")
        if not math.isfinite(self.days) or self.days <= 0:
            raise ConfigError(f"must be positive, got {self.days}", where="ledger.days")
        for metric, most in self.at_most.items():
            if metric not in METRICS or "max_regression" not in METRICS.get(metric).rules:
                raise ConfigError(f"{metric!r} has no relative loss that a ledger can add up", where="ledger.at_most")
            if not math.isfinite(most) or most <= 0:
                raise ConfigError(f"must be positive, got {most}", where=f"ledger.at_most.{metric}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(
    Record,
    what="the stored budget",
    next_step="run the gate again",
    sparse=("checks", "ledger", "engine", "base_engine"),
):
    """Design, limits, and the error rates that the verdict promises.

    `alpha_pass` bounds the chance of passing a regression of exactly the margin, per metric; `alpha_fail` the chance of
    failing any metric that is within its margin, over the whole family. `price` names a line of ``prices.toml``,
    `recipe` the recipe (relative to the budget's file) whose evaluation samples and metric judge quality. `checks` ask
    more of quality than that one metric, `ledger` says what small losses may add up to over many candidates.
    `engine` serves the candidate and `base_engine` the base, by the names that recipes use; empty: the
    deployment's, for the candidate the recipe's where the deployment names none.

    Stored beside a run; what was added later is left out where it stands at its default, so that digests stay.
    """

    recipe: str | None = None
    design: Design
    limits: tuple[Limit, ...]
    load: LoadLimits = field(default_factory=LoadLimits)
    alpha_pass: float = 0.05
    alpha_fail: float = 0.01
    price: str = "aws-c7i-large"
    checks: tuple[Annotated[Check, BY_KIND], ...] = ()
    ledger: LedgerLimits | None = None
    engine: str = ""
    base_engine: str = ""

    def __post_init__(self) -> None:
        names = [limit.metric for limit in self.limits]
        if not any(limit.gating for limit in self.limits):
            raise ConfigError(
                "the budget has no gating limit, so it can never fail", where="limits", next_step="add [[limits]]"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"metric {twice[0]!r} has two [[limits]] tables",
                where="limits",
                next_step="put its rules into one table",
            )
        labels = [check.label for check in self.checks]
        if again := sorted({label for label in labels if labels.count(label) > 1}):
            raise ConfigError(
                f"check {again[0]!r} is defined twice", where="checks", next_step="put its rules into one table"
            )
        unlimited = sorted(set(self.ledger.at_most) - set(names)) if self.ledger else []
        if unlimited:
            raise ConfigError(
                f"the ledger counts {unlimited[0]!r}, but no limit measures it",
                where="ledger.at_most",
                next_step="add a [[limits]] table for it",
            )
        for name in ("alpha_pass", "alpha_fail"):
            if not 0 < getattr(self, name) < 0.5:
                raise ConfigError(f"must lie between 0 and 0.5, got {getattr(self, name)}", where=name)
        requests = self.design.rate * self.design.seconds
        if few := [name for name in names if METRICS.get(name).least_requests > requests]:
            raise ConfigError(
                f"{requests:.0f} requests per slot are too few for a {few[0]}",
                where="design.rate, design.seconds",
                next_step=f"send at least {10 * METRICS.get(few[0]).least_requests} requests per slot, "
                f"or drop the {few[0]} limit",
            )

    def limit(self, metric: str) -> Limit | None:
        """The limit on that metric, if there is one."""
        return next((limit for limit in self.limits if limit.metric == metric), None)

    def recipe_path(self, budget: Path) -> Path:
        """Return the path of the recipe that the budget in the file `budget` names.

        Raises:
            ConfigError: it names none.
        """
        if self.recipe is None:
            raise ConfigError(
                "no recipe is named for the evaluation samples and the metric",
                where=str(budget),
                next_step="name one in the budget (recipe = ...), or pass --recipe",
            )
        return budget.parent / self.recipe

    @property
    def digest(self) -> str:
        """``sha256:...`` of everything the budget says."""
        return digest_bytes(canonical(self.to_json()))


def load_budget(path: Path) -> Budget:
    """Read a budget from TOML.

    Raises:
        MissingError: no such file.
        ConfigError: an unknown key, a wrong type, or a combination that cannot be; names file and place.
    """
    return config.load(path, Budget)
