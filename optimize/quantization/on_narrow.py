"""Weights alone in fp8 or int4 under a DequantizeLinear, for GPUs: products stay in float, weights take less memory.

Fp8 is E4M3 with a scale per output channel (opset 19). Int4 is symmetric, -7 to 7, with a scale for each block of the
input axis of each output channel (opset 21).
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, array, drop_unused, fresh, names
from ..samples import Array
from . import on_fp8
from .on_graph import Product, products

OPSETS = {"fp8": on_fp8.OPSET, "int4": 21}
_GREATEST = 7
_TINY = float(np.finfo(np.float32).tiny)


def why_not(product: Product, precision: str, block_size: int) -> str:
    """Return why a product's weight cannot be stored so; an empty string where it can."""
    inner = int(product.weight.dims[1 if product.transposed else 0])
    if precision == "int4" and inner % block_size:
        return f"its {inner} inputs are no multiple of block_size {block_size}"
    return ""


def round_trip(weights: Array, precision: str, block_size: int) -> Array:
    """Return float32 weights [k, n] as the format holds them."""
    if precision == "fp8":
        codes, scale = on_fp8.rounded(weights, 1)
        return np.asarray(codes.astype(np.float32) * scale)
    codes, scale = rounded(weights, block_size)
    return np.asarray(codes * np.repeat(scale, block_size, axis=0))


def rounded(weights: Array, block_size: int) -> tuple[Array, Array]:
    """Round weights [k, n] to int4; returns codes from -7 to 7, int8 [k, n], and scales, float32 [k / block_size, n].

    A block of zeros, or of numbers below float32's normal ones, has scale 1.
    """
    blocks = weights.reshape(-1, block_size, weights.shape[1])
    scale = (np.abs(blocks).max(axis=1) / np.float32(_GREATEST)).astype(np.float32)
    scale = np.where(scale >= _TINY, scale, np.float32(1.0))
    codes = np.clip(np.rint(blocks / scale[:, None]), -_GREATEST, _GREATEST)
    return codes.reshape(weights.shape).astype(np.int8), scale


def narrowed(model: onnx.ModelProto, nodes: Collection[str], precision: str, *, block_size: int) -> onnx.ModelProto:
    """Return a copy of the model in which the named products read weights in that format, dequantized."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    taken = names(made)
    before: dict[str, onnx.NodeProto] = {}
    for product in products(made, nodes):
        before[product.node.name] = _restoring(made, product, precision, block_size, taken)
        product.node.input[1] = before[product.node.name].output[0]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made.graph.node]
    del made.graph.node[:]
    for node in kept:
        made.graph.node.extend([before[node.name]] if node.name in before else [])
        made.graph.node.append(node)
    drop_unused(made)
    return made


def _restoring(
    model: onnx.ModelProto, product: Product, precision: str, block_size: int, taken: set[str]
) -> onnx.NodeProto:
    """Add a weight's codes and scales to the model; return the node that restores it in the product's own layout."""
    name, values = product.weight.name, array(product.weight)
    matrix = values.T if product.transposed else values
    if precision == "fp8":
        codes, scale = on_fp8.rounded(matrix, 1)
        attributes: dict[str, Any] = {"axis": 0 if product.transposed else 1}
        kind, raw = onnx.TensorProto.FLOAT8E4M3FN, (codes.T if product.transposed else codes).tobytes()
    else:
        codes, scale = rounded(matrix, block_size)
        codes, scale = (codes.T, scale.T) if product.transposed else (codes, scale)
        attributes = {"axis": 1 if product.transposed else 0, "block_size": block_size}
        kind, raw = onnx.TensorProto.INT4, packed(codes)
    stored, output = fresh(f"{name}_{precision}", taken), fresh(f"{name}_restored", taken)
    model.graph.initializer.append(onnx.helper.make_tensor(stored, kind, values.shape, raw, raw=True))
    scales = add_constant(model, f"{name}_scale", np.ascontiguousarray(scale))
    restoring = fresh(f"{output}_DequantizeLinear", taken)
    return onnx.helper.make_node("DequantizeLinear", [stored, scales], [output], restoring, **attributes)


def packed(codes: Array) -> bytes:
    """Return whole numbers from -8 to 7 as ONNX stores int4: two in a byte, the first in the low half."""
    flat = np.ascontiguousarray(codes).reshape(-1).view(np.uint8) & 0x0F
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8).tobytes()
