"""Attribution: which kind of shift a random sample of labels points at, and what speaks for and against it.

Three questions, in this order. Do the classes' shares alone explain what moved (label shift)? Are answers wrong more
often than their inputs explain, where the reference has such inputs (concept drift)? Did the inputs move at all
(covariate shift)? Pure: `on_sklearn_causes` finds the signs.
"""

from dataclasses import dataclass
from typing import Literal

Shift = Literal["none", "covariate", "label", "concept", "unknown"]
LEAST = 100  # labels inside the reference's support, below which nothing is excluded: chosen
_MOVED = 3.0  # standard errors
_FITS = 2.6  # standard errors within which label shift explains the outcomes
_CHANCE = 0.05  # of naming concept drift where there is none, over all segments: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Errors of the labels in one segment, inside the reference's support, beyond what their inputs explain.

    `chance` is the probability of so many errors or more, had nothing but the inputs changed.
    """

    segment: str
    labels: int
    observed: float
    expected: float
    chance: float

    def __str__(self) -> str:
        """Return it as reports print it."""
        return f"{self.segment}: error {self.observed:.1%} of {self.labels} labels, {self.expected:.1%} expected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What a window with some labels shows; differences in standard errors.

    `inputs` is how far the inputs differ from the reference, `given_classes` how far they still do once its classes
    have the window's shares. `classes` is how far those shares moved, and `outcomes` how far the errors differ from
    what new shares explain. `supported` counts the labels inside the reference's support, `residuals` are of segments.
    """

    labels: int
    supported: int
    inputs: float
    given_classes: float
    classes: float
    outcomes: float
    residuals: tuple[Residual, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """The kind of shift, the segment of a concept drift, what speaks for it, and what against."""

    shift: Shift
    segment: str = ""
    reasons: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


def attributed(signs: Signs) -> Attributed:
    """Name the shift that the signs point at."""
    if signs.labels < LEAST:
        return Attributed(shift="unknown", reasons=(f"{signs.labels} random labels, at least {LEAST} are needed",))
    moved = signs.inputs > _MOVED
    worst = min(signs.residuals, key=lambda each: each.chance, default=None)
    drifts = worst is not None and signs.supported >= LEAST and worst.chance * len(signs.residuals) < _CHANCE
    said = f"the inputs differ from the reference by {signs.inputs:.1f} standard errors"
    if moved and signs.classes > _MOVED and signs.given_classes < _MOVED and signs.outcomes < _FITS:
        left = f"with the new shares of the classes by {signs.given_classes:.1f}"
        shares = f"the classes' shares moved by {signs.classes:.1f} standard errors"
        return Attributed(shift="label", reasons=(shares, f"{said}, {left}"), against=_against(worst, drifts))
    if drifts and worst is not None:
        against = (said,) if moved else ()
        return Attributed(shift="concept", segment=worst.segment, reasons=(str(worst),), against=against)
    if moved:
        few = f"only {signs.supported} labels lie where the reference has such inputs: concept drift is not excluded"
        return Attributed(shift="covariate", reasons=(said,), against=(few,) if signs.supported < LEAST else ())
    return Attributed(shift="none", reasons=(said, f"{signs.labels} labels fit what their inputs explain"))


def _against(worst: Residual | None, drifts: bool) -> tuple[str, ...]:
    return (str(worst),) if worst is not None and drifts else ()
