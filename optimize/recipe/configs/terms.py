"""Types that several stage configurations share: their base, bounded numbers, and tolerances of artifact and parent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from math import isfinite
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...artifact import Format, TensorSpec
from ...environment import Environment
from ...errors import ConfigError
from ...samples import Split

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]
OnnxEngine = Literal[
    "onnxruntime",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "openvino-bf16",
]
"""Engines that time an ONNX file inside a stage; ``onnxruntime`` is the one on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Tolerances between an output and the parent's; every limit that is set must hold, on every batch size tried.

    `spread_error` bounds the root mean square difference over the output's own spread, which is its standard deviation
    over the samples, and `column_error` the same of the worst element of a row. `relative_error` bounds
    max |difference| / max |reference|, `snr` the ratio of the parent's energy to the difference's in dB from below,
    `cosine` the mean cosine per sample from below. `agreement` is the least fraction of rows with the same decision
    (the argmax over the last axis, of a map over its channels; whole numbers, masks and texts are decisions
    themselves), and `minority` the same over the rows whose decision is not the most frequent one. Both are broken
    where an exact binomial bound says so.

    Raises:
        ConfigError: a limit that nothing can break, or that is no number.
    """

    relative_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    snr: float | None = None
    spread_error: float | None = None
    column_error: float | None = None
    minority: float | None = None

    def __post_init__(self) -> None:
        least = {"cosine": -1.0, "agreement": 0.0, "minority": 0.0}
        for spot in fields(self):
            limit = getattr(self, spot.name)
            if limit is None:
                continue
            if not isfinite(limit) or limit <= least.get(spot.name, limit - 1):
                raise ConfigError(
                    f"{spot.name} = {limit:g} is a limit that no output can break",
                    where="parity",
                    next_step="set a limit that a wrong output would break, for instance spread_error = 0.2",
                )

    @property
    def stated(self) -> tuple[str, ...]:
        """Names of the limits that are given."""
        return tuple(spot.name for spot in fields(self) if getattr(self, spot.name) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """The least, the preferred and the greatest shape of one input: TensorRT tunes for `opt`, accepts all between."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = Mapping[str, Shapes]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """Base of every stage's configuration: its fields are the stage's keys in a recipe, its attributes serve the build.

    `takes` and `makes` are formats, `uses` the splits that the result depends on, `libraries` those whose change makes
    the result another. A field `parity` states how far the result may be from its parent; a stage without one is not
    compared. `needs_float` refuses a source that is quantized already. The options of a stage that `makes_reference`
    also make the float reference of the build.
    """

    takes: ClassVar[Format]
    makes: ClassVar[Format]
    libraries: ClassVar[tuple[str, ...]] = ()
    needs_float: ClassVar[bool] = False
    makes_reference: ClassVar[bool] = False

    kind: str

    @property
    def uses(self) -> tuple[Split, ...]:
        """The splits of the samples that the result depends on."""
        return ()

    @property
    def references(self) -> tuple[str, ...]:
        """The user's own code that the configuration names."""
        return ()

    @property
    def recipe_files(self) -> tuple[str, ...]:
        """The files beside the recipe that the stage reads; their bytes count."""
        return ()

    @property
    def engines(self) -> tuple[tuple[str, str], ...]:
        """Engines and devices in which the stage times ONNX files; a build checks them before it starts."""
        return ()

    @property
    def required_coverage(self) -> float:
        """The least fraction of multiply-accumulates that must run in `covered_precision`, on this machine."""
        return 0.0

    @property
    def covered_precision(self) -> Literal["int8", "fp8"]:
        """The precision that `required_coverage` counts; fp8 is counted as the file asks for it, on any machine."""
        return "int8"

    @property
    def contract(self) -> Mapping[str, Tolerance] | None:
        """The parity contract, the default for outputs that the recipe does not name; None where there is none."""
        stated: Mapping[str, Tolerance] | None = getattr(self, "parity", None)
        return None if stated is None else {**self.default_contract(), **stated}

    @classmethod
    def default_contract(cls) -> Mapping[str, Tolerance]:
        """Return the contract of a stage that states none; empty where rounding gives it (export), or there is none."""
        for spot in fields(cls):
            if spot.name == "parity" and spot.default_factory is not MISSING:
                return dict(spot.default_factory())
        return {}

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return what of the machine, and of the recipe's metric, makes the result another; here nothing."""
        return ""

    def accepted_shapes(self, inputs: Sequence[TensorSpec]) -> tuple[Profile, ...]:
        """Return the ranges of shapes that the result accepts, where it accepts fewer than its inputs declare."""
        return ()


# Default contracts, per output. The numbers are chosen between what sound artifacts reach and what wrong ones do:
# - int8 of MiniLM keeps a cosine of 0.993 (dynamic, per channel) or 0.982 (per tensor), and a graph that collapsed
#   under static ranges over all operators 0.36; `spread_error` 0.2 is a signal of 14 dB over the noise.
# - casts: fp16 rounds to 5e-4 of a value, and forty roundings in a row stay below 2e-2.
# - engines: TensorRT may reorder sums and use TF32 (10 bits of mantissa), but no integers that the graph does not name.
# - minority 0.6: where one constant decision replaces all others, the rarer ones agree in 0 of all rows.
# `scripts/benchmark-faults` measures both error rates of these contracts.
EXACT = {"*": Tolerance(relative_error=1e-4, spread_error=0.02)}
CAST = {
    "*": Tolerance(relative_error=2e-2, cosine=0.999, spread_error=0.1, column_error=0.25, agreement=0.97, minority=0.6)
}
QUANTIZED = {"*": Tolerance(cosine=0.98, agreement=0.97, minority=0.6, spread_error=0.2, column_error=0.5)}
ENGINE = {"*": Tolerance(cosine=0.999, agreement=0.99, minority=0.6, spread_error=0.1, column_error=0.25)}
