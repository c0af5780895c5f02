"""The 2:4 pattern in an ONNX file: which weights keep it, read from the initializers that kernels will see."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from . import pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseWeight:
    """One weight of a Conv, Gemm or MatMul: its node, shape, and whether the pattern holds along the input axis."""

    name: str
    node: str
    shape: tuple[int, ...]
    holds: bool


def sparse_weights(path: Path) -> tuple[SparseWeight, ...]:
    """Every float weight of the graph, in node order, with proof or refutation of the pattern.

    A weight whose input axis is no multiple of four does not keep it.
    """
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in arrays:
            continue
        array = onnx.numpy_helper.to_array(arrays[node.input[1]])
        if array.ndim < 2:
            continue
        axis = _input_axis(node, array.ndim)
        found.append(
            SparseWeight(name=node.input[1], node=node.name, shape=array.shape, holds=pattern.holds(array, axis))
        )
    return tuple(found)


def _input_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis that is summed over: Conv [out, in, ...], Gemm [out, in] if transposed, MatMul [..., in, out]."""
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm":
        return 1 if any(item.name == "transB" and item.i for item in node.attribute) else 0
    return rank - 2
