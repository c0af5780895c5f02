"""The 2:4 pattern in an ONNX file: which weights keep it, read from the initializers that kernels will see."""

from collections.abc import Mapping
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
    """Every weight of the graph, in floats or dequantized integers, in node order, with proof or refutation.

    A weight whose input axis is no multiple of four does not keep the pattern.
    """
    graph = onnx.load(str(path)).graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        stored, turned = _stored(node.input[1], makers)
        if stored not in arrays:
            continue
        array = onnx.numpy_helper.to_array(arrays[stored])
        array = array.T if turned else array
        if array.ndim < 2:
            continue
        axis = _input_axis(node, array.ndim)
        found.append(
            SparseWeight(name=node.input[1], node=node.name, shape=array.shape, holds=pattern.holds(array, axis))
        )
    return tuple(found)


def _stored(name: str, makers: Mapping[str, onnx.NodeProto]) -> tuple[str, bool]:
    """Return the tensor behind a symmetric DequantizeLinear and a transposition, and whether one is there."""
    turned = False
    while (maker := makers.get(name)) is not None and maker.op_type in ("DequantizeLinear", "Transpose"):
        turned ^= maker.op_type == "Transpose"
        name = maker.input[0]
    return name, turned


def _input_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis that is summed over: Conv [out, in, ...], Gemm [out, in] if transposed, MatMul [..., in, out]."""
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm":
        return 1 if any(item.name == "transB" and item.i for item in node.attribute) else 0
    return rank - 2
