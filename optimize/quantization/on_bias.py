"""Bias correction: takes the mean error that rounding and clipping cause in each weighted node out of its bias.

The error of a node is measured on the float model's own activations (Nagel et al. 2019, section 4.2, with samples
instead of assumed statistics): beside each node runs a copy with quantized input and weights, and both outputs are
compared per channel. One node's error does not enter the next one's, so one pass suffices and no error is corrected
twice.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ..samples import Array, Samples
from .on_calibration import means
from .on_graph import add_constant, array, attribute, constants, consumers, drop_unused, fresh, names

_QDQ = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """A weighted node of the float model, and the tensor that will hold its mean error per channel."""

    node: str
    error: str


def corrected(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    nodes: Collection[str],
    samples: Samples,
    *,
    folder: Path,
    threads: int,
) -> tuple[onnx.ModelProto, int]:
    """A copy of the float model with corrected biases, to be quantized again, and how many biases were corrected."""
    probed, probes = _probed(model, quantized, set(nodes))
    errors = means(probed, [probe.error for probe in probes], samples, folder=folder, threads=threads) if probes else {}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    done = sum(_shift(result, probe.node, errors[probe.error]) for probe in probes)
    drop_unused(result)
    return result, done


def _probed(
    model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: set[str]
) -> tuple[onnx.ModelProto, list[_Probe]]:
    """The float model with, beside each weighted node, its quantized copy and the mean difference."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    twins = {node.name: node for node in quantized.graph.node}
    makers = {output: node for node in quantized.graph.node for output in node.output}
    known = constants(quantized)
    originals = [node for node in model.graph.node if node.name in nodes and node.op_type in ("Conv", "Gemm", "MatMul")]
    probes = []
    for node in originals:
        inputs = [_rounded(probed, name, twin, makers, known) for name, twin in _pairs(node, twins[node.name])]
        if None not in inputs and node.input[1] in constants(model):
            probes.append(_Probe(node=node.name, error=_compare(probed, node, [str(name) for name in inputs])))
    return probed, probes


def _pairs(node: onnx.NodeProto, twin: onnx.NodeProto) -> list[tuple[str, str]]:
    return list(zip(node.input[:2], twin.input[:2], strict=True))


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


def _compare(model: onnx.ModelProto, node: onnx.NodeProto, inputs: list[str]) -> str:
    """Add the quantized copy of a node and the mean of its error per output channel; returns that tensor's name."""
    output = fresh(f"{node.output[0]}_quantized", names(model))
    _repeat(model, node, [*inputs, *node.input[2:]], output)
    difference, flat, error = (f"{output}_{part}" for part in ("difference", "flat", "error"))
    convolution = node.op_type == "Conv"
    width = -1 if convolution else int(constants(model)[node.input[1]].dims[0 if attribute(node, "transB", 0) else 1])
    shape = [0, 0, -1] if convolution else [-1, width]
    into = add_constant(model, f"{output}_shape", np.array(shape, np.int64))
    axes = [0, 2] if convolution else [0]
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    model.graph.node.append(onnx.helper.make_node("Sub", [output, node.output[0]], [difference]))
    model.graph.node.append(onnx.helper.make_node("Reshape", [difference, into], [flat]))
    if opset >= 18:
        over = add_constant(model, f"{output}_axes", np.array(axes, np.int64))
        model.graph.node.append(onnx.helper.make_node("ReduceMean", [flat, over], [error], keepdims=0))
    else:
        model.graph.node.append(onnx.helper.make_node("ReduceMean", [flat], [error], keepdims=0, axes=axes))
    return error


def _shift(model: onnx.ModelProto, name: str, error: Array) -> bool:
    """Subtract the error from the node's bias, from the Add behind it, or give it a bias; whether there was a place."""
    node = next(node for node in model.graph.node if node.name == name)
    known = constants(model)
    if node.op_type == "MatMul":
        readers = consumers(model)[node.output[0]]
        if len(readers) != 1 or readers[0].op_type != "Add":
            return False
        slots = [slot for slot, value in enumerate(readers[0].input) if value in known]
        return len(slots) == 1 and _subtract(model, readers[0], slots[0], error)
    if len(node.input) > 2 and node.input[2]:
        beta = attribute(node, "beta", 1.0)
        return beta != 0 and _subtract(model, node, 2, error / beta)
    bias = add_constant(model, f"{node.name}_bias", -error.astype(np.float32))
    del node.input[2:]
    node.input.append(bias)
    return True


def _subtract(model: onnx.ModelProto, node: onnx.NodeProto, slot: int, error: Array) -> bool:
    """Give the node a bias of its own at that input, less the error."""
    tensor = constants(model).get(node.input[slot])
    if tensor is None or list(tensor.dims) != [len(error)]:
        return False
    bias = (array(tensor) - error).astype(np.float32)
    node.input[slot] = add_constant(model, f"{tensor.name}_corrected", bias)
    return True
