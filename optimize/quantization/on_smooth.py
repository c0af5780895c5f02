"""SmoothQuant on a graph: divides the inputs of matrix products per channel and multiplies their weights.

The division is folded into the layer normalization or affine constants before it where no other node reads that tensor,
and is an explicit Mul otherwise. Products that share an input share its divisors.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, array, constants, consumers, drop_unused, fresh, names
from ..samples import Array
from .on_graph import Product, products
from .smooth import divisors


def smoothed(
    model: onnx.ModelProto, nodes: Collection[str], channels: Mapping[str, Array], strength: float
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A copy of the model that computes the same with smoother activations, and the names of the Mul nodes added.

    `channels` are the largest magnitudes of each tensor along its last axis, [channels].
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    sharing: dict[str, list[Product]] = {}
    for product in products(changed, nodes):
        sharing.setdefault(product.node.input[0], []).append(product)
    added = []
    for tensor, group in sharing.items():
        if tensor not in channels or any(len(channels[tensor]) != _inputs(product) for product in group):
            continue
        largest = np.max([np.abs(_matrix(product)).max(axis=1) for product in group], axis=0)
        divisor = divisors(channels[tensor], largest, strength)
        added.append(rescaled(changed, tensor, group, divisor))
    drop_unused(changed)
    return changed, tuple(name for name in added if name)


def rescaled(model: onnx.ModelProto, tensor: str, group: list[Product], divisor: Array) -> str:
    """Divide a tensor by `divisor` [channels] and multiply the weights of all products that read it, in place.

    Returns the name of the Mul that this took, or an empty string where the division was folded.
    """
    for product in group:
        weights = array(product.weight)
        weights = weights * (divisor if product.transposed else divisor[:, None])
        product.node.input[1] = add_constant(model, f"{product.weight.name}_smoothed", weights)
    return "" if _fold(model, tensor, len(group), divisor) else _insert(model, tensor, group, divisor)


def _inputs(product: Product) -> int:
    return int(product.weight.dims[1 if product.transposed else 0])


def _matrix(product: Product) -> Array:
    """The weight as [k, n]."""
    weights = array(product.weight)
    return weights.T if product.transposed else weights


def _fold(model: onnx.ModelProto, tensor: str, readers: int, divisor: Array) -> bool:
    """Divide the constants of the tensor's node by `divisor` [channels] if only these products read it, and say so."""
    producer = next((node for node in model.graph.node if tensor in node.output), None)
    if producer is None or len(consumers(model)[tensor]) != readers:
        return False
    if producer.op_type == "LayerNormalization" and producer.output[0] == tensor:
        return _divide(model, [(producer, slot) for slot in range(1, len(producer.input))], divisor)
    if producer.op_type == "Mul":
        slots = [slot for slot, name in enumerate(producer.input) if name in constants(model)]
        return len(slots) == 1 and _divide(model, [(producer, slots[0])], divisor)
    if producer.op_type == "Add":
        shift = [slot for slot, name in enumerate(producer.input) if name in constants(model)]
        if len(shift) != 1:
            return False
        scaled = producer.input[1 - shift[0]]
        scale = next((node for node in model.graph.node if scaled in node.output), None)
        if scale is None or scale.op_type != "Mul" or len(consumers(model)[scaled]) != 1:
            return False
        slots = [slot for slot, name in enumerate(scale.input) if name in constants(model)]
        return len(slots) == 1 and _divide(model, [(producer, shift[0]), (scale, slots[0])], divisor)
    return False


def _divide(model: onnx.ModelProto, places: list[tuple[onnx.NodeProto, int]], divisor: Array) -> bool:
    """Divide the constants at these inputs, all or none: only vectors along the channel axis can take it."""
    known = constants(model)
    values = [known.get(node.input[slot]) for node, slot in places]
    vectors = [array(value) for value in values if value is not None]
    if len(vectors) != len(places) or any(vector.shape != divisor.shape for vector in vectors):
        return False
    for (node, slot), vector in zip(places, vectors, strict=True):
        node.input[slot] = add_constant(model, f"{node.input[slot]}_smoothed", vector / divisor)
    return True


def _insert(model: onnx.ModelProto, tensor: str, group: list[Product], divisor: Array) -> str:
    """Insert a Mul by ``1 / divisor`` [channels] before these products; returns its name."""
    taken = names(model)
    name, output = fresh(f"{tensor}_smooth", taken), fresh(f"{tensor}_smoothed", taken)
    factor = add_constant(model, f"{tensor}_smooth_factor", np.float32(1.0) / divisor)
    for product in group:
        product.node.input[0] = output
    position = min(
        index for index, node in enumerate(model.graph.node) if any(node.name == one.node.name for one in group)
    )
    model.graph.node.insert(position, onnx.helper.make_node("Mul", [tensor, factor], [output], name=name))
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return name
