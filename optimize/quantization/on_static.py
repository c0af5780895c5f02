"""Static quantization: Q/DQ around the wanted nodes through ONNX Runtime's quantizer, with ranges made elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from ..errors import StageError
from ..graphs.on_onnx import constants
from ..recipe.targets import Contract
from .on_graph import attribute
from .on_held import hold, release
from .ranges import Range

_PREPARED = ("onnx.infer", "onnxruntime.quant")  # keeps the quantizer from inferring types again, and forgetting ours
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
    """The operators to quantize; where none are named, all that the quantizer knows but softmax.

    It gives a softmax steps of 1/256 whatever was seen, so of a thousand classes those below 1/512 become 0.
    """
    return frozenset(operators or {*QLinearOpsRegistry, *QDQRegistry} - {"Softmax"})


def known_operator(name: str) -> bool:
    """Return whether ONNX or the quantizer knows an operator of that name in any version."""
    return name in quantizable(()) or any(one.name == name for one in onnx.defs.get_all_schemas())


def unfit(model: onnx.ModelProto) -> dict[str, str]:
    """Nodes that cannot have Q/DQ around them, each with the reason."""
    known = constants(model)
    infinite = {
        name
        for name, tensor in known.items()
        if tensor.data_type == onnx.TensorProto.FLOAT and not np.isfinite(onnx.numpy_helper.to_array(tensor)).all()
    }
    found = {}
    for node in model.graph.node:
        if bad := [name for name in node.input if name in infinite]:
            found[node.name] = f"{bad[0]} holds numbers that are not finite"
        if node.op_type == "Gemm" and len(node.input) > 2 and len(getattr(known.get(node.input[2]), "dims", ())) > 1:
            found[node.name] = f"its bias {node.input[2]} differs from row to row"
    return found


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
    held = hold(copy)
    if not any(entry.key == _PREPARED[0] for entry in copy.metadata_props):
        copy.metadata_props.add(key=_PREPARED[0], value=_PREPARED[1])
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
    release(made, held)
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
        if node.name not in wanted:
            continue
        override = types(node)
        if override is not None and override.activations is not None:
            found |= {
                name: [{"quant_type": _TYPES[override.activations], "symmetric": contract.activation_symmetric}]
                for name in node.input
                if name and name not in known
            }
        found |= _weights(node, override, known, contract, per_channel)
    return found


def _weights(
    node: onnx.NodeProto,
    override: Types | None,
    known: Mapping[str, onnx.TensorProto],
    contract: Contract,
    per_channel: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Overrides of the node's constants: what an override states, and one scale for a factor that is no matrix."""
    odd = _odd_factors(node, known)
    stated = override is not None and (override.weights is not None or override.per_channel is not None)
    weight = node.input[1] if stated and len(node.input) > 1 and node.input[1] in known else ""
    found = {}
    for name in dict.fromkeys([*odd, *([weight] if weight else [])]):
        bits = override.weights if override is not None and name == weight else None
        whole: dict[str, Any] = {"quant_type": _TYPES[bits or "int8"], "symmetric": True}
        if bits != "int4":
            whole["reduce_range"] = contract.reduce_range
        asked = override.per_channel if override is not None and name == weight else None
        if name in odd and asked:
            raise StageError(
                f"the override of {node.name} requests one scale per channel, but its weight has {odd[name]} axes",
                next_step="remove per_channel there: the kernels take one scale for such a weight",
            )
        if name not in odd and (per_channel if asked is None else asked):
            whole["axis"] = _axis(node)
        found[name] = [whole]
    return found


def _odd_factors(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> dict[str, int]:
    """Constant factors of a product that no kernel takes with a scale per channel, and the axes of each."""
    if node.op_type != "MatMul":
        return {}
    sides = [(slot, name) for slot, name in enumerate(node.input) if name in known]
    return {name: len(known[name].dims) for slot, name in sides if slot == 0 or len(known[name].dims) != 2}


def _axis(node: onnx.NodeProto) -> int:
    """The axis of a weight along which outputs lie."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1
