"""Twins: beside each weighted node of a float graph, a copy whose input and weights are rounded as a Q/DQ graph does.

Both see the float model's own activations, so what a node's integers do is seen apart from what nodes before it did.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, constants, fresh, names
from .on_graph import attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A weighted node of the float model, and the tensor that its rounded copy writes."""

    node: onnx.NodeProto
    output: str


def with_twins(
    model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: Collection[str]
) -> tuple[onnx.ModelProto, list[Twin]]:
    """A copy of the float model with a twin beside each of the named nodes that has constant weights.

    The graph's outputs are as before: what is made of the twins must be exposed by the caller.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    others = {node.name: node for node in quantized.graph.node}
    makers = {output: node for node in quantized.graph.node for output in node.output}
    known, weights = constants(quantized), constants(model)
    originals = [node for node in model.graph.node if node.name in nodes and node.op_type in ("Conv", "Gemm", "MatMul")]
    twins = []
    for node in originals:
        pairs = zip(node.input[:2], others[node.name].input[:2], strict=True)
        inputs = [_rounded(probed, name, other, makers, known) for name, other in pairs]
        if None not in inputs and node.input[1] in weights:
            output = fresh(f"{node.output[0]}_quantized", names(probed))
            _repeat(probed, node, [*(str(name) for name in inputs), *node.input[2:]], output)
            twins.append(Twin(node=node, output=output))
    return probed, twins


def _rounded(
    model: onnx.ModelProto,
    original: str,
    twin: str,
    makers: dict[str, onnx.NodeProto],
    known: dict[str, onnx.TensorProto],
) -> str | None:
    """Repeat the Q/DQ (or the DQ of a weight) that stands before an input of the quantized model; None if none does."""
    dequantize = makers.get(twin)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    taken = names(model)
    source = dequantize.input[0]
    if source not in known:
        quantize = makers.get(source)
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return None
        source = fresh(f"{original}_rounded", taken)
        _repeat(model, quantize, [original, *_copied(model, quantize.input[1:], known)], source)
    else:
        source = _copied(model, [source], known)[0]
    output = fresh(f"{original}_restored", names(model))
    _repeat(model, dequantize, [source, *_copied(model, dequantize.input[1:], known)], output)
    return output


def _repeat(model: onnx.ModelProto, node: onnx.NodeProto, inputs: list[str], output: str) -> None:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(inputs)
    copy.output.append(output)
    copy.name = fresh(f"{output}_node", names(model))
    model.graph.node.append(copy)


def _copied(model: onnx.ModelProto, wanted: list[str], known: dict[str, onnx.TensorProto]) -> list[str]:
    """Bring constants of the quantized model over, each under a free name."""
    found = []
    for name in wanted:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(known[name])
        tensor.name = fresh(f"{name}_probe", names(model))
        model.graph.initializer.append(tensor)
        found.append(tensor.name)
    return found


def channel_means(model: onnx.ModelProto, node: onnx.NodeProto, tensor: str) -> str:
    """Add the mean per output channel, [channels], of a tensor shaped like the node's output; returns its name."""
    flat, mean = (f"{tensor}_{part}" for part in ("flat", "mean"))
    convolution = node.op_type == "Conv"
    shape = [0, 0, -1] if convolution else [-1, _width(node, constants(model)[node.input[1]])]
    into = add_constant(model, f"{tensor}_shape", np.array(shape, np.int64))
    axes = [0, 2] if convolution else [0]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    model.graph.node.append(onnx.helper.make_node("Reshape", [tensor, into], [flat]))
    if opset >= 18:
        over = add_constant(model, f"{tensor}_axes", np.array(axes, np.int64))
        model.graph.node.append(onnx.helper.make_node("ReduceMean", [flat, over], [mean], keepdims=0))
    else:
        model.graph.node.append(onnx.helper.make_node("ReduceMean", [flat], [mean], keepdims=0, axes=axes))
    return mean


def _width(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    """Return how many columns the product has: a vector as weight makes one."""
    if len(weight.dims) < 2:
        return 1
    return int(weight.dims[0 if attribute(node, "transB", 0) else -1])
