"""Static fp8 quantization: Q/DQ in E4M3 (float8e4m3fn) around products and convolutions, for TensorRT.

Weights have a scale per output channel, activations one scale each, from the greatest magnitude that calibration saw;
biases and outputs stay in float. Values beyond 448, the greatest of E4M3, are clipped: the format has no infinity, and
a plain cast would give NaN.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, array, constants, drop_unused, fresh, names
from ..samples import Array
from .on_graph import attribute
from .ranges import Range

OPSET = 19  # the first whose QuantizeLinear and DequantizeLinear take float8
GREATEST = 448.0  # of E4M3
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_TYPE = onnx.TensorProto.FLOAT8E4M3FN


def quantized(
    model: onnx.ModelProto, nodes: Sequence[str], ranges: Mapping[str, Range], *, per_channel: bool
) -> onnx.ModelProto:
    """Return a copy of the model with Q/DQ in fp8 around the named nodes.

    `ranges` hold the interval of each float activation that these nodes read. Each consumer of a tensor gets a pair of
    its own, as TensorRT wants it.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = _Work(made, ranges, per_channel)
    wanted = set(nodes)
    for node in list(made.graph.node):
        if node.name in wanted and node.op_type in WEIGHTED:
            for slot in (0, 1):
                node.input[slot] = (
                    work.weight(node, slot) if node.input[slot] in work.known else work.tensor(node, slot)
                )
        work.nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in work.nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    drop_unused(made)
    return made


def rounded(weights: Array, axis: int | None) -> tuple[Array, Array]:
    """Round float32 weights to E4M3 with one scale for each index of `axis` (None: one for all).

    Returns the codes, as ml_dtypes' float8_e4m3fn of the weights' shape, and the scales, float32 of shape [n] or [].
    A channel of zeros, or of numbers below float32's normal ones, has scale 1.
    """
    others = tuple(at for at in range(weights.ndim) if at != axis)
    most = np.abs(weights).max(axis=others, keepdims=True, initial=0.0).astype(np.float32)
    scale = (most / np.float32(GREATEST)).astype(np.float32)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1.0))
    codes = np.clip(weights / scale, -GREATEST, GREATEST).astype(ml_dtypes.float8_e4m3fn)
    return codes, scale.reshape(-1) if axis is not None else scale.reshape(())


class _Work:
    """The copy that is rewritten: its constants, names that are taken, and the nodes in their new order."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range], per_channel: bool) -> None:
        self.model, self.ranges, self.per_channel = model, ranges, per_channel
        self.known = {
            name: tensor for name, tensor in constants(model).items() if tensor.data_type == onnx.TensorProto.FLOAT
        }
        self.taken = names(model)
        self.nodes = list[onnx.NodeProto]()
        self.zero = self._codes("fp8_zero", np.zeros((), ml_dtypes.float8_e4m3fn))

    def tensor(self, node: onnx.NodeProto, slot: int) -> str:
        """Put a pair before one input of a node; return the tensor that the node is to read."""
        name = node.input[slot]
        bound = max(-self.ranges[name][0], self.ranges[name][1])
        scale = add_constant(self.model, f"{name}_scale", np.array(bound / GREATEST if bound > 0 else 1.0, np.float32))
        codes = fresh(f"{name}_fp8", self.taken)
        self._add("QuantizeLinear", [name, scale, self.zero], codes)
        return self._restored(name, codes, scale, self.zero, None)

    def weight(self, node: onnx.NodeProto, slot: int) -> str:
        """Store a constant in fp8; return the tensor that restores it."""
        name = node.input[slot]
        values = array(self.known[name])
        axis = _axis(node, values.ndim) if self.per_channel and slot == 1 else None
        codes, scales = rounded(values, axis)
        scale = add_constant(self.model, f"{name}_scale", scales)
        zeros = self.zero if axis is None else self._codes(f"{name}_zero", np.zeros_like(scales, codes.dtype))
        return self._restored(name, self._codes(f"{name}_fp8", codes), scale, zeros, axis)

    def _restored(self, name: str, codes: str, scale: str, zero: str, axis: int | None) -> str:
        restored = fresh(f"{name}_restored", self.taken)
        self._add("DequantizeLinear", [codes, scale, zero], restored, **({} if axis is None else {"axis": axis}))
        return restored

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        name = fresh(f"{output}_{operator}", self.taken)
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output], name, **attributes))

    def _codes(self, name: str, values: Array) -> str:
        """Add a constant in E4M3."""
        free = fresh(name, self.taken)
        self.model.graph.initializer.append(
            onnx.helper.make_tensor(free, _TYPE, values.shape, values.tobytes(), raw=True)
        )
        return free


def _axis(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of a weight along which outputs lie; None where one scale holds for all of it."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return 0
    return rank - 1 if rank > 1 else None
