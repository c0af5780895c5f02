"""What each stage can be told, and what the build must know of it before it runs: formats, splits, code, libraries.

Types only; how a stage does its work is the business of the module of the same name, which is imported when it runs.
Adding a stage is one dataclass here, its name in `StageConfig`, and one module with ``run``.

Every configuration carries, besides its fields: `takes` and `makes` (formats), `uses` (splits that the result depends
on), `code` (files, relative to this folder) and `libraries` (distributions) whose change makes the result another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..artifact import Format
from ..errors import ConfigError
from ..samples import Split
from ..targets import TARGETS, Contract, Method

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
CAST = {"*": Tolerance(relative_error=2e-2, cosine=0.999)}
QUANTIZED = {"*": Tolerance(cosine=0.98, agreement=0.97)}
ENGINE = {"*": Tolerance(cosine=0.999, agreement=0.99)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast to train against the teacher: AdamW under a one-cycle learning rate.

    Where labels are classes, the loss is KL on logits at `temperature`, weighted `soft_weight` against the labels.
    `checkpoint_every` counts steps between two checkpoints.

    `processes` share every batch among torch.distributed workers (gloo on the CPU, nccl on GPUs), with the result of
    one process up to rounding. Not so under BatchNorm, whose statistics are then of one worker's share (unless the
    student is built with ``torch.nn.SyncBatchNorm``, which needs GPUs), nor under dropout, which every worker draws for
    itself. Training with `device` = ``cuda`` has its tests in tests/gpu and was never run on a GPU so far.
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
                "relations name one layer only",
                where="relations",
                next_step="name student and teacher, or neither (then the outputs are compared)",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """Train a smaller student on the source's outputs, and on its inner states where `features` and the like say so.

    `output_weight` weighs the loss on outputs against the others. The teacher is asked once per sample: its answers are
    kept; its inner states too, up to `hidden_limit_mb` in all (in `hidden_precision`), else they are computed anew for
    every batch.
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "torch"
    uses: ClassVar[tuple[Split, ...]] = ("train",)
    code: ClassVar[tuple[str, ...]] = (
        "distill.py",
        "lesson.py",
        "training.py",
        "teacher.py",
        "objective.py",
        "losses.py",
        "layers.py",
        "workers.py",
        "worker.py",
        "checkpoints.py",
        "../sessions/on_torch.py",
    )
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

    def __post_init__(self) -> None:
        if not (self.output_weight or self.features or self.attention or self.relations):
            raise ConfigError(
                "this stage has no loss to train on",
                where="output_weight",
                next_step="give a positive output_weight, or features, attention or relations",
            )


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
        "teacher.py",
        "objective.py",
        "losses.py",
        "layers.py",
        "checkpoints.py",
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
class Override:
    """Other integer types for some nodes: those whose name fits the glob `match` and whose type is `operator`.

    ``"float"`` on either side keeps the whole node in float, since no kernel multiplies integers by floats. A tensor
    has one type: `activations` holds for every consumer of the node's input. The first override that fits a node wins.
    """

    match: str = "*"
    operator: str | None = None
    activations: Literal["float", "uint8", "int8", "uint16"] | None = None
    weights: Literal["float", "int8", "int4"] | None = None
    per_channel: bool | None = None

    def __post_init__(self) -> None:
        if self.match == "*" and self.operator is None:
            raise ConfigError("an override fits every node", where="overrides", next_step="give match or operator")
        sides = [side for side in (self.activations, self.weights) if side is not None]
        if not sides and self.per_channel is None:
            raise ConfigError(
                f"the override of {self.nodes} changes nothing",
                where="overrides",
                next_step="give activations, weights or per_channel",
            )
        if "float" in sides and (set(sides) != {"float"} or self.per_channel is not None):
            raise ConfigError(
                f"the override of {self.nodes} mixes float and integers; no kernel does",
                where="overrides",
                next_step='give "float" alone; for integer weights under float activations use method = "weight-only"',
            )
        if self.weights == "int4" and (self.operator or "").startswith("Conv"):
            raise ConfigError(
                "int4 weights are for matrix products; no kernel convolves with them",
                where="overrides",
                next_step='use weights = "int8" or "float" there',
            )

    @property
    def nodes(self) -> str:
        """Which nodes it means, for people."""
        return f"{self.operator or 'every operator'} called {self.match!r}"

    @property
    def keeps_float(self) -> bool:
        """Whether these nodes are left alone."""
        return "float" in (self.activations, self.weights)

    def fits(self, name: str, operator: str) -> bool:
        """Whether it speaks of the node of that name and type."""
        return fnmatchcase(name, self.match) and self.operator in (None, operator)


_QUANTIZATION = "../quantization"
_BLOCKS: Mapping[str, Any] = {"bits": 8, "block_size": 128, "accuracy_level": 0}
_RANGES: Mapping[str, Any] = {"ranges": "minmax", "percentile": 99.99, "bias_correction": False}
_FOREIGN: Mapping[Method, Mapping[str, Any]] = {  # what means nothing to a method, and must stay as it is
    "static": _BLOCKS,
    "dynamic": {**_BLOCKS, **_RANGES},
    "weight-only": {**_RANGES, "smooth": None, "per_channel": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig:
    """To integers, in the form that the target's kernels need.

    `method` is ``static`` (8-bit weights and activations as Q/DQ, ranges from the calibration split), ``dynamic``
    (8-bit weights, activation ranges measured at run time; for transformers) or ``weight-only`` (`bits`-bit weights in
    blocks of `block_size` under float activations; `accuracy_level` 4 lets the kernel multiply in int8, 0 leaves it to
    choose).

    `ranges` says how a static range is made from what was seen; `percentile` is the share in percent that the method
    of that name keeps. `smooth` migrates that share of the activations' outliers into the weights (SmoothQuant's alpha,
    Xiao et al. 2022); `bias_correction` takes the mean error that quantization causes out of the biases. `operators`
    are the types to quantize (default: what suits graph and target; with layer normalizations in the graph, or with
    `smooth`, the weighted ones alone), `exclude` node name globs kept in float, `overrides` other types for some nodes.

    `coverage` is the least share of multiply-accumulates that must run in int8 on this machine, else the stage fails.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    code: ClassVar[tuple[str, ...]] = (
        "quantize.py",
        "../targets.py",
        "../sessions/on_ort.py",
        *(f"{_QUANTIZATION}/{name}.py" for name in ("histogram", "ranges", "statistics", "on_calibration", "on_graph")),
        *(
            f"{_QUANTIZATION}/{name}.py"
            for name in ("smooth", "on_smooth", "on_bias", "on_static", "on_residual", "on_weights")
        ),
    )
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime-gpu", "numpy")

    kind: Literal["quantize"]
    target: Literal["auto", "x86-vnni", "x86", "arm64", "cuda", "tensorrt"] = "auto"
    method: Method = "static"
    ranges: Literal["minmax", "entropy", "percentile", "mse"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    per_channel: bool = True
    smooth: Share | None = None
    bias_correction: bool = False
    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 128
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    exclude: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)
    coverage: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        foreign = _FOREIGN[self.method]
        if wrong := [name for name, default in foreign.items() if getattr(self, name) != default]:
            raise ConfigError(
                f"{', '.join(wrong)} mean{'' if len(wrong) > 1 else 's'} nothing to method {self.method!r}",
                where="quantize",
                next_step="remove it or choose another method",
            )
        if self.ranges != "percentile" and self.percentile != _RANGES["percentile"]:
            raise ConfigError(
                f"percentile means nothing to ranges {self.ranges!r}",
                where="quantize",
                next_step='remove it, or use ranges = "percentile"',
            )
        if self.target == "auto":  # whichever processor it becomes, the stage asks again under its name
            contracts = [contract for contract in TARGETS.values() if not contract.gpu]
        else:
            contracts = [TARGETS[self.target]]
        if not any(self.method in contract.methods for contract in contracts):
            raise ConfigError(
                f"target {self.target!r} has no kernels for method {self.method!r}",
                where="quantize",
                next_step=f"use {' or '.join(contracts[0].methods)}, or another target",
            )
        for override in self.overrides:
            self._check(override, contracts)

    def _check(self, override: Override, contracts: Sequence[Contract]) -> None:
        def refuse(why: str, instead: str) -> ConfigError:
            return ConfigError(f"the override of {override.nodes}: {why}", where="overrides", next_step=instead)

        asked = override.activations
        if asked in (None, "float"):
            pass
        elif self.method == "weight-only":
            raise refuse("weight-only leaves activations in float", "remove activations, or use method static")
        elif self.method == "dynamic" and asked != "uint8":
            raise refuse("activations that are quantized at run time are uint8", 'use "uint8" or "float"')
        elif self.method == "static" and not any(asked in (c.activations, *c.also_allowed) for c in contracts):
            legal = ", ".join((contracts[0].activations, *contracts[0].also_allowed))
            raise refuse(f"target {self.target!r} has no kernels for {asked} activations", f"use {legal} or float")
        if override.weights == "int4" and self.method == "dynamic":
            raise refuse("dynamic kernels take 8-bit weights", 'use "int8", or method weight-only')
        if override.weights == "int4" and self.target in ("cuda", "tensorrt") and self.method == "static":
            raise refuse("4-bit weights under 8-bit activations have no kernel there", 'use "int8" or "float"')
        if override.per_channel is not None and self.method != "static":
            raise refuse(f"method {self.method!r} has one granularity for all nodes", "remove per_channel there")

    @property
    def uses(self) -> tuple[Split, ...]:
        """Only ranges, smoothing and corrections are made from samples; plain dynamic and weight-only need none."""
        return ("calibration",) if self.method == "static" or self.smooth is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QatConfig:
    """Int8 by fine-tuning under fake quantization on the source's outputs, written as Q/DQ: torch in, ONNX out.

    For what loses too much when it is only calibrated. Weights have one scale per output channel, activations one per
    tensor, as the target's kernels need them; `exclude` are module name globs kept in float. The module must be
    traceable by torch.fx. Batch normalization is frozen and folded.
    """

    takes: ClassVar[Format] = "torch"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("train", "calibration")
    code: ClassVar[tuple[str, ...]] = (
        "qat.py",
        "grids.py",
        "export.py",
        "training.py",
        "teacher.py",
        "objective.py",
        "losses.py",
        "layers.py",
        "checkpoints.py",
        "../targets.py",
        "../sessions/on_torch.py",
    )
    libraries: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript", "numpy")

    kind: Literal["qat"]
    target: Literal["auto", "x86-vnni", "x86", "arm64"] = "auto"
    exclude: tuple[str, ...] = ()
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    training: Training = field(default_factory=lambda: Training(epochs=1, learning_rate=5e-4))
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """The least, the preferred and the greatest shape of one input: TensorRT tunes for `opt`, accepts all between."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = Mapping[str, Shapes]
Range = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileConfig:
    """To a TensorRT engine, strongly typed: types come from the graph, so there is no precision to choose here.

    `batch` is [min, opt, max] of the batch axis and `dynamic` the same for other symbolic axes by name; or `profiles`
    gives complete shapes per input, several where one range would be tuned badly. `serves` are batch sizes that the
    deployment will send, each must lie in a profile. `workspace_mib` bounds scratch memory (None: all of the GPU's),
    `builder_level` is TensorRT's 0 to 5. `version_compatible` and `hardware_compatible` trade speed for portability,
    `refit` lets weights be replaced, `strip_plan` leaves them out of the engine, `weight_streaming` keeps them in host
    memory, `sparse_weights` uses 2:4 sparsity, `tf32` allows it for float32. `timing_cache` keeps what was timed beside
    the engine; carrying the plan out beside an earlier one starts from it, so that the builder decides alike.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "tensorrt"
    uses: ClassVar[tuple[Split, ...]] = ()
    code: ClassVar[tuple[str, ...]] = (
        "compile.py",
        "../legality.py",
        "../on_onnx.py",
        "../engine.py",
        "../sessions/on_tensorrt.py",
    )
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "tensorrt", "tensorrt-cu13")

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

    def __post_init__(self) -> None:
        if self.profiles and (self.batch or self.dynamic):
            raise ConfigError(
                "profiles already say every range", where="stages: compile", next_step="remove batch and dynamic"
            )
        for name, (low, best, high) in {"batch": self.batch or (1, 1, 1), **self.dynamic}.items():
            if not 1 <= low <= best <= high:
                raise ConfigError(
                    f"{name} = [{low}, {best}, {high}] does not keep 1 <= min <= opt <= max",
                    where="stages: compile",
                    next_step="order the three",
                )
        if not 0 <= self.builder_level <= 5:
            raise ConfigError("builder_level goes from 0 to 5", where="stages: compile", next_step="3 is the default")
        if self.strip_plan and self.weight_streaming:
            raise ConfigError(
                "a stripped plan has no weights to stream", where="stages: compile", next_step="choose one of the two"
            )


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


StageConfig = DistillConfig | PruneConfig | ExportConfig | QuantizeConfig | QatConfig | CastConfig | CompileConfig
KINDS: Mapping[str, type[StageConfig]] = {
    "distill": DistillConfig,
    "prune": PruneConfig,
    "export": ExportConfig,
    "quantize": QuantizeConfig,
    "qat": QatConfig,
    "compile": CompileConfig,
    "cast": CastConfig,
}
