"""Reading ONNX graphs before they are quantized: the prepared model, its weighted nodes, its float tensors."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..errors import StageError
from ..samples import Array

_WHOLE = ("LayerNormalization", "SkipLayerNormalization", "Attention", "MultiHeadAttention", "RMSNormalization")
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A node that multiplies by a constant matrix: `weight` is [k, n], or [n, k] where `transposed`."""

    node: onnx.NodeProto
    weight: onnx.TensorProto
    transposed: bool


def prepare(source: Path, folder: Path, opset: int) -> onnx.ModelProto:
    """Fold, fuse and infer shapes, name every node, and raise the opset where the target needs it.

    Without folding and fusing first, Q/DQ land inside patterns that the runtime would have fused.

    Raises:
        StageError: ONNX Runtime cannot read the graph.
    """
    source, path = source.absolute(), folder.absolute() / "prepared.onnx"
    with contextlib.chdir(folder):  # where symbolic inference fails, it leaves its last graph in the working directory
        try:
            quant_pre_process(str(source), str(path), skip_symbolic_shape=False)
        except Exception:  # noqa: BLE001  symbolic inference raises anything on legal graphs; the plain one is enough
            try:
                quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
            except Exception as error:  # see above
                raise StageError(f"the graph cannot be prepared: {error}", next_step="check the ONNX file") from error
    model = onnx.load(str(path))
    path.unlink()
    if next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < opset:
        model = _raised(model, opset)
    taken = {node.name for node in model.graph.node}
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = fresh(f"{node.op_type}_{number}", taken)
    return model


def _raised(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(onnx.version_converter.convert_version(model, opset))
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError, which share no base
        raise StageError(
            f"the graph cannot be raised to opset {opset}: {str(error).strip().splitlines()[0]}",
            next_step="export it with that opset, or remove the override that needs it",
        ) from error


def fresh(name: str, taken: set[str]) -> str:
    """A name that is not taken yet; it is taken now."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def names(model: onnx.ModelProto) -> set[str]:
    """Every name of a node or tensor in the graph."""
    found = {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    for node in model.graph.node:
        found.update((node.name, *node.input, *node.output))
    return found


def operators(model: onnx.ModelProto, wanted: tuple[str, ...], suggested: tuple[str, ...]) -> tuple[str, ...]:
    """What to quantize: what the user wants, what the target suggests, or what suits the graph (empty: everything).

    In a transformer everything but the weighted operators stays float: integers between them cost far more accuracy
    than time, and embeddings are looked up, not multiplied.
    """
    if wanted or suggested:
        return wanted or suggested
    return WEIGHTED if any(node.op_type in _WHOLE for node in model.graph.node) else ()


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor; a graph output counts as read by a node without a name."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    for value in model.graph.output:
        found.setdefault(value.name, []).append(onnx.NodeProto())
    return found


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the node's attributes."""
    for one in node.attribute:
        if one.name == name:
            return float(onnx.helper.get_attribute_value(one))
    return default


def products(model: onnx.ModelProto, nodes: Iterable[str]) -> Iterator[Product]:
    """Those of the named nodes that multiply an activation by a constant float matrix."""
    known, wanted = constants(model), set(nodes)
    for node in model.graph.node:
        if node.name not in wanted or node.op_type not in ("MatMul", "Gemm"):
            continue
        weight = known.get(node.input[1])
        if weight is None or len(weight.dims) != 2 or weight.data_type != onnx.TensorProto.FLOAT:
            continue
        if node.input[0] in known or attribute(node, "transA", 0):
            continue
        yield Product(node=node, weight=weight, transposed=bool(attribute(node, "transB", 0)))


def activation_products(model: onnx.ModelProto) -> set[str]:
    """Names of the matrix products that have no constant side."""
    known = constants(model)
    return {
        node.name
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and not any(name in known for name in node.input[:2])
    }


def float_tensors(model: onnx.ModelProto, nodes: Iterable[str]) -> list[str]:
    """Float activations that the named nodes read or write, each once, in the graph's order."""
    graph, wanted, known = model.graph, set(nodes), constants(model)
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    touched = [name for node in graph.node if node.name in wanted for name in (*node.input, *node.output)]
    return [name for name in dict.fromkeys(touched) if name in floats and name not in known]


def array(tensor: onnx.TensorProto) -> Array:
    """The values of an initializer, free to be changed."""
    return np.array(onnx.numpy_helper.to_array(tensor))


def add_constant(model: onnx.ModelProto, name: str, values: Array) -> str:
    """Add an initializer under a free name, which is returned."""
    free = fresh(name, names(model))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), free))
    return free


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove initializers that no node reads any more."""
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
