"""Rounding: bound on the difference of two executions of one network, from number formats and depth alone.

Arithmetic on plain values (`Graph`). Bounds rounding error only; the effect on a task is measured as quality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10, sqrt

from ..artifact import TensorSpec
from ..graphs.execution_graph import Graph, Operation, Tensor, macs
from ..recipe.configs import Tolerance

MARGIN = 8.0
"""Standard deviations of the modelled rounding noise that are allowed. Chosen: the greatest of 10^12 normal draws lies
within 7.0, and the rest is room for the model's own error.
"""
EQUAL, LEAST_MINORITY = 0.97, 0.6
"""Least fraction of equal decisions, and of those among the rarer ones. Chosen as the same limits as for casts and int8
(`recipe.configs.terms`), since a limit on decisions does not follow from the number format.
"""
WIDEST = 0.5  # of the greatest value; a limit beyond it would pass noise
_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8}
_BITS |= {"int4": 4, "uint4": 4}
# half the distance between two neighbours, relative to the greatest value that is held
_UNITS = {kind: 2.0**-bits for kind, bits in _BITS.items()}
_EXACT = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Expand", "Gather")
) | {"Concat", "Pad", "MaxPool", "GlobalMaxPool", "Relu", "Clip", "Max", "Min", "Where", "Neg", "Abs", "Dropout"}
_QUANTIZERS = frozenset(("QuantizeLinear", "DynamicQuantizeLinear"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Noisiest path to a tensor: the variance of its relative error, roundings, longest sum."""

    variance: float = 0.0
    roundings: int = 0
    longest_sum: int = 1


def depths(graph: Graph) -> Mapping[str, Depth]:
    """The depth of every tensor that the graph computes, in order of execution."""
    makers = {name: operation for operation in graph.operations for name in operation.outputs}
    found: dict[str, Depth] = {}
    for operation in graph.operations:
        known = [found.get(name) or _kept(graph.tensors.get(name)) for name in operation.inputs]
        before = max(known, key=lambda depth: depth.variance, default=Depth())
        variance, length = _added(operation, graph.tensors, makers)
        after = Depth(
            variance=before.variance + variance,
            roundings=before.roundings + (variance > 0),
            longest_sum=max(before.longest_sum, length),
        )
        found |= {name: after for name in operation.outputs if name}
    return found


def limit(one: Depth, other: Depth) -> float:
    """The greatest difference, relative to the greatest value, that rounding explains between two executions.

    Each result differs from exact arithmetic by independent roundings, whose variances add along the longest path:
    u^2 for every tensor that is stored or quantized with unit roundoff u, for rounded weights once more, and K u^2 for
    a sum of K terms in float32 (its errors grow with the root of K and not with K: Higham and Mary, 2019). The limit is
    `MARGIN` standard deviations of both executions together: room for the extreme of many values and for layers that
    amplify. Measured tensor by tensor on two residual CNNs and a small transformer, sound pairs come to 0.02 of it in
    float32, 0.12 in fp16 and 0.6 in int8.
    """
    return min(MARGIN * sqrt(one.variance + other.variance), WIDEST)


def tolerance(one: Depth, other: Depth) -> Tolerance:
    """`limit` as a contract: no difference above it, and no more noise on the whole than it leaves of the signal.

    The second bound takes values to be spread so that the peak is at most `MARGIN` times their root mean square. The
    third is against what the samples make of the output: rounding that hides it leaves no model.
    """
    most = max(limit(one, other), _UNITS["float64"])
    return Tolerance(relative_error=most, snr=-20 * log10(most), spread_error=WIDEST)


def contract(one: Graph, other: Graph, outputs: Sequence[TensorSpec]) -> dict[str, Tolerance]:
    """Return the tolerances between two graphs of one network, by output; a share `EQUAL` of whole numbers is equal.

    Whole numbers are decisions, and one that was close may fall otherwise.
    """
    first, second = depths(one), depths(other)
    return {
        spec.name: tolerance(first.get(spec.name, Depth()), second.get(spec.name, Depth()))
        if "float" in spec.dtype
        else Tolerance(agreement=EQUAL, minority=LEAST_MINORITY)
        for spec in outputs
    }


def _kept(tensor: Tensor | None) -> Depth:
    """A constant is rounded once, to what it is kept in; an input of the graph is exact."""
    constant = tensor is not None and tensor.constant and len(tensor.shape) > 1
    return Depth(variance=_UNITS.get(tensor.dtype, 0.0) ** 2) if tensor is not None and constant else Depth()


def _added(operation: Operation, tensors: Mapping[str, Tensor], makers: Mapping[str, Operation]) -> tuple[float, int]:
    """Variance that an operation adds to the relative error of its output, and how many terms it sums."""
    out = tensors.get(operation.outputs[0])
    kind = out.dtype if out is not None else "float32"
    if operation.kind in _EXACT:
        return 0.0, 1
    if operation.kind in _QUANTIZERS:
        return _UNITS.get(kind, _UNITS["int8"]) ** 2, 1
    cost = macs(operation, tensors)
    if not cost or out is None or not out.size:
        return (_UNITS[kind] ** 2 if "float" in kind and kind in _UNITS else 0.0), 1
    length = max(cost // out.size, 1)
    accumulated = length * min(_UNITS["float32"], _UNITS.get(kind, 1.0)) ** 2
    stored = _UNITS[kind] ** 2 if "float" in kind and kind in _UNITS else 0.0
    return accumulated + stored + _weights(operation, tensors, makers) ** 2, length


def _weights(operation: Operation, tensors: Mapping[str, Tensor], makers: Mapping[str, Operation]) -> float:
    """The unit roundoff in which the operation's weights are kept; 0 where it multiplies two activations."""
    if operation.kind.startswith("MatMulNBits"):
        return 2.0 ** -int(operation.attributes.get("bits", 4))
    for name in operation.inputs[1:]:
        maker = makers.get(name)
        source = maker.inputs[0] if maker is not None and maker.kind == "DequantizeLinear" else name
        tensor = tensors.get(source)
        if tensor is not None and tensor.constant and len(tensor.shape) > 1:
            return _UNITS.get(tensor.dtype, 0.0)
    return 0.0
