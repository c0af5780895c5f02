"""Configuration of the quantize stage: method, target, ranges, and other types for some nodes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...artifact import Format, digest_bytes
from ...config import renamed
from ...environment import Environment
from ...errors import ConfigError
from ...globs import fits
from ...samples import Split
from ..targets import TARGETS, Contract, Method, resolve
from .terms import QUANTIZED, OnnxEngine, Positive, Share, StageConfig, Tolerance


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
            raise ConfigError("the override matches every node", where="overrides", next_step="give match or operator")
        sides = [side for side in (self.activations, self.weights) if side is not None]
        if not sides and self.per_channel is None:
            raise ConfigError(
                f"the override of {self.nodes} changes nothing",
                where="overrides",
                next_step="set activations, weights or per_channel",
            )
        if "float" in sides and (set(sides) != {"float"} or self.per_channel is not None):
            raise ConfigError(
                f"the override of {self.nodes} mixes float and integers, which no kernel supports",
                where="overrides",
                next_step='set both to "float", or use method = "weight-only" for integer weights alone',
            )
        if self.weights == "int4" and (self.operator or "").startswith("Conv"):
            raise ConfigError(
                "int4 weights work only in matrix products; no kernel convolves with them",
                where="overrides",
                next_step='use weights = "int8" or "float" there',
            )

    @property
    def nodes(self) -> str:
        """Description of the matched nodes, for display."""
        return f"{self.operator or 'every operator'} called {self.match!r}"

    @property
    def keeps_float(self) -> bool:
        """True if these nodes stay in float."""
        return "float" in (self.activations, self.weights)

    def fits(self, name: str, operator: str) -> bool:
        """Return True if it matches the node of that name and type."""
        return fits(self.match, name) and self.operator in (None, operator)


_BLOCKS: Mapping[str, Any] = {"bits": 8, "block_size": 128, "accuracy_level": 0}
_WEIGHTS: Mapping[str, Any] = {**_BLOCKS, "storage": "blocks"}
_RANGES: Mapping[str, Any] = {
    "ranges": "minmax",
    "percentile": 99.99,
    "bias_correction": False,
    "products": "all",  # the other methods quantize weighted products alone anyway
}
_FOREIGN: Mapping[Method, Mapping[str, Any]] = {  # fields that do not apply to a method, and must keep their default
    "static": _WEIGHTS,
    "dynamic": {**_WEIGHTS, **_RANGES},
    "weight-only": {**_RANGES, "smooth": None, "per_channel": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeConfig(StageConfig):
    """To integers, in the form that the target's kernels need.

    `method` is ``static`` (8-bit weights and activations as Q/DQ, ranges from the calibration split), ``dynamic``
    (8-bit weights, activation ranges measured at run time; for transformers) or ``weight-only`` (`bits`-bit weights in
    blocks of `block_size` under float activations; `accuracy_level` 4 lets the kernel multiply in int8, 0 leaves it to
    choose). `storage` ``channels`` keeps weight-only int8 weights with a scale per output channel under a plain
    DequantizeLinear instead: OpenVINO multiplies those in int8, rounding activations at run time row by row, where ONNX
    Runtime restores the floats on every run and is slow.

    `ranges` says how a static range is made from what was seen; `percentile` is the share in percent that the method
    of that name keeps. `smooth` migrates that share of the activations' outliers into the weights (SmoothQuant's alpha,
    Xiao et al. 2022); `bias_correction` takes the mean error that quantization causes out of the biases. `operators`
    are the types to quantize (default: what suits graph and target; with layer normalizations in the graph, or with
    `smooth`, the weighted ones alone), `exclude` node name globs kept in float, `exclude_operators` operators kept in
    float, `overrides` other types for some nodes. Names and operators are those of the file that the stage takes: a
    node that is fused with others is still meant by the name of each. A glob that fits no node is refused.
    `products` ``weighted`` leaves matrix products of two activations, as attention has them, in float.

    `precision` ``fp8`` writes static Q/DQ in E4M3 instead of int8, a scale per output channel of a weight and one per
    activation, for TensorRT on GPUs from compute capability 8.9 (experimental; ONNX Runtime runs it on the CPU, in
    float, which is what parity compares). ``nvfp4`` is planned and refused.

    With method ``weight-only``, ``fp8`` and ``int4`` keep the weights of matrix products alone in that format, for
    ``tensorrt`` and ``cuda``: fp8 with a scale per output channel, int4 (symmetric) per block of `block_size` inputs.
    `awq` multiplies weights that meet great activations before they are rounded (AWQ, Lin et al. 2023), by factors
    searched on the calibration split, and divides the activations in the node before or in a Mul.

    `coverage` is the least share of multiply-accumulates that must run in int8 on this machine, else the stage fails;
    in fp8 the share that the file asks for, whose kernels are TensorRT's.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime-gpu", "numpy", "ml_dtypes")
    needs_float: ClassVar[bool] = True

    kind: Literal["quantize"]
    target: Literal["auto", "x86-vnni", "x86", "arm64", "cuda", "tensorrt"] = "auto"
    method: Method = "static"
    precision: Literal["int8", "int4", "fp8", "nvfp4"] = "int8"
    awq: bool = False
    ranges: Literal["minmax", "entropy", "percentile", "mse"] = "minmax"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    per_channel: bool = True
    smooth: Share | None = None
    bias_correction: bool = False
    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 128
    accuracy_level: Literal[0, 1, 2, 3, 4] = 0
    storage: Literal["blocks", "channels"] = "blocks"
    exclude: tuple[str, ...] = ()
    exclude_operators: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    products: Literal["all", "weighted"] = "all"
    overrides: tuple[Override, ...] = ()
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)
    coverage: Annotated[float, Field(ge=0, le=1)] = 0.0

    def __post_init__(self) -> None:
        foreign = _FOREIGN[self.method]
        if wrong := [name for name, default in foreign.items() if getattr(self, name) != default]:
            raise ConfigError(
                f"{', '.join(wrong)} do{'' if len(wrong) > 1 else 'es'} not apply to method {self.method!r}",
                where="quantize",
                next_step="remove it or choose another method",
            )
        if self.ranges != "percentile" and self.percentile != _RANGES["percentile"]:
            raise ConfigError(
                f"percentile does not apply to ranges {self.ranges!r}",
                where="quantize",
                next_step='remove it, or use ranges = "percentile"',
            )
        if self.storage == "channels" and any(getattr(self, name) != default for name, default in _BLOCKS.items()):
            raise ConfigError(
                f'{", ".join(_BLOCKS)} apply only to storage "blocks"',
                where="quantize",
                next_step='remove them, or use storage = "blocks"',
            )
        if self.target == "auto":  # the stage checks again once the processor is known
            contracts = [contract for contract in TARGETS.values() if not contract.gpu]
        else:
            contracts = [TARGETS[self.target]]
        if not any(self.method in one.methods or (self.narrow and one.gpu) for one in contracts):
            raise ConfigError(
                f"target {self.target!r} has no kernels for method {self.method!r}",
                where="quantize",
                next_step=f"use {' or '.join(contracts[0].methods)}, or another target",
            )
        if self.precision != "int8":
            self._check_precision(contracts)
        if self.awq and not self.narrow:
            raise ConfigError(
                "awq scales weights that are rounded alone, in fp8 or int4",
                where="quantize",
                next_step='use method = "weight-only" with precision = "int4" or "fp8", or smooth with the others',
            )
        for override in self.overrides:
            self._check(override, contracts)

    def _check_precision(self, contracts: Sequence[Contract]) -> None:
        def refuse(why: str, instead: str) -> ConfigError:
            return ConfigError(why, where="quantize: precision", next_step=instead)

        if self.precision == "nvfp4":
            raise refuse("NVFP4 is planned: no kernel that could prove it has run here", 'use precision = "fp8"')
        if self.method not in (("weight-only",) if self.precision == "int4" else ("static", "weight-only")):
            instead = "weight-only" if self.precision == "int4" else "static"
            raise refuse(f"{self.precision} does not apply to method {self.method!r}", f'use method = "{instead}"')
        if not any(one.gpu if self.narrow else one.fp8 for one in contracts):
            raise refuse(f"target {self.target!r} has no kernels for {self.precision}", 'use target = "tensorrt"')
        if self.narrow:
            self._check_narrow(refuse)
        if self.ranges not in ("minmax", "percentile"):
            raise refuse(
                f"ranges {self.ranges!r} are made for the even steps of integers", 'use "minmax" or "percentile"'
            )
        if wrong := [each.nodes for each in self.overrides if not each.keeps_float]:
            raise refuse(
                f"the override of {wrong[0]} asks for integers beside {self.precision}", 'use "float" there, or int8'
            )

    def _check_narrow(self, refuse: Callable[[str, str], ConfigError]) -> None:
        """Refuse keys of weight-only int8 and int4 as ONNX Runtime's own operator has them."""
        foreign = ("bits", "accuracy_level", "storage", *(("block_size",) if self.precision == "fp8" else ()))
        if wrong := [name for name in foreign if getattr(self, name) != _WEIGHTS[name]]:
            raise refuse(f"{', '.join(wrong)} do not apply to weights in {self.precision}", "remove them")
        if self.coverage:
            raise refuse(f"weights alone in {self.precision} leave all products in float", "remove coverage")

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
        if override.weights == "int4" and self.storage == "channels":
            raise refuse('storage "channels" holds 8-bit weights', 'use "int8", or storage "blocks"')
        if override.per_channel is not None and self.method != "static":
            raise refuse(f"method {self.method!r} has one granularity for all nodes", "remove per_channel there")

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the target whose integers are meant, ``auto`` resolved."""
        return resolve(self.target, environment)

    @property
    def uses(self) -> tuple[Split, ...]:
        """Only ranges, smoothing and corrections are made from samples; plain dynamic and weight-only need none."""
        return ("calibration",) if self.method == "static" or self.smooth is not None or self.awq else ()

    @property
    def narrow(self) -> bool:
        """True if weights alone go into fp8 or int4 under a DequantizeLinear."""
        return self.method == "weight-only" and self.precision in ("fp8", "int4")

    @property
    def required_coverage(self) -> float:
        """As `coverage` says."""
        return self.coverage

    @property
    def covered_precision(self) -> Literal["int8", "fp8"]:
        """The precision that the stage writes."""
        return "fp8" if self.precision == "fp8" else "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedConfig(StageConfig):
    """As many layers in integers as quality allows, chosen by measured quality and measured latency together.

    `quantize` says how (its `exclude` stays excluded), `max_quality_drop` is the most that the recipe's metric may fall
    below the parent's on the calibration split, whose labels it needs; the evaluation split is never looked at. At most
    `measurements` candidates are quantized, scored and timed (one thread, `batch` samples, interleaved with the parent,
    both in `engine` on `device`, by default the engine's own).

    `rank` is the order of the search. ``measured``: every layer alone in float, then together until the floor holds,
    which is thorough and takes a candidate per layer. ``noise``: the layers with the greatest int8 noise (measured for
    all in one run) in float until the floor holds, which takes few candidates; for networks of many layers, static
    only.

    `keep` sets the form of the layers that are not quantized: ``float``, or ``int8-weights``, which OpenVINO
    multiplies in int8 all the same, rounding activations row by row at run time: closer than static ranges, and slower.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    libraries: ClassVar[tuple[str, ...]] = (*QuantizeConfig.libraries, "openvino")
    needs_float: ClassVar[bool] = True

    kind: Literal["mixed"]
    max_quality_drop: Annotated[float, Field(ge=0), renamed("max_quality_drop", old="quality_drop")]
    quantize: QuantizeConfig = field(default_factory=lambda: QuantizeConfig(kind="quantize"))
    rank: Literal["measured", "noise"] = "measured"
    keep: Literal["float", "int8-weights"] = "float"
    engine: OnnxEngine = "onnxruntime"
    device: str = ""
    measurements: Positive = 60
    batch: Positive = 32
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: QUANTIZED)

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the digest of the machine that times and the metric that scores."""
        return digest_bytes(f"{environment.fingerprint}\n{metric()}".encode())

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_quality_drop):
            raise ConfigError(
                "max_quality_drop must be finite", where="mixed", next_step="use a finite number, for instance 0.01"
            )
        if self.keep == "int8-weights" and not self.engine.startswith("openvino"):
            raise ConfigError(
                "weights alone in int8 are slower than float in ONNX Runtime",
                where="mixed",
                next_step='use engine = "openvino", or keep = "float"',
            )
        if self.rank == "noise" and self.quantize.method != "static":
            raise ConfigError(
                f"method {self.quantize.method!r} writes no Q/DQ, from which a layer's noise is measured",
                where="mixed",
                next_step='use rank = "measured"',
            )
        on_gpu = {"cuda": "onnxruntime-cuda", "tensorrt": "onnxruntime-tensorrt"}.get(self.quantize.target)
        if on_gpu is not None and self.engine != on_gpu:
            raise ConfigError(
                f"latency on {self.quantize.target!r} cannot be measured in engine {self.engine!r}",
                where="mixed",
                next_step=f'use engine = "{on_gpu}", a CPU target, or a quantize stage with exclude',
            )

    @property
    def engines(self) -> tuple[tuple[str, str], ...]:
        """The engine that times and scores the candidates."""
        return ((self.engine, self.device),)
