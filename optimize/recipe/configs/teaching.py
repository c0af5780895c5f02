"""Configurations of the stages that train: schedule, losses against the teacher, fake quantization."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...artifact import Format
from ...environment import Environment
from ...errors import ConfigError
from ...samples import Split
from ..targets import resolve
from .terms import QUANTIZED, Positive, Rate, StageConfig, Tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Schedule of training against the teacher: AdamW under a one-cycle learning rate.

    Where labels are classes, the loss is KL on logits at `temperature`, weighted `soft_weight` against the labels.
    `checkpoint_every` counts steps between two checkpoints.

    `processes` share every batch among torch.distributed workers (gloo on the CPU, nccl on GPUs), with the result of
    one process up to rounding. Not so under BatchNorm, whose statistics are then of one worker's share (unless the
    student is built with ``torch.nn.SyncBatchNorm``, which needs GPUs), nor under dropout, which every worker draws for
    itself. Training with `device` = ``cuda`` has its tests in tests/gpu and is experimental.
    """

    epochs: Annotated[int, Field(ge=0)] = 4
    batch_size: Positive = 128
    learning_rate: Rate = 4e-3
    weight_decay: float = 1e-4
    temperature: Rate = 4.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = 0.9
    checkpoint_every: Positive = 200
    processes: Positive = 1
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.processes > self.batch_size:
            raise ConfigError(
                f"{self.processes} processes cannot share a batch of {self.batch_size}",
                where="training.processes",
                next_step="use at most as many processes as samples in a batch",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Hidden states to imitate: name globs of student's and teacher's layers, paired in order of definition.

    `*` stands for one level of a dotted name (``encoder.layer.*``). Where widths differ, a linear projection is learned
    and dropped after training; where the grids of images differ, the finer one is averaged down. The loss is the
    squared error over the teacher's squared norm, sample by sample (FitNets, Romero et al., 2015; normalized).
    """

    student: str
    teacher: str
    weight: Rate = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention to imitate, by globs as in `Features`.

    `maps` = ``activations`` compares where convolutional layers are active: squares summed over channels, normalized
    (Zagoruyko and Komodakis, 2017). ``weights`` compares the probabilities of attention layers that return them as the
    second value or hold them as ``attention_weights``: KL divergence of the means over heads (MiniLM, Wang et al.,
    2020); padded positions count like all others.
    """

    student: str
    teacher: str
    maps: Literal["activations", "weights"] = "activations"
    weight: Rate = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """Cosine similarities between the samples of a batch to imitate: of the outputs, or of two named layers.

    For embeddings: neighbours stay neighbours although single values may turn (Park et al., 2019).
    """

    student: str | None = None
    teacher: str | None = None
    weight: Rate = 1.0

    def __post_init__(self) -> None:
        if (self.student is None) != (self.teacher is None):
            raise ConfigError(
                "relations need both layers or neither",
                where="relations",
                next_step="name student and teacher, or neither (then the outputs are compared)",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig(StageConfig):
    """Train a smaller student on the source's outputs, and on its hidden states where `features` and the like are set.

    `output_weight` weighs the loss on outputs against the others. The teacher runs once per sample, and its outputs are
    stored. Its hidden states are stored too, up to `hidden_limit_mb` in all (in `hidden_precision`); beyond that they
    are computed again for every batch.
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy")

    kind: Literal["distill"]
    student: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    output_weight: Annotated[float, Field(ge=0)] = 1.0
    features: tuple[Features, ...] = ()
    attention: tuple[Attention, ...] = ()
    relations: tuple[Relations, ...] = ()
    hidden_limit_mb: Annotated[int, Field(ge=0)] = 512
    hidden_precision: Literal["float32", "float16"] = "float32"

    @property
    def references(self) -> tuple[str, ...]:
        """The student's factory."""
        return (self.student,)

    def __post_init__(self) -> None:
        if not (self.output_weight or self.features or self.attention or self.relations):
            raise ConfigError(
                "this stage has no loss to train on",
                where="output_weight",
                next_step="give a positive output_weight, or features, attention or relations",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class QatConfig(StageConfig):
    """Int8 by fine-tuning under fake quantization on the source's outputs, written as Q/DQ: torch in, ONNX out.

    For models that lose too much quality with calibration alone. Weights have one scale per output channel, activations
    one per tensor, as the target's kernels need them; `exclude` are module name globs kept in float. The module must be
    traceable by torch.fx. Batch normalization is frozen and folded.
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("train", "calibration")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript", "numpy")

    kind: Literal["qat"]
    target: Literal["auto", "x86-vnni", "x86", "arm64"] = "auto"
    exclude: tuple[str, ...] = ()
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    training: Training = field(default_factory=lambda: Training(epochs=1, learning_rate=5e-4))
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the target whose integers are meant, ``auto`` resolved."""
        return resolve(self.target, environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortsConfig(StageConfig):
    """Train the module on, its weak segments `weight` times as often, and keep the result only where they gain.

    `column` names a column of the loader whose values are the segments; without it they are the classes. `segments` are
    the weak ones by value, as ``seatrial quality`` shows them; without them the `weakest` with the lowest mean metric
    are found on one half of the calibration split. The other half judges: every weak segment must gain, its two-sided
    95 % interval excluding 0 (divided among them), and no other may lose more than `max_segment_drop` by the upper end
    of its one-sided 95 % interval. Segments of fewer than `support` samples there are not judged, and named in the
    notes. `training` learns from the source's outputs and the labels, as `soft_weight` weighs them.
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train", "calibration")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "numpy")

    kind: Literal["cohorts"]
    column: str | None = None
    segments: tuple[str | int, ...] = ()
    weakest: Positive = 1
    weight: Annotated[int, Field(ge=2)] = 4
    support: Annotated[int, Field(ge=10)] = 30
    max_segment_drop: Annotated[float, Field(gt=0)] = 0.02
    training: Training = field(default_factory=lambda: Training(epochs=2, learning_rate=1e-3, soft_weight=0.3))

    def __post_init__(self) -> None:
        if not self.training.epochs:
            raise ConfigError(
                "without an epoch nothing is trained", where="training.epochs", next_step="give at least 1"
            )

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the recipe's metric, by which segments are compared."""
        return metric()
