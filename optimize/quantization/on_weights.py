"""Quantization without ranges: 8-bit weights under activations measured at run time, or weights alone in blocks."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from .on_graph import add_constant, array, constants, consumers, drop_unused, fresh, names, products

DYNAMIC = ("MatMul", "Gemm", "Attention")  # embeddings (Gather) only where they are named, convolutions never pay
WEIGHT_ONLY = ("MatMul", "Gemm")


def dynamic(
    model: onnx.ModelProto, nodes: Collection[str], *, per_channel: bool, reduce_range: bool, folder: Path
) -> onnx.ModelProto:
    """A copy of the model whose named nodes multiply in 8 bits.

    Raises:
        Exception: whatever ONNX Runtime's quantizer raises; it shares no base.
    """
    plain = _products_only(model)
    wanted = _renamed(nodes)
    operators = sorted({node.op_type for node in plain.graph.node if node.name in wanted})
    path = folder / "dynamic.onnx"
    quantize_dynamic(
        plain,
        str(path),
        op_types_to_quantize=operators,
        per_channel=per_channel,
        reduce_range=reduce_range,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in plain.graph.node if node.name not in wanted],
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    made = onnx.load(str(path))
    path.unlink()
    return made


def weight_only(
    model: onnx.ModelProto, bits: Mapping[str, int], *, block_size: int, accuracy_level: int
) -> onnx.ModelProto:
    """A copy of the model in which the products named in `bits` hold their weights in that many bits, in blocks.

    Raises:
        Exception: whatever ONNX Runtime's quantizer raises; it shares no base.
    """
    quantizer_type = _quietly_imported()
    made = _products_only(model)
    for width in sorted(set(bits.values())):
        wanted = _renamed([name for name, value in bits.items() if value == width])
        quantizer = quantizer_type(
            made,
            bits=width,
            block_size=block_size,
            accuracy_level=accuracy_level or None,
            nodes_to_exclude=[node.name for node in made.graph.node if node.name not in wanted],
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        made = quantizer.model.model
    return made


def channels(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A copy of the model in which the named products read int8 weights, a scale per output channel, dequantized.

    Weights are symmetric and rounded to nearest, the widest of a channel at 127.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    readers = []
    for product in products(made, nodes):
        weights = array(product.weight)
        axis = 0 if product.transposed else 1
        scales = np.abs(weights).max(axis=1 - axis, keepdims=True) / 127
        scales[scales == 0] = 1.0  # a channel of zeros
        name = f"{product.node.name}_weight"
        integers = add_constant(made, f"{name}_int8", np.rint(weights / scales).astype(np.int8))
        scale = add_constant(made, f"{name}_scale", scales.reshape(-1).astype(np.float32))
        restored = fresh(f"{name}_restored", names(made))
        node = onnx.helper.make_node("DequantizeLinear", [integers, scale], [restored], f"{restored}_node", axis=axis)
        product.node.input[1] = restored
        readers.append(node)
    for node in reversed(readers):
        made.graph.node.insert(0, node)
    drop_unused(made)
    return made


def _quietly_imported() -> Any:
    """ONNX Runtime's quantizer of weights in blocks; importing it turns logging on for the whole process otherwise."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.quantization import matmul_nbits_quantizer

    root.handlers[:] = handlers
    root.setLevel(level)
    return matmul_nbits_quantizer.MatMulNBitsQuantizer


def _renamed(nodes: Collection[str]) -> set[str]:
    """The names, and those that ONNX Runtime gives to the products it makes of Gemm nodes."""
    return {*nodes, *(f"{name}_MatMul" for name in nodes)}


def _products_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every Gemm is a MatMul and an Add, each with a weight of its own.

    ONNX Runtime transposes a Gemm's weight in place, so one that two nodes read would be turned twice.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    readers, known = consumers(copy), constants(copy)
    for node in copy.graph.node:
        if node.op_type == "Gemm" and node.input[1] in known and len(readers[node.input[1]]) > 1:
            node.input[1] = add_constant(copy, f"{node.name}_weight", array(known[node.input[1]]))
    ONNXModel(copy).replace_gemm_with_matmul()
    return copy
