"""ONNX: reads a file into the small description that `legality` judges. Decides nothing about it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import StageError
from ..graphs.on_onnx import bodies, defined, every_node
from .legality import Description, Node, Tensor

_QUANTIZED = re.compile(
    r"(Dynamic)?QuantizeLinear|DequantizeLinear|QLinear\w+|Q(Attention|Gemm|OrderedAttention|EmbedLayerNormalization)"
    r"|(MatMul|Conv)Integer\w*|DynamicQuantize\w+|MatMul(NBits|Bnb4|FpQ4)|GatherBlockQuantized|NhwcQLinear\w+"
)
_NAMES = {"DOUBLE": "float64", "FLOAT": "float32"}
_MOST_VALUES = 1 << 16  # constants longer than this are neither scales nor zero points


def describe(path: Path) -> Description:
    """The graph with subgraphs flattened, types and shapes inferred; external weights are looked for, not loaded.

    Raises:
        StageError: the file is not an ONNX model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise StageError(f"not an ONNX model: {error}", where=str(path), next_step="export it again") from error
    tensors: dict[str, Tensor] = {}
    nodes: list[Node] = []
    for graph, scope, prefix in _scopes(model.graph, {}, ""):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            name = scope.get(value.name, value.name)
            tensors.setdefault(name, _value(value, name))
        for initializer in graph.initializer:
            name = scope.get(initializer.name, initializer.name)
            tensors[name] = _constant(name, initializer, path.parent)
        for number, node in enumerate(graph.node):
            nodes.append(_node(node, number, scope, prefix))
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    name = scope.get(node.output[0], node.output[0])
                    tensors[name] = _constant(name, attribute.t, path.parent)
    held = {initializer.name for initializer in model.graph.initializer}
    return Description(
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=tuple(value.name for value in model.graph.input if value.name not in held),
        outputs=tuple(value.name for value in model.graph.output),
        functions=frozenset(f"{function.domain}:{function.name}" for function in model.functions),
    )


def quantized(model: onnx.ModelProto) -> tuple[str, ...]:
    """The operators of any graph of the model that compute with integers in the place of floats, or restore floats."""
    found = {node.op_type for node in every_node(model) if _QUANTIZED.fullmatch(node.op_type)}
    return tuple(sorted(found))


def _scopes(graph: Any, outer: Mapping[str, str], prefix: str) -> Iterator[tuple[Any, Mapping[str, str], str]]:
    """Each graph with what its tensors are called in the flat description: two branches may use one name twice."""
    own = {name: f"{prefix}{name}" for name in defined(graph) if name} if prefix else {}
    scope = {**outer, **own}
    yield graph, scope, prefix
    for number, node in enumerate(graph.node):
        for index, body in enumerate(bodies(node)):
            yield from _scopes(body, scope, f"{prefix}{node.name or f'{node.op_type} {number}'}/{index}/")


def _node(node: Any, number: int, scope: Mapping[str, str], prefix: str) -> Node:
    attributes = {a.name: int(a.i) for a in node.attribute if a.type == onnx.AttributeProto.INT}
    return Node(
        name=node.name or f"{prefix}{node.op_type} {number}",
        operator=node.op_type,
        inputs=tuple(scope.get(name, name) for name in node.input),
        outputs=tuple(scope.get(name, name) for name in node.output),
        domain=node.domain,
        attributes=attributes,
    )


def _value(value: Any, name: str) -> Tensor:
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or f"{name}.{axis}"
            for axis, dim in enumerate(kind.shape.dim)
        )
    return Tensor(name=name, dtype=_dtype(kind.elem_type), shape=shape)


def _constant(name: str, tensor: Any, folder: Path) -> Tensor:
    place = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
    count = int(np.prod(tensor.dims)) if tensor.dims else 1
    numbers = numpy_helper.to_array(tensor) if not place and count <= _MOST_VALUES else None
    if numbers is not None and numbers.dtype.kind in "OSU":
        numbers = None
    return Tensor(
        name=name,
        dtype=_dtype(tensor.data_type),
        shape=tuple(tensor.dims),
        constant=True,
        zero=numbers is not None and not numbers.astype(np.float64).any(),
        positive=numbers is not None and bool((numbers.astype(np.float64) > 0).all()),
        greatest=float(numbers.max()) if numbers is not None and numbers.size else None,
        stored=place,
        missing=bool(place) and not (folder / place).is_file(),
    )


def _dtype(kind: int) -> str:
    name = onnx.TensorProto.DataType.Name(kind)
    return "" if name == "UNDEFINED" else _NAMES.get(name, name.lower())
