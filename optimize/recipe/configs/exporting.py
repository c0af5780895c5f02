"""Configurations of the stages that change the form of a model: to ONNX, to another float type, to an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...artifact import Format, TensorSpec
from ...environment import Environment
from ...errors import ConfigError
from ...samples import Split
from .terms import CAST, ENGINE, EXACT, Positive, Profile, Shapes, StageConfig, Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(StageConfig):
    """To ONNX through torch's dynamo exporter: dynamic batch, weights inside the file.

    Without `parity` the outputs may differ from the module's by what rounding explains (`rounding.limit`).
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript")
    makes_reference: ClassVar[bool] = True

    kind: Literal["export"]
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    parity: Mapping[str, Tolerance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageConfig(StageConfig):
    """To one file of `torch.export`, which runs in torch without the module's source; served by the Python backend."""

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch-export"
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    kind: Literal["package"]
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: EXACT)


Range = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig(StageConfig):
    """To a TensorRT engine, strongly typed: types come from the graph, so there is no precision to choose here.

    `batch` is [min, opt, max] of the batch axis and `dynamic` the same for other symbolic axes by name; or `profiles`
    gives complete shapes per input, several where one range would be tuned badly. `serves` are batch sizes that the
    deployment will send, each must lie in a profile. `workspace_mib` bounds scratch memory (None: all of the GPU's),
    `builder_level` is TensorRT's 0 to 5. `version_compatible` and `hardware_compatible` trade speed for portability,
    `refit` lets weights be replaced, `strip_plan` leaves them out of the engine, `weight_streaming` keeps them in host
    memory, `sparse_weights` uses 2:4 sparsity, `tf32` allows it for float32. `timing_cache` keeps the builder's timings
    beside the engine. A later build in the same folder reuses them, so that tactic selection is reproducible.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "tensorrt"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")

    kind: Literal["compile"]
    batch: Range | None = None
    dynamic: Mapping[str, Range] = field(default_factory=dict)
    profiles: tuple[Mapping[str, Shapes], ...] = ()
    serves: tuple[Positive, ...] = ()
    workspace_mib: Positive | None = None
    builder_level: Annotated[int, Field(ge=0, le=5)] = 3
    version_compatible: bool = False
    hardware_compatible: Literal["none", "ampere+", "same-compute-capability"] = "none"
    refit: bool = False
    strip_plan: bool = False
    weight_streaming: bool = False
    sparse_weights: bool = False
    tf32: bool = True
    timing_cache: bool = True
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: ENGINE)

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the kinds of GPU that the engine is for, with their compute capability."""
        capabilities = [each.compute_capability for each in environment.gpu_settings]
        return ", ".join((*environment.gpu_kinds, *capabilities))

    def accepted_shapes(self, inputs: Sequence[TensorSpec]) -> tuple[Profile, ...]:
        """Return the profiles, or the one that the ranges give; none where no input is dynamic.

        A first axis that is symbolic is the batch, whatever it is called.

        Raises:
            ConfigError: a dynamic axis without a range.
        """
        if self.profiles:
            return self.profiles
        profile: dict[str, Shapes] = {}
        for spec in inputs:
            if any(isinstance(dim, str) for dim in spec.shape):
                axes = [self._range(spec, axis, dim) for axis, dim in enumerate(spec.shape)]
                low, best, high = (tuple(part) for part in zip(*axes, strict=True))
                profile[spec.name] = Shapes(min=low, opt=best, max=high)
        return (profile,) if profile else ()

    def _range(self, spec: TensorSpec, axis: int, dim: int | str) -> Range:
        if isinstance(dim, int):
            return (dim, dim, dim)
        known = self.dynamic.get(dim) or (self.batch if axis == 0 else None)
        if known is None:
            key = "batch" if axis == 0 else f"dynamic.{dim}"
            raise ConfigError(
                f"axis {axis} of input {spec.name!r} is dynamic ({dim}) and has no range",
                where="stages: compile",
                next_step=f"write {key} = [min, opt, max] in this stage, or give profiles",
            )
        return known

    def __post_init__(self) -> None:
        if self.profiles and (self.batch or self.dynamic):
            raise ConfigError(
                "profiles already give every range", where="stages: compile", next_step="remove batch and dynamic"
            )
        for name, (low, best, high) in {"batch": self.batch or (1, 1, 1), **self.dynamic}.items():
            if not 1 <= low <= best <= high:
                raise ConfigError(
                    f"{name} = [{low}, {best}, {high}] violates 1 <= min <= opt <= max",
                    where="stages: compile",
                    next_step="put the three in ascending order",
                )
        if not 0 <= self.builder_level <= 5:
            raise ConfigError(
                "builder_level must be between 0 and 5", where="stages: compile", next_step="use 3, the default"
            )
        if self.strip_plan and self.weight_streaming:
            raise ConfigError(
                "a stripped plan has no weights to stream", where="stages: compile", next_step="set only one of the two"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CastConfig(StageConfig):
    """To fp16 or bf16, with inputs and outputs in fp32, and in fp32 whatever the precision cannot carry.

    `keep` are node name globs and `keep_operators` operators that stay in fp32 in any case; one that names nothing is
    refused. Nodes that overflow stay so too, nodes with a constant that vanishes (a guard of 1e-8) with what divides by
    it, nodes with graphs inside and operators that are not ONNX's; of the rest the worst by measured error until
    `parity` holds. bf16 needs opset 22 and is checked on the CPU by emulation only.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime-gpu", "numpy")

    kind: Literal["cast"]
    precision: Literal["fp16", "bf16"] = "fp16"
    keep: tuple[str, ...] = ()
    keep_operators: tuple[str, ...] = ()
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: CAST)
