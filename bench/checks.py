"""Quality checks of a budget beyond the recipe's one metric: the base of all, and their registry.

A check is one class: its keys in a budget, what it must be asked, how it is computed from the outputs, what it shows.
The checks of this project are in `quality`; one of another package is an entry point of the group ``seatrial.checks``.
None is imported before a budget names it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar

from seatrial.optimize.config import ByKind
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.registry import Origin, Registry, subclass_of
from seatrial.optimize.samples import Array, Samples

GROUP = "seatrial.checks"
RULES = ("max_drop", "at_least", "at_most")
_OURS = "seatrial.bench.quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture of what a check found: plots of one title are one, their data joined; `draw` returns HTML."""

    title: str
    lead: str
    data: Any
    draw: Callable[[Any], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Base of all checks: limits in the unit of its statistic; several may be combined, each with its own finding.

    `max_drop` is how much worse than the base the candidate may be: a fall where higher is better, a rise where lower
    is (an error, a gap). `at_least` and `at_most` bind the candidate alone. `gating = false` tells without deciding.

    A check that asks altered inputs names them in `variants`, and each is asked on `asked` samples. Where it
    `needs_source`, they are made once from the recipe's source (`craft`), else for each share (`altered`).
    """

    needs_source: ClassVar[bool] = False

    kind: str
    max_drop: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    gating: bool = True

    def __post_init__(self) -> None:
        if not self.rules:
            raise ConfigError("the check has no rule", where=self.label, next_step=f"give one of {', '.join(RULES)}")
        for name, value in self.rules.items():
            if not math.isfinite(value) or (name == "max_drop" and value < 0):
                raise ConfigError(f"{name} must be finite, and max_drop not negative, got {value}", where=self.label)
        wrong = "at_most" if self.higher_is_better else "at_least"
        if getattr(self, wrong) is not None:
            raise ConfigError(
                f"{wrong} would forbid improvement here", where=self.label, next_step="use the other rule"
            )

    @property
    def rules(self) -> dict[str, float]:
        """The rules given, by name."""
        return {name: value for name in RULES if (value := getattr(self, name)) is not None}

    @property
    def label(self) -> str:
        """Return its name in findings."""
        return "check"

    @property
    def higher_is_better(self) -> bool:
        """Return whether higher values of the statistic are better."""
        return True

    @property
    def unit(self) -> str:
        """Return the unit of the statistic (`measurement.spell`)."""
        return "score"

    @property
    def variants(self) -> tuple[str, ...]:
        """The names under which responses to altered inputs are kept."""
        return ()

    @property
    def asked(self) -> int:
        """The number of samples that each variant is asked on."""
        return 0

    def ready(self, samples: Samples) -> None:
        """Check before anything is served that it can be asked of these samples.

        Raises:
            ConfigError: it cannot.
        """

    def altered(self, variant: str, inputs: Mapping[str, Array], ranges: Mapping[str, Any], first: int) -> Any:
        """Return the inputs [n, ...] of one variant, the same for the same arguments; `first` numbers the first sample.

        Raises:
            ConfigError: no input is of the sort that it alters.
        """
        raise NotImplementedError

    def craft(self, module: Any, inputs: Mapping[str, Array], labels: Array, outputs: Any, bounds: Any) -> Any:
        """Return the altered inputs, [n, ...], by variant, from the source's module; only where it `needs_source`."""
        raise NotImplementedError

    def quantity(self, evidence: Any, rule: str) -> Any:
        """Return what a rule judges (`quality.quantities.Quantity`), from both arms' outputs (`quality.evidence`).

        Raises:
            ConfigError, SourceError: the samples or outputs do not have what it needs.
        """
        raise NotImplementedError

    def note(self, evidence: Any) -> str:
        """Return a sentence that helps to act on the finding, with a space before it; empty without one."""
        return ""

    def plot(self, evidence: Any) -> Plot | None:
        """Return a picture for the page; None where a number says it all."""
        return None

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> tuple["Check", ...]:
        """Return the checks to ask where no budget names any: `against` a base, with a source to `attack`."""
        return ()


def informational(*, against: bool, low: bool = False) -> dict[str, Any]:
    """A rule that only asks for the figure: what changed where there is a base, else how much it is."""
    if against:
        return {"max_drop": 0.0, "gating": False}
    return {"at_most": 1.0, "gating": False} if low else {"at_least": 0.0, "gating": False}


def _form(origin: Origin, found: object) -> type[Check]:
    check = subclass_of(Check)(origin, found)
    if not is_dataclass(check) or check.quantity is Check.quantity:
        raise TypeError(f"{check.__name__} must be a frozen dataclass with a method quantity")
    return check


CHECKS: Registry[type[Check]] = Registry(
    "check",
    GROUP,
    {
        "metric": f"{_OURS}.metrics:MetricCheck",
        "calibration": f"{_OURS}.calibration:CalibrationCheck",
        "fairness": f"{_OURS}.fairness:FairnessCheck",
        "segments": f"{_OURS}.segments:SegmentsCheck",
        "corruption": f"{_OURS}.corruption:CorruptionCheck",
        "adversarial": f"{_OURS}.adversarial:AdversarialCheck",
        "drift": f"{_OURS}.drift:DriftCheck",
    },
    _form,
)
BY_KIND = ByKind(of=lambda kind, base: CHECKS.get(kind) if kind in CHECKS else None, known=lambda: CHECKS.names)
