"""The monitoring plan: what is watched of one model, how much change is tolerated, how many false alarms are allowed.

Read from TOML (`load_plan`). Kinds of features stand here and are never guessed from traffic.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked

from .captured.policy import Capture
from .plan_answers import Answers, Kpi, Outcomes
from .quantities import TOLERANCES, Quantity, What
from .service import Service

SCHEMA = 1
YEAR = 365.25 * 86_400.0  # seconds
WEEK = 7 * 86_400.0  # seconds
Tolerated = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Changes of a mean that are no news, each in its own unit: `location` in standard deviations, shares as fractions.

    `scale` is relative to the variance, `pair` a difference of correlations. None takes the plan's, else the usual one.
    """

    location: Tolerated | None = None
    scale: Tolerated | None = None
    missing: Tolerated | None = None
    outside: Tolerated | None = None
    unseen: Tolerated | None = None
    share: Tolerated | None = None
    pair: Tolerated | None = None

    def of(self, what: What) -> float | None:
        """Return what is tolerated of one quantity, None where this does not say."""
        found: float | None = getattr(self, what)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of traffic, an input or an output of the model.

    `kind` says how it is read: ``number``, or ``category`` for text, codes and flags, of which the `top` most frequent
    values are watched one by one.
    """

    kind: Literal["number", "category"]
    top: Annotated[int, Field(ge=1, le=200)] = 20
    tolerance: Tolerance = Tolerance()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is watched of one model. Times in seconds; `time` is the column that says when a row was served.

    A window lasts `interval`; one with fewer than `rows` rows is joined with the next. `false_alarms_per_year` is the
    budget of the whole plan, whatever the number of features. `reference` is how much quiet traffic the baseline is
    learned from; below two weeks no season can be learned. An alarm ends when no new evidence came for `hold`. At most
    `pairs` pairs of number features are watched, those with the strongest dependence. `service` says what alerts need
    of the service around the model, `estimate`, `outcomes` and `kpi` what the model answered and what became of it,
    `capture` what the recorder keeps of requests and answers; a baseline does not depend on them.
    """

    schema: int
    model: str
    features: Mapping[str, Feature]
    time: str = "time"
    interval: Positive = 3600.0
    rows: Annotated[int, Field(ge=1)] = 100
    false_alarms_per_year: Positive = 1.0
    reference: Positive = 4 * WEEK
    hold: Positive = 86_400.0
    pairs: Annotated[int, Field(ge=0, le=5000)] = 1500
    tolerance: Tolerance = field(default_factory=Tolerance)
    service: Service = field(default_factory=Service, repr=False)
    capture: Capture | None = field(default=None, repr=False)
    estimate: Answers | None = field(default=None, repr=False)
    outcomes: Outcomes | None = field(default=None, repr=False)
    kpi: tuple[Kpi, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        checked(self.model, "model name", where="model")
        if self.schema != SCHEMA:
            raise ConfigError(
                f"schema {self.schema}", where="schema", next_step=f"use schema {SCHEMA}, which this version reads"
            )
        if not self.features:
            raise ConfigError(
                "nothing is watched", where="features", next_step='name a column: [features.age] with kind = "number"'
            )
        if self.kpi and (self.outcomes is None or len({each.name for each in self.kpi}) < len(self.kpi)):
            raise ConfigError(
                "business figures need [outcomes], and a name each that no other has",
                where="kpi",
                next_step="say in [outcomes] which column of the traffic is the request, and rename what is double",
            )
        if self.threshold < 2:
            raise ConfigError(
                f"{self.false_alarms_per_year:g} false alarms a year are more than half of the "
                f"{YEAR / self.interval:.0f} windows",
                where="false_alarms_per_year",
                next_step="allow fewer, or choose a shorter interval",
            )

    @property
    def threshold(self) -> float:
        """The evidence that alarms: windows between two false alarms, on average at least."""
        return YEAR / self.interval / self.false_alarms_per_year

    @property
    def digest(self) -> str:
        """The SHA-256 of all that a baseline depends on."""
        return f"sha256:{hashlib.sha256(repr(self).encode()).hexdigest()}"

    @property
    def also(self) -> Mapping[str, Literal["number", "text"]]:
        """Columns that are read beside the features, with their kind: ids, answers, labels, groups."""
        text, numbers = list[str](), list[str]()
        if (said := self.estimate) is not None:
            text += [said.label, said.answer]
            numbers += [said.confidence, *said.probabilities.values()]
        if self.outcomes is not None:
            text += [self.outcomes.request, *self.outcomes.groups]
        found: dict[str, Literal["number", "text"]] = dict.fromkeys(numbers, "number")
        found |= dict.fromkeys(text, "text")
        return {name: kind for name, kind in found.items() if name and name not in self.features}

    def tolerated(self, quantity: Quantity) -> float:
        """Return what is tolerated of a quantity: the feature's word, the plan's, the usual; of a pair the larger."""
        said = [
            mine
            for name in quantity.features
            if name in self.features and (mine := self.features[name].tolerance.of(quantity.what)) is not None
        ]
        of_plan = self.tolerance.of(quantity.what)
        return max(said) if said else TOLERANCES[quantity.what] if of_plan is None else of_plan


def load_plan(path: Path) -> Plan:
    """Read a monitoring plan.

    Raises:
        MissingError: no such file.
        ConfigError: not TOML, an unknown key, a value of the wrong type or out of range.
    """
    plan = config.load(path, Plan)
    if not math.isfinite(plan.threshold):
        raise ConfigError("the budget is too small to count", where=f"{path}: false_alarms_per_year")
    return plan
