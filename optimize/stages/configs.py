"""What each stage can be told, and what the build must know of it before it runs: formats, splits, code, libraries.

Types only; how a stage does its work is the business of the module of the same name, which is imported when it runs.
Adding a stage is one dataclass here, its name in `StageConfig`, and one module with ``run``.

Every configuration carries, besides its fields: `takes` and `makes` (formats), `uses` (splits that the result depends
on), `code` (files, relative to this folder) and `libraries` (distributions) whose change makes the result another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..artifact import Format
from ..samples import Split

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an output may be from the parent's; every limit that is given must hold, on every batch size tried.

    `relative_error` bounds max |difference| / max |reference|, `cosine` the mean cosine per sample from below,
    `agreement` the share of samples with the same argmax over the last axis from below.
    """

    relative_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None


EXACT = {"*": Tolerance(relative_error=1e-4)}
CAST = {"*": Tolerance(relative_error=2e-2, cosine=0.999)}
QUANTIZED = {"*": Tolerance(cosine=0.98, agreement=0.97)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast to train against the teacher: AdamW under a one-cycle learning rate.

    Where labels are classes, the loss is KL on logits at `temperature`, weighted `soft_weight` against the labels.
    """

    epochs: Annotated[int, Field(ge=0)] = 4
    batch_size: Positive = 128
    learning_rate: Rate = 4e-3
    weight_decay: float = 1e-4
    temperature: Rate = 4.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Train a smaller student on the source's outputs."""

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    code: ClassVar[tuple[str, ...]] = ("distill.py", "training.py", "../sessions/on_torch.py")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy")

    kind: Literal["distill"]
    student: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneConfig:
    """Remove whole channels by dependency groups, in `steps`, each followed by fine-tuning on the source's outputs.

    `ratio` is the share of channels to remove, `round_to` the multiple that remaining channels keep, `keep` name globs
    of layers whose outputs are not to be touched (the output layer is found by itself).
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    code: ClassVar[tuple[str, ...]] = ("prune.py", "training.py", "../sessions/on_torch.py")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy", "torch-pruning")

    kind: Literal["prune"]
    ratio: Share
    round_to: Positive = 8
    steps: Positive = 1
    keep: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: Training(epochs=2, learning_rate=2e-3))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """To ONNX through torch's dynamo exporter: dynamic batch, weights inside the file."""

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ("export.py", "../sessions/on_torch.py")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript")

    kind: Literal["export"]
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: EXACT)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig:
    """Static int8 as Q/DQ in the form that the target's kernels need; `exclude` are node name globs kept in float.

    `coverage` is the least share of multiply-accumulates that must run in int8 on this machine, else the stage fails.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    code: ClassVar[tuple[str, ...]] = ("quantize.py", "../targets.py")
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime-gpu", "numpy")

    kind: Literal["quantize"]
    target: Literal["auto", "x86-vnni", "x86", "arm64"] = "auto"
    ranges: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    exclude: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)
    coverage: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CastConfig:
    """To fp16 or bf16, with inputs and outputs in fp32, and in fp32 whatever the precision cannot carry.

    `keep` are node name globs that stay in fp32 in any case. Nodes that overflow stay so too, and of the rest the worst
    by measured error until `parity` holds. bf16 needs opset 22 and is checked on the CPU by emulation only.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    code: ClassVar[tuple[str, ...]] = ("cast.py", "../parity.py", "../sessions/on_ort.py")
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime-gpu", "numpy")

    kind: Literal["cast"]
    precision: Literal["fp16", "bf16"] = "fp16"
    keep: tuple[str, ...] = ()
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: CAST)


StageConfig = DistillConfig | PruneConfig | ExportConfig | QuantizeConfig | CastConfig
KINDS: Mapping[str, type[StageConfig]] = {
    "distill": DistillConfig,
    "prune": PruneConfig,
    "export": ExportConfig,
    "quantize": QuantizeConfig,
    "cast": CastConfig,
}
