"""Reading ONNX graphs before they are quantized: the prepared model, its weighted nodes, its float tensors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from ..errors import StageError
from ..graphs.on_onnx import add_constant, array, constants, name_nodes, set_types
from ..sessions.on_ort_graph import element_types
from .on_opset import raised
from .on_origin import WEIGHTED, Origins, origins
from .on_source import loaded

_WHOLE = ("LayerNormalization", "SkipLayerNormalization", "Attention", "MultiHeadAttention", "RMSNormalization")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A node that multiplies by a constant matrix: `weight` is [k, n], or [n, k] where `transposed`."""

    node: onnx.NodeProto
    weight: onnx.TensorProto
    transposed: bool


def prepare(source: Path, folder: Path, opset: int) -> onnx.ModelProto:
    """The model of `traced`, without the origins of its nodes."""
    return traced(source, folder, opset)[0]


def traced(source: Path, folder: Path, opset: int) -> tuple[onnx.ModelProto, Origins]:
    """Raise the opset where the target needs it, fold and fuse, name every node, and state the type of every tensor.

    Without folding and fusing first, Q/DQ land inside patterns that the runtime would have fused.

    Raises:
        StageError: the graph is quantized already, or ONNX Runtime cannot read it.
    """
    given = loaded(source)
    model = _optimized(raised(given, opset), folder.absolute() / "prepared.onnx")
    name_nodes(model)
    found = origins(given, model)
    _flatten_biases(model)
    set_types(model, element_types(model))
    return model, found


def _optimized(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(path))
    except Exception as error:  # ONNX Runtime's and protobuf's exceptions share no base below Exception
        raise StageError(
            f"ONNX Runtime cannot open the graph: {str(error).strip().splitlines()[0][:300]}",
            next_step="check that the file runs in ONNX Runtime alone",
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _flatten_biases(model: onnx.ModelProto) -> None:
    """Give each Gemm a bias [n]: [1, n] and a single number are legal, and no quantizer takes them.

    A bias that differs from row to row is none; such a node stays in float (`is_layer`).
    """
    known = constants(model)
    for node in model.graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or node.input[1] not in known:
            continue
        width = known[node.input[1]].dims[0 if attribute(node, "transB", 0) else 1]
        bias = known.get(node.input[2])
        if bias is None or list(bias.dims) == [width] or (len(bias.dims) == 2 and bias.dims[0] != 1):
            continue
        flat = np.broadcast_to(array(bias).reshape(-1), [width]).copy()
        node.input[2] = add_constant(model, f"{bias.name}_flat", flat)


def operators(model: onnx.ModelProto, wanted: tuple[str, ...], suggested: tuple[str, ...]) -> tuple[str, ...]:
    """Select the operators to quantize: the user's choice, the target's, or those that suit the graph (empty: all).

    In a transformer everything but the weighted operators stays float: integers between them cost far more accuracy
    than time, and embeddings are looked up, not multiplied.
    """
    if wanted or suggested:
        return wanted or suggested
    return WEIGHTED if any(node.op_type in _WHOLE for node in model.graph.node) else ()


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
