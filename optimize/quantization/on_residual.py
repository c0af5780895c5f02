"""Residual branches: a Q/DQ pair of its own before the Add that a convolution is fused with.

TensorRT joins a convolution and the Add behind it into one integer kernel only if the other summand is quantized too;
the convolution's own output must stay as it is. ONNX Runtime's quantizer treats both inputs of an Add alike.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, constants, consumers, fresh, names
from .ranges import Range

_REACH = 127  # integers on either side of zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """The Add `node`, the `fused` convolution's output among its inputs, and the other `tensor`."""

    node: str
    fused: str
    tensor: str


def residuals(model: onnx.ModelProto, nodes: Collection[str]) -> tuple[Residual, ...]:
    """Every Add of a quantized convolution's output (read by no other node) and another activation.

    Of two such convolutions the later one is fused: the other is the shortcut.
    """
    graph, known, readers = model.graph, constants(model), consumers(model)
    order = {
        output: number
        for number, node in enumerate(graph.node)
        if node.op_type == "Conv" and node.name in nodes and len(readers.get(node.output[0], ())) == 1
        for output in node.output
    }
    found = []
    for node in graph.node:
        if node.op_type != "Add" or any(name in known for name in node.input) or len(set(node.input)) != 2:
            continue
        fused = max(node.input, key=lambda name: order.get(name, -1))
        if fused in order:
            other = node.input[1 - list(node.input).index(fused)]
            found.append(Residual(node=node.name, fused=fused, tensor=other))
    return tuple(found)


def quantize_residuals(
    model: onnx.ModelProto, wanted: Collection[Residual], ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """Put a symmetric int8 pair of its own before each residual input, in place; the model is returned."""
    for residual in wanted:
        position, node = next((at, one) for at, one in enumerate(model.graph.node) if one.name == residual.node)
        slot = 1 - list(node.input).index(residual.fused)
        bound = max(abs(end) for end in ranges[residual.tensor]) or 1.0
        scale = add_constant(model, f"{residual.tensor}_residual_scale", np.array(bound / _REACH, np.float32))
        zero = add_constant(model, f"{residual.tensor}_residual_zero_point", np.array(0, np.int8))
        taken = names(model)
        integers, floats = (fresh(f"{residual.tensor}_residual_{part}", taken) for part in ("quantized", "dequantized"))
        pair = [
            onnx.helper.make_node("QuantizeLinear", [residual.tensor, scale, zero], [integers], f"{integers}_node"),
            onnx.helper.make_node("DequantizeLinear", [integers, scale, zero], [floats], f"{floats}_node"),
        ]
        node.input[slot] = floats
        for offset, one in enumerate(pair):
            model.graph.node.insert(position + offset, one)
    return model
