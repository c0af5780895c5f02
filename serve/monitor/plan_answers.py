"""What a plan says of answers and outcomes: columns of the answer, of labels and groups, and business figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from seatrial.optimize.errors import ConfigError

Column = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Columns of traffic that say what a classifier answered; `label` is the right class, in the reference.

    `answer` is the class it answered, else the most probable one. `confidence` is the probability that it gave to its
    answer, else that of `probabilities` (column by class). One class alone is one of two: yes, or not. A model without
    probabilities has neither: its outcomes are judged, and nothing is estimated without them.
    """

    label: Column
    answer: str = ""
    confidence: str = ""
    probabilities: Mapping[str, Column] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.answer and not self.probabilities:
            raise ConfigError(
                "it does not say what the model answered",
                where="estimate",
                next_step="name the column of the answered class (answer), or of each class's probability "
                "(probabilities)",
            )

    @property
    def probable(self) -> bool:
        """Whether the traffic has probabilities."""
        return bool(self.confidence or self.probabilities)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """How outcomes are joined with traffic. `request` is the column of its ids.

    Outcomes are expected `delay` seconds after the request. A rise of the error rate by `tolerance` is no news; labels
    should be able to show a fall of accuracy by `effect`. `groups` are columns whose values are compared, where the
    error of one may grow by `gap` beyond that of the others.
    """

    request: Column
    delay: Seconds = 7 * 86_400.0
    groups: tuple[str, ...] = ()
    tolerance: Fraction = 0.01
    effect: Fraction = 0.05
    gap: Fraction = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """A business figure: the mean of an outcome over all requests of a window, 0 where a request has none.

    Of reviews the mean over those that there are. `direction` is where it gets better. A change the other way by less
    than `minimum_effect` of its usual value is no news. `worth` is money for one `unit`; `owner` is whom to ask.
    """

    name: Column
    outcome: Literal["conversion", "revenue", "review", "ticket"]
    unit: Column
    direction: Literal["up", "down"] = "up"
    minimum_effect: Fraction = 0.05
    worth: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    owner: str = ""
