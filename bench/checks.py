"""Quality checks of a budget beyond the recipe's one metric: one small dataclass per kind.

Types and their checking only; how a check is measured is `quality.suite`, what it shows is `quality.findings`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from seatrial.optimize.errors import ConfigError

RULES = ("max_drop", "at_least", "at_most")
METRICS = ("score", "accuracy", "top_k", "f1_macro", "rmse", "mae", "r2", "retrieval")
IMAGE = ("gaussian_noise", "blur", "contrast", "brightness", "pixelate")
NUMERIC = ("noise", "missing", "scale", "rounding")
BYTES = ("truncate", "garble")
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits of a check, in the unit of its statistic; several rules may be combined, each with its own finding.

    `max_drop` is how much worse than the base the candidate may be: a fall where higher is better, a rise where lower
    is (an error, a gap). `at_least` and `at_most` bind the candidate alone. `gating = false` tells without deciding.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCheck(Rules):
    """A task metric; `score` is the recipe's own. `k` belongs to top_k and retrieval (a neighbour with the label)."""

    kind: Literal["metric"] = "metric"
    metric: Literal["score", "accuracy", "top_k", "f1_macro", "rmse", "mae", "r2", "retrieval"] = "score"
    k: Annotated[int, Field(ge=1)] = 5
    output: str | None = None

    @property
    def label(self) -> str:
        return f"metric {self.metric}" + (f" k={self.k}" if self.metric in ("top_k", "retrieval") else "")

    @property
    def higher_is_better(self) -> bool:
        return self.metric not in ("rmse", "mae")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCheck(Rules):
    """Calibration of confidence: expected calibration error over equal-mass bins, Brier score, or NLL."""

    kind: Literal["calibration"] = "calibration"
    statistic: Literal["ece", "brier", "nll"] = "ece"
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    output: str | None = None

    @property
    def label(self) -> str:
        return f"calibration {self.statistic}"

    @property
    def higher_is_better(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsCheck(Rules):
    """The worst segment that a search finds: conjunctions of up to `depth` conditions on `columns`.

    Without columns named: the loader's, or where it gives none, the class and simple statistics of the inputs. A
    segment holds at least `support` samples in either half of the evaluation set: it is found on one half and judged on
    the other. PASS says that none of the `beam` worst found is beyond the margin there, not that there is none.
    """

    kind: Literal["segments"] = "segments"
    columns: tuple[str, ...] = ()
    depth: Annotated[int, Field(ge=1, le=2)] = 2
    support: Annotated[int, Field(ge=10)] = 30
    beam: Annotated[int, Field(ge=1, le=50)] = 5

    @property
    def label(self) -> str:
        return "worst segment"


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionCheck(Rules):
    """The recipe's score on spoiled inputs. `statistic`: `score` (mean over severities) or `loss` (clean minus that).

    `corruption` is one of the image, numeric or byte kinds; `samples` of the evaluation set are asked at each severity.
    """

    kind: Literal["corruption"] = "corruption"
    corruption: Literal[
        "gaussian_noise", "blur", "contrast", "brightness", "pixelate", "noise", "missing", "scale", "rounding",
        "truncate", "garble",
    ]  # fmt: skip
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = SEVERITIES
    statistic: Literal["score", "loss"] = "loss"
    samples: Annotated[int, Field(ge=30)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        Rules.__post_init__(self)
        if not self.severities or len(set(self.severities)) < len(self.severities):
            raise ConfigError("severities must be given, each once", where=self.label)

    @property
    def label(self) -> str:
        some = "" if self.severities == SEVERITIES else f" at {','.join(map(str, self.severities))}"
        return f"corruption {self.corruption} {self.statistic}{some}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "score"

    @property
    def variants(self) -> tuple[str, ...]:
        """The names under which its answers are kept."""
        return tuple(f"{self.corruption}:{severity}:{self.seed}" for severity in self.severities)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialCheck(Rules):
    """The recipe's score under an attack made on the source's gradients and carried over to the served artifacts.

    `epsilon` is the largest change of any input element (L-infinity), in the input's own unit.
    """

    kind: Literal["adversarial"] = "adversarial"
    attack: Literal["fgsm", "pgd"] = "fgsm"
    epsilon: Annotated[float, Field(gt=0)]
    steps: Annotated[int, Field(ge=1, le=200)] = 10
    samples: Annotated[int, Field(ge=30)] = 256

    @property
    def label(self) -> str:
        return f"adversarial {self.attack} {self.epsilon:g}"

    @property
    def variants(self) -> tuple[str, ...]:
        """The name under which its answers are kept."""
        steps = f":{self.steps}" if self.attack == "pgd" else ""
        return (f"{self.attack}:{self.epsilon:g}{steps}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessCheck(Rules):
    """Rates by group: `by` is one of the loader's columns, or ``class`` for the label itself (class balance).

    `rate`: the recipe's `score`, or, for the class `positive`, the share selected (`selection`), `tpr` or `fpr`.
    `statistic`: the `worst` group's rate, or the `gap` between the best and the worst group. Groups with fewer than
    `minimum` samples are left out.
    """

    kind: Literal["fairness"] = "fairness"
    by: str = "class"
    rate: Literal["score", "selection", "tpr", "fpr"] = "score"
    positive: int = 1
    statistic: Literal["worst", "gap"] = "worst"
    minimum: Annotated[int, Field(ge=2)] = 30
    output: str | None = None

    def __post_init__(self) -> None:
        Rules.__post_init__(self)
        if self.statistic == "worst" and self.rate in ("selection", "fpr"):
            raise ConfigError(
                f"statistic = worst does not apply to {self.rate}", where=self.label, next_step="use statistic = gap"
            )
        if self.by == "class" and self.rate != "score":
            raise ConfigError(
                f"{self.rate} by class is not meaningful", where=self.label, next_step="name a column in by"
            )

    @property
    def label(self) -> str:
        return f"fairness {self.statistic} {self.rate} by {self.by}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "worst"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck(Rules):
    """Distance of the candidate's answers from the base's on the same samples; only `at_most` (cosine: `at_least`).

    `flips` is the share of samples whose highest output moved, `cosine` the mean similarity, `difference` the mean
    absolute difference, `ks` and `psi` the largest over the outputs' elements, `jensen_shannon` (base 2) between the
    distributions of predicted classes.
    """

    kind: Literal["drift"] = "drift"
    statistic: Literal["flips", "cosine", "difference", "ks", "psi", "jensen_shannon"] = "flips"
    output: str | None = None

    def __post_init__(self) -> None:
        Rules.__post_init__(self)
        if self.max_drop is not None:
            raise ConfigError("drift is already relative to the base", where=self.label, next_step="use at_most")

    @property
    def label(self) -> str:
        return f"drift {self.statistic}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "cosine"


Check = MetricCheck | CalibrationCheck | SegmentsCheck | CorruptionCheck | AdversarialCheck | FairnessCheck | DriftCheck
KINDS: Mapping[str, type[Check]] = {
    "metric": MetricCheck,
    "calibration": CalibrationCheck,
    "segments": SegmentsCheck,
    "corruption": CorruptionCheck,
    "adversarial": AdversarialCheck,
    "fairness": FairnessCheck,
    "drift": DriftCheck,
}


def check_from_json(value: Mapping[str, Any]) -> Check:
    """Read what `check_to_json` wrote.

    Raises:
        KeyError, TypeError: not a check of this version.
    """
    lists = {name: tuple(item) for name, item in value.items() if isinstance(item, list)}
    return KINDS[value["kind"]](**dict(value) | lists)


def check_to_json(check: Check) -> dict[str, Any]:
    """A check as JSON values."""
    return {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(check).items()}
