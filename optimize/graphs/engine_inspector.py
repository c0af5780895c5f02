"""Reader of the JSON of TensorRT's engine inspector as an executed graph. Needs no TensorRT.

Both documented forms are read: 10.x names the engine's tensors under ``Bindings``, 11.x under ``I/O Tensors``. Written
from NVIDIA's documentation; experimental (`optimize.experimental.TENSORRT`), since no real engine could be built.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import IntegrityError, StageError
from .execution_graph import OPAQUE, Graph, Operation, Tensor

ENGINE = "TensorRT"
_DTYPES = (  # what a format is called, the particular before what it contains
    (r"bf16|bfloat16", "bfloat16"),
    (r"fp8|float8|e4m3", "float8"),
    (r"fp4|float4|e2m1", "float4"),
    (r"fp16|float16|half", "float16"),
    (r"fp32|float", "float32"),
    (r"uint8", "uint8"),
    (r"int8", "int8"),
    (r"int4", "int4"),
    (r"int64", "int64"),
    (r"int32", "int32"),
    (r"bool", "bool"),
)
_KINDS = (  # layer and parameter types, as TensorRT's own backend and its graph compiler call them
    (r"deconvolution", "ConvTranspose"),
    (r"convolution", "Conv"),
    (r"dequantize", "DequantizeLinear"),
    (r"quantize", "QuantizeLinear"),
    (r"mha|attention", "MultiHeadAttention"),
    (r"matrixmultiply|matmul|gemm|fullyconnected", "MatMul"),
)
_MOVING = re.compile(r"shuffle|reformat|noop|slice|identity|constant|reshape")
_COMPUTING = re.compile(r"matmul|gemm|conv|einsum|attention|mha|lstm|gru", re.IGNORECASE)
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_FORMATS = ("Format/Datatype", "Datatype", "DataType", "Format")


def read_layers(text: str, *, length: int = 8, costs: Mapping[str, int] | None = None) -> Graph:
    """The engine's layers as operations; a batch of unknown size counts as 1, other unknown axes as `length`.

    A fused layer of the graph compiler that holds products becomes an opaque operation. It costs what the ONNX nodes
    cost that its metadata names, by `costs` (MACs per node name); where one of them is unknown, so is the cost.

    Raises:
        IntegrityError: not the inspector's JSON.
        StageError: it holds names only, since the engine was built without detailed verbosity.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"not an inspector's JSON: {error}", next_step="carry the plan out again") from error
    if not isinstance(layers, list) or not layers:
        raise IntegrityError("the inspector's JSON has no layers", next_step="carry the plan out again")
    if all(isinstance(layer, str) for layer in layers):
        raise StageError(
            "the inspector reported only the names of layers",
            next_step="build the engine with profiling verbosity DETAILED, as compile does",
        )
    operations: list[Operation] = []
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        if isinstance(layer, Mapping):
            operation, known = _layer(layer, length, costs or {})
            operations.append(operation)
            tensors |= known
    return Graph(operations=tuple(operations), tensors=tensors, engine=ENGINE)


def _layer(layer: Mapping[str, Any], length: int, costs: Mapping[str, int]) -> tuple[Operation, dict[str, Tensor]]:
    name = str(layer.get("Name", ""))
    given, made = (list(_tensors(layer.get(side), length)) for side in ("Inputs", "Outputs"))
    tensors = dict((*given, *made))
    kind = _kind(layer, name, given, made)
    inputs = [each for each, _ in given]
    if kind in ("Conv", "ConvTranspose", "MatMul") and (weights := _weights(layer, kind, dict(made))) is not None:
        inputs = [*inputs[:1], f"{name}.weights"]
        tensors[f"{name}.weights"] = weights
    elif kind == "MatMul":
        inputs = inputs[:2]  # what follows was fused in: a bias, a residual
    for each in inputs[:1]:
        if not tensors[each].dtype and len(inputs) > 1:  # "N/A due to dynamic shapes": the weights tell
            tensors[each] = Tensor(dtype=tensors[inputs[1]].dtype or "unknown", shape=tensors[each].shape)
    named = _ONNX.findall(str(layer.get("Metadata", "")))
    known = kind == OPAQUE and named and all(each in costs for each in named)
    operation = Operation(
        name=name,
        kind=kind,
        inputs=tuple(inputs),
        outputs=tuple(each for each, _ in made) or (f"{name}.output",),
        attributes={"macs": sum(costs[each] for each in named)} if known else {},
    )
    return operation, tensors


def _kind(
    layer: Mapping[str, Any], name: str, given: Sequence[tuple[str, Tensor]], made: Sequence[tuple[str, Tensor]]
) -> str:
    told = f"{layer.get('ParameterType', '')} {layer.get('LayerType', '')}".lower()
    if "reformat" in told and given and made:
        before, after = ("int8" in pair[1].dtype for pair in (given[0], made[0]))
        if before != after:
            return "DequantizeLinear" if before else "QuantizeLinear"
    if _MOVING.search(told):
        return "Reshape"
    if (kind := next((kind for pattern, kind in _KINDS if re.search(pattern, told)), None)) is not None:
        return kind
    inside = f"{name} {layer.get('Metadata', '')} {layer.get('TacticName', '')}"
    fused = any(word in told for word in ("kgen", "myelin", "foreignnode", "fusion"))
    return OPAQUE if fused and _COMPUTING.search(inside) else str(layer.get("LayerType", "unknown"))


def _tensors(told: Any, length: int) -> Iterator[tuple[str, Tensor]]:
    for each in told if isinstance(told, list) else ():
        if isinstance(each, Mapping):
            dims = each.get("Dimensions", ())
            shape = tuple(
                int(dim) if int(dim) >= 0 else length if axis else 1  # the first is the batch
                for axis, dim in enumerate(dims)
            )
            said = " ".join(str(each[key]) for key in _FORMATS if key in each)
            yield str(each.get("Name", "")), Tensor(dtype=_dtype(said), shape=shape)


def _weights(layer: Mapping[str, Any], kind: str, made: Mapping[str, Tensor]) -> Tensor | None:
    """The weights in the shape from which the cost of an operation is computed; None where the layer has none."""
    told = layer.get("Weights")
    if not isinstance(told, Mapping) or not int(told.get("Count", 0)):
        return None
    count, maps = int(told["Count"]), int(layer.get("OutMaps", 0))
    dtype = _dtype(str(told.get("Type", "")))
    if kind == "Conv":
        return Tensor(dtype=dtype, shape=(maps, count // maps), constant=True) if maps else None
    if kind == "ConvTranspose":  # each input element is spread through one filter of all outputs of its group
        groups = max(int(layer.get("Groups", 1)), 1)
        spread = maps // groups * _product(layer.get("Kernel", ()))
        return Tensor(dtype=dtype, shape=(count // spread, spread), constant=True) if spread else None
    columns = next((tensor.shape[-1] for tensor in made.values() if tensor.shape), 0)
    return Tensor(dtype=dtype, shape=(count // columns, columns), constant=True) if columns else None


def _product(sizes: Any) -> int:
    found = 1
    for size in sizes if isinstance(sizes, list) else ():
        found *= int(size)
    return found


def _dtype(text: str) -> str:
    return next((dtype for pattern, dtype in _DTYPES if re.search(pattern, text.lower())), "")
