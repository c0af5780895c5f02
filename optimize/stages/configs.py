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
from ..errors import ConfigError
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


_PRUNING = ("ratio", "latency", "heads", "ffn", "layers", "pattern")  # what a prune stage can be told to remove
_APART = {
    "ratio": ("latency", "heads", "ffn"),
    "latency": ("heads", "ffn"),
    "pattern": ("ratio", "latency", "heads", "ffn", "layers"),
}

EXACT = {"*": Tolerance(relative_error=1e-4)}
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
    """Make the model physically smaller in `steps`, each followed by fine-tuning on the source's outputs.

    What goes, by one of: `ratio`, a share of the channels (in a model with attention: of the heads and of the
    feed-forward columns); `latency`, the ratio that is searched for so that the model runs in that share of the
    parent's time (ONNX Runtime, one thread, batches of `latency_batch`); `heads` and `ffn`, shares of their own.
    `layers` drops that share of the blocks, those with the least effect, alone or before any of these.
    `pattern` "2:4" removes nothing but sets two of four neighbouring weights to zero, for sparse tensor cores; it
    stands alone, in one step, and gains nothing on a CPU.

    `importance` ranks by weights' `magnitude`, by first-order `taylor` on labelled training batches, or by the `bn`
    scale; `scope` ranks within each layer or across all. `round_to` is the multiple that remaining channels keep,
    `keep` name globs of modules that stay as they are (the output layer is found by itself).
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    code: ClassVar[tuple[str, ...]] = (
        "prune.py",
        "shrinking.py",
        "timing.py",
        "export.py",
        "training.py",
        "../sessions/on_torch.py",
        "../pace.py",
        "../pruning/widths.py",
        "../pruning/latency.py",
        "../pruning/pattern.py",
        "../pruning/on_channels.py",
        "../pruning/on_attention.py",
        "../pruning/on_blocks.py",
        "../pruning/on_layers.py",
        "../pruning/on_pattern.py",
        "../pruning/on_graphs.py",
    )
    libraries: ClassVar[tuple[str, ...]] = (
        "torch",
        "numpy",
        "torch-pruning",
        "onnx",
        "onnxscript",
        "onnxruntime-gpu",
    )

    kind: Literal["prune"]
    ratio: Share | None = None
    latency: Share | None = None
    latency_batch: Positive = 1
    heads: Share | None = None
    ffn: Share | None = None
    layers: Share | None = None
    pattern: Literal["2:4"] | None = None
    importance: Literal["magnitude", "taylor", "bn"] = "magnitude"
    scope: Literal["layer", "global"] = "layer"
    round_to: Positive = 8
    steps: Positive = 1
    keep: tuple[str, ...] = ()
    training: Training = field(default_factory=lambda: Training(epochs=2, learning_rate=2e-3))

    def __post_init__(self) -> None:
        given = [name for name in _PRUNING if getattr(self, name) is not None]
        if not given:
            raise ConfigError(
                "a prune stage says nothing of what to remove",
                where="prune",
                next_step=f"give one of {', '.join(_PRUNING)}",
            )
        for name, others in _APART.items():
            if name in given and (clash := [other for other in given if other in others]):
                raise ConfigError(
                    f"{name} does not go together with {', '.join(clash)}",
                    where=f"prune.{name}",
                    next_step="keep one of them; another prune stage may follow with the other",
                )
        if self.pattern is not None and (self.steps > 1 or self.importance != "magnitude" or self.scope != "layer"):
            raise ConfigError(
                "a pattern is chosen once, by magnitude, within each weight",
                where="prune.pattern",
                next_step="leave out steps, importance and scope",
            )
        if self.importance == "bn" and (self.heads is not None or self.ffn is not None):
            raise ConfigError(
                "bn knows no heads and no feed-forward columns",
                where="prune.importance",
                next_step="use magnitude or taylor",
            )
        if self.latency is None and self.latency_batch != 1:
            raise ConfigError(
                "latency_batch without a latency target", where="prune.latency_batch", next_step="give latency as well"
            )


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
    """Static int8 as Q/DQ in the form that the target's kernels need; `exclude` are node name globs kept in float."""

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


StageConfig = DistillConfig | PruneConfig | ExportConfig | QuantizeConfig
KINDS: Mapping[str, type[StageConfig]] = {
    "distill": DistillConfig,
    "prune": PruneConfig,
    "export": ExportConfig,
    "quantize": QuantizeConfig,
}
