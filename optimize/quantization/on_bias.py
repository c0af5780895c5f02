"""Bias correction: takes the mean error that rounding and clipping cause in each weighted node out of its bias.

The error of a node is measured on the float model's own activations (Nagel et al. 2019, section 4.2, with samples
instead of assumed statistics), against its twin. One node's error does not enter the next one's, so one pass suffices
and no error is corrected twice.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, array, constants, consumers, drop_unused
from ..samples import Array, Samples
from .on_calibration import means
from .on_graph import attribute
from .on_twins import Twin, channel_means, with_twins


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
    probed, twins = with_twins(model, quantized, set(nodes))
    named = {twin.node.name: _mean_error(probed, twin) for twin in twins}
    errors = means(probed, list(named.values()), samples, folder=folder, threads=threads) if named else {}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    done = sum(_shift(result, name, errors[error]) for name, error in named.items())
    drop_unused(result)
    return result, done


def _mean_error(model: onnx.ModelProto, twin: Twin) -> str:
    """Add the mean of a twin's error per output channel; returns that tensor's name."""
    difference = f"{twin.output}_difference"
    model.graph.node.append(onnx.helper.make_node("Sub", [twin.output, twin.node.output[0]], [difference]))
    return channel_means(model, twin.node, difference)


def _shift(model: onnx.ModelProto, name: str, error: Array) -> bool:
    """Subtract the error [channels] from the node's bias or the Add behind it, or give it one; whether done."""
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
    """Give the node a bias of its own at that input, less the error [channels]."""
    tensor = constants(model).get(node.input[slot])
    if tensor is None or list(tensor.dims) != [len(error)]:
        return False
    bias = (array(tensor) - error).astype(np.float32)
    node.input[slot] = add_constant(model, f"{tensor.name}_corrected", bias)
    return True
