"""Executed graph as plain values: the operations that an engine runs, their tensors, and their cost in MACs.

Types and arithmetic only. Readers of a graph (`sessions.on_ort_graph`) fill these in; `coverage` judges them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as it was seen in a run: numpy's dtype name (or ``bfloat16``), its shape, whether it is a constant."""

    dtype: str
    shape: tuple[int, ...]
    constant: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One node: operator type, names of its tensors ("" where an optional one is absent), attributes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operations in order of execution; `tensors` holds every tensor whose shape is known.

    `engine` and `machine` (an architecture: ``x86_64``) say who ran it, "" where that is not known. `written` marks a
    graph as its file has it, Q/DQ and all, and not as an engine fused it.
    """

    operations: tuple[Operation, ...]
    tensors: Mapping[str, Tensor]
    engine: str = ""
    machine: str = ""
    written: bool = False

    def computes_in(self, dtype: str) -> bool:
        """Return True if any operation has an output of that type."""
        given = (self.tensors.get(name) for each in self.operations for name in each.outputs)
        return any(tensor is not None and tensor.dtype == dtype for tensor in given)


OPAQUE = "Opaque"  # computes something unknown: it costs its attribute ``macs``, or an unknown amount


def in_order(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """The operations, each after what makes its inputs: a file need not be sorted."""
    made = {name for each in operations for name in each.outputs}
    found: list[Operation] = []
    done: set[str] = {""}
    left = list(operations)
    while left:
        ready, waiting = [], []
        for each in left:
            if all(name in done or name not in made for name in each.inputs):
                ready.append(each)
                done.update(each.outputs)
            else:
                waiting.append(each)
        if not ready:  # a cycle, which no valid file has
            return (*found, *waiting)
        found += ready
        left = waiting
    return tuple(found)


def macs(operation: Operation, tensors: Mapping[str, Tensor]) -> int | None:
    """Multiply-accumulates of one run; 0 for an operation that is not compute, None where a shape is not known.

    Element-wise work is not counted: it is memory traffic. Bias and activation that were fused in are free.
    """
    formula = _FORMULAS.get(operation.kind)
    if formula is None:
        return 0
    try:
        return formula(operation, [tensors.get(name) for name in operation.inputs], tensors[operation.outputs[0]])
    except (KeyError, AttributeError, IndexError):  # a tensor that the run did not show
        return None


_Inputs = list[Any]  # Tensor, or None where the run did not show it: touching that one raises AttributeError
_Formula = Callable[[Operation, _Inputs, Tensor], int]


def _convolution(weight: int) -> _Formula:
    """Each output element costs one filter: [out channels, in channels / groups, *kernel]."""
    return lambda operation, inputs, out: out.size * prod(inputs[weight].shape[1:])


def _transposed(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """Each input element is spread through one filter: [in channels, out channels / groups, *kernel]."""
    return int(inputs[0].size * prod(inputs[1].shape[1:]))


def _product(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """Each output element costs one row of A; A may be stored transposed."""
    shape = inputs[0].shape
    return int(out.size * shape[-2 if operation.attributes.get("transA", 0) and len(shape) > 1 else -1])


def _packed_attention(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """Input [batch, length, hidden] through packed Q, K, V weights, then scores and weighted values."""
    return int(inputs[0].size // inputs[0].shape[-1] * inputs[1].size + 2 * out.size * inputs[0].shape[1])


def _attention(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """Query and key are [batch, length, hidden] or [batch, heads, length, width]; past keys are not counted."""
    return int((inputs[0].size + out.size) * inputs[1].shape[-2])


def _recurrent(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """Input [length, batch, width]: every step and row goes once through W and R of every direction."""
    return int(inputs[0].shape[0] * inputs[0].shape[1] * (inputs[1].size + inputs[2].size))


def _opaque(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    return int(operation.attributes["macs"])


def _einsum(operation: Operation, inputs: _Inputs, out: Tensor) -> int:
    """The product of all labelled axes; an ellipsis cannot be resolved from labels alone."""
    terms = str(operation.attributes["equation"]).replace(" ", "").split("->")[0].split(",")
    axes: dict[str, int] = {}
    for term, tensor in zip(terms, inputs, strict=True):
        if len(term) != len(tensor.shape):
            raise KeyError(term)
        axes |= dict(zip(term, tensor.shape, strict=True))
    return prod(axes.values())


_FORMULAS: Mapping[str, _Formula] = {
    **dict.fromkeys(("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "GemmFastGelu", "MatMulInteger"), _product),
    **dict.fromkeys(("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"), _product),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _product),
    **dict.fromkeys(("PackedAttention", "QAttention"), _packed_attention),
    "Attention": lambda operation, inputs, out: (
        _packed_attention if len(inputs[1].shape) == 2 else _attention  # ONNX Runtime's own, or ONNX's since opset 23
    )(operation, inputs, out),
    "MultiHeadAttention": _attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "Einsum": _einsum,
    OPAQUE: _opaque,
}
