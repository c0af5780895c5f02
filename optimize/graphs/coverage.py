"""Coverage: share of MACs of an executed graph by precision, and operations that fell out of int8 or fp16.

Reads plain values (`Graph`) and says what they mean; opens nothing. Q/DQ pairs in a file guarantee nothing: where the
engine has no kernel for a pattern it dequantizes and computes in float, which costs more than float.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import StageError
from ..record import fields_as_json
from .execution_graph import Graph, Operation, macs

INTEGER = frozenset(
    ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
) | {"QGemm", "QAttention", "DynamicQuantizeLSTM"}
FP8 = "fp8"
_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "float8": "fp8", "float4": "fp4"}
_X86 = ("x86_64", "AMD64")
_INSERTED = "InsertedPrecisionFreeCast"  # what ONNX Runtime calls a cast around a node that lacks a kernel for fp16
_INTEGER_INSIDE = 4  # accuracy_level of MatMulNBits that quantizes activations to int8 too
_PASSING = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Expand", "ReorderInput")
)
_BODIES = frozenset(("If", "Loop", "Scan"))
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A compute operation as it ran: precision of its arithmetic, multiply-accumulates per run."""

    name: str
    kind: str
    precision: str
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Island:
    """Layer that was quantized but did not run in the lower precision, with the reason."""

    layer: Layer
    reason: str

    def __str__(self) -> str:
        return f"{self.layer.name} ({self.layer.kind}, {self.layer.precision}): {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """All compute of one run, its islands, and operations whose cost is unknown (`unseen`).

    `engine` and `machine` (an architecture) say what ran it, `device` on which device (empty where an earlier version
    wrote it), `shapes` are those of the inputs that it ran on. `asked` are precisions counted as the file asks for
    them, which this engine computes in float.
    """

    layers: tuple[Layer, ...]
    islands: tuple[Island, ...]
    unseen: tuple[str, ...]
    engine: str = ""
    machine: str = ""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    device: str = ""
    asked: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values; `device` and `asked` are left out where they are empty, as an earlier version wrote it."""
        left_out = {name for name in ("device", "asked") if not getattr(self, name)}
        return {key: value for key, value in fields_as_json(self).items() if key not in left_out}

    @property
    def where(self) -> str:
        """Name of the engine that ran it, for display."""
        return _who(self.engine, self.machine)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole run."""
        return sum(layer.macs for layer in self.layers)

    def share(self, precision: str) -> float:
        """The share of all MACs that ran in that precision; 0 where nothing computes."""
        return self.shares.get(precision, 0.0)

    @property
    def shares(self) -> dict[str, float]:
        """Share of MACs per precision, greatest first; they add up to 1 where anything computes."""
        sums: dict[str, int] = {}
        for layer in self.layers:
            sums[layer.precision] = sums.get(layer.precision, 0) + layer.macs
        return {name: part / self.macs for name, part in sorted(sums.items(), key=lambda item: -item[1])}


def coverage(graph: Graph) -> Coverage:
    """Sum up what ran in which precision, and find the islands."""
    around = _Neighbours(graph)
    layers, islands, unseen = [], [], []
    for operation in graph.operations:
        cost = macs(operation, graph.tensors)
        if cost is None or operation.kind in _BODIES:
            unseen.append(f"{operation.name} ({operation.kind})")
        elif cost:
            name = operation.name or operation.outputs[0]
            precision = FP8 if graph.written and _asks_fp8(operation, around) else _precision(operation, graph)
            layer = Layer(name=name, kind=operation.kind, precision=precision, macs=cost)
            layers.append(layer)
            if layer.precision not in ("int8", FP8) and (reason := _why_not(operation, around)):
                islands.append(Island(layer=layer, reason=reason))
    return Coverage(
        layers=tuple(layers),
        islands=tuple(islands),
        unseen=tuple(unseen),
        engine=graph.engine,
        machine=graph.machine,
        asked=(FP8,) if graph.written and any(layer.precision == FP8 for layer in layers) else (),
    )


def enforce(found: Coverage, least: float, where: str, precision: str = "int8") -> None:
    """Fail where less than `least` of the MACs ran in the precision.

    Operations of unknown cost count against the requirement: an unknown share does not satisfy it.

    Raises:
        StageError: with share, threshold and the first islands.
    """
    share = found.share(precision)
    if share >= least and not (least and found.unseen):
        return
    # Without islands whatever else is in float is what keeps the share down: excluded, or of no quantizable kind.
    others = sorted((layer for layer in found.layers if layer.precision != precision), key=lambda layer: -layer.macs)
    said = [str(island) for island in found.islands[:_SHOWN]]
    said += [f"{layer.name} ({layer.kind}, {layer.precision}): not quantized" for layer in others[: _SHOWN - len(said)]]
    said += [f"cost unknown: {', '.join(found.unseen[:_SHOWN])}"] if found.unseen else []
    raise StageError(
        f"{share:.1%} of the MACs run in {precision}, the stage requires {least:.1%}: {'; '.join(said)}",
        where=f"{where}, run by {found.where}",
        next_step="set target to this machine's, narrow exclude, or lower coverage in this stage",
    )


def _precision(operation: Operation, graph: Graph) -> str:
    if operation.kind in INTEGER or operation.attributes.get("accuracy_level") == _INTEGER_INSIDE:
        return "int8"
    kinds = [graph.tensors[name].dtype for name in operation.inputs if name in graph.tensors]
    return next((_NAMES[kind] for kind in kinds if kind in _NAMES), kinds[0] if kinds else "unknown")


def _asks_fp8(operation: Operation, around: "_Neighbours") -> bool:
    """Return whether both factors come out of fp8 through a DequantizeLinear, which TensorRT fuses into the product."""
    makers = [around.maker(name) for name in operation.inputs[:2]]
    return len(makers) == 2 and all(
        node is not None and node.kind == "DequantizeLinear" and around.dtype(node.inputs[0]).startswith("float8e4m3")
        for node in makers
    )


class _Neighbours:
    """Producers and consumers of a tensor, looking through operations that only move elements."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = graph.tensors
        self.engine, self.machine = graph.engine, graph.machine
        self._makers: Mapping[str, Operation] = {out: node for node in graph.operations for out in node.outputs}
        self._takers: dict[str, list[Operation]] = {}
        for node in graph.operations:
            for name in node.inputs:
                self._takers.setdefault(name, []).append(node)

    def maker(self, tensor: str) -> Operation | None:
        node = self._makers.get(tensor)
        while node is not None and node.kind in _PASSING:
            node = self._makers.get(node.inputs[0])
        return node

    def takers(self, tensor: str) -> Iterator[Operation]:
        for node in self._takers.get(tensor, []):
            if node.kind in _PASSING or node.kind in ("Relu", "Clip"):
                yield from self.takers(node.outputs[0])
            else:
                yield node

    def dtype(self, tensor: str) -> str:
        return self.tensors[tensor].dtype if tensor in self.tensors else ""

    def constant(self, tensor: str) -> bool:
        return tensor in self.tensors and self.tensors[tensor].constant


def _why_not(operation: Operation, around: _Neighbours) -> str:
    """Return why this operation runs in float although it was quantized, or an empty string where it was not."""
    makers = [around.maker(name) for name in operation.inputs[:2]]
    if any(node is not None and node.kind == "Cast" and node.name.startswith(_INSERTED) for node in makers):
        return "the engine has no fp16 kernel for it and computes between casts"
    sources = [node for node in makers if node is not None and node.kind == "DequantizeLinear"]
    if not sources:
        return ""
    weights = [node for node in sources if around.constant(node.inputs[0])]
    activations = [node for node in sources if node not in weights]
    targets = [node for node in around.takers(operation.outputs[0]) if node.kind == "QuantizeLinear"]
    reason = _pattern(operation, around, weights, activations, targets)
    return f"{reason}; its weights are dequantized on every run" if weights else reason


def _pattern(
    operation: Operation,
    around: _Neighbours,
    weights: list[Operation],
    activations: list[Operation],
    targets: list[Operation],
) -> str:
    if around.engine.startswith("TensorRT"):
        return "TensorRT dequantizes its inputs and computes in float: no Q/DQ pair stands where it could be fused"
    if not activations:
        return "only its weights are quantized, its input is float"
    if not weights and around.constant(operation.inputs[1]):
        return "its input is quantized, its weights are not"
    quantized = [around.dtype(node.inputs[0]) for node in activations]
    quantized += [around.dtype(node.outputs[0]) for node in targets]
    who = _who(around.engine, around.machine)
    if "int8" in quantized and around.machine in _X86:
        return f"its activations are int8 (S8), and the kernels of {who} fuse uint8 (U8) activations only"
    if not targets and operation.kind.endswith("Conv"):
        return "its output is not quantized, which an integer convolution needs"
    return f"{who} has no integer kernel for the operators around it"


def _who(engine: str, machine: str) -> str:
    return " on ".join(part for part in (engine or "the engine", machine) if part)
