"""Static quantization: Q/DQ around the wanted nodes through ONNX Runtime's quantizer, with ranges made elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from ..targets import Contract
from .on_graph import attribute, constants
from .ranges import Range

_TYPES = {
    "uint8": QuantType.QUInt8,
    "int8": QuantType.QInt8,
    "uint16": QuantType.QUInt16,
    "int4": QuantType.QInt4,
}


class Types(Protocol):
    """Other integer types for a node, as an override states them; None leaves what the target says."""

    @property
    def activations(self) -> str | None: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def per_channel(self) -> bool | None: ...


def quantizable(operators: Sequence[str]) -> frozenset[str]:
    """The operators to quantize; where none are named, all that the quantizer knows."""
    return frozenset(operators or (*QLinearOpsRegistry, *QDQRegistry))


def quantized(
    model: onnx.ModelProto,
    nodes: Sequence[str],
    ranges: Mapping[str, Range],
    contract: Contract,
    *,
    per_channel: bool,
    types: Callable[[onnx.NodeProto], Types | None],
) -> onnx.ModelProto:
    """A copy of the model with Q/DQ around the named nodes.

    Raises:
        Exception: whatever ONNX Runtime's quantizer raises; it shares no base.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wanted = set(nodes)
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        copy,
        per_channel,
        contract.reduce_range,
        QuantType.QInt8,
        _TYPES[contract.activations],
        data,
        [],
        [node.name for node in copy.graph.node if node.name not in wanted],
        sorted({node.op_type for node in copy.graph.node if node.name in wanted}),
        {
            "ActivationSymmetric": contract.activation_symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": contract.quantize_bias,
            "DedicatedQDQPair": contract.own_pairs,
            "OpTypesToExcludeOutputQuantization": list(contract.float_outputs),
            "TensorQuantOverrides": _overrides(copy, wanted, contract, per_channel, types),
        },
    )
    quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _overrides(
    model: onnx.ModelProto,
    wanted: set[str],
    contract: Contract,
    per_channel: bool,
    types: Callable[[onnx.NodeProto], Types | None],
) -> dict[str, list[dict[str, Any]]]:
    """Overrides of nodes as overrides of their tensors, in the quantizer's words."""
    known = constants(model)
    found: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        override = types(node) if node.name in wanted else None
        if override is None:
            continue
        if override.activations is not None:
            found |= {
                name: [{"quant_type": _TYPES[override.activations], "symmetric": contract.activation_symmetric}]
                for name in node.input
                if name and name not in known
            }
        if len(node.input) < 2 or node.input[1] not in known:
            continue
        if override.weights is None and override.per_channel is None:
            continue
        weight: dict[str, Any] = {"quant_type": _TYPES[override.weights or "int8"], "symmetric": True}
        if override.weights != "int4":
            weight["reduce_range"] = contract.reduce_range
        if per_channel if override.per_channel is None else override.per_channel:
            weight["axis"] = _axis(node)
        found[node.input[1]] = [weight]
    return found


def _axis(node: onnx.NodeProto) -> int:
    """The axis of a weight along which outputs lie."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1
