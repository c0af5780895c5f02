"""Weights alone in integers, under float activations: in blocks, or with a scale for each channel."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx

from ..graphs.on_onnx import add_constant, array, constants, drop_unused, fresh, names
from ..quiet import quiet
from . import on_dynamic
from .on_graph import attribute
from .on_held import hold, release

WEIGHT_ONLY = ("MatMul", "Gemm")
CHANNELS = ("MatMul", "Gemm", "LSTM", "GRU", "RNN", "Attention", "Gather")


def default(storage: str) -> tuple[str, ...]:
    """The operators whose weights are stored so where the recipe names none."""
    return WEIGHT_ONLY if storage == "blocks" else ("MatMul", "Gemm", "LSTM", "GRU", "RNN", "Attention")


def dynamic(
    model: onnx.ModelProto, nodes: Collection[str], *, per_channel: bool, reduce_range: bool, folder: Path
) -> onnx.ModelProto:
    """A copy of the model whose named nodes multiply in 8 bits (`on_dynamic`)."""
    return on_dynamic.dynamic(model, nodes, per_channel=per_channel, reduce_range=reduce_range)


def weight_only(
    model: onnx.ModelProto, bits: Mapping[str, int], *, block_size: int, accuracy_level: int
) -> onnx.ModelProto:
    """A copy of the model in which the products named in `bits` hold their weights in that many bits, in blocks.

    Raises:
        Exception: whatever ONNX Runtime's quantizer raises; it shares no base.
    """
    with quiet():  # importing it turns logging on for the whole process
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _as_products(made, bits)
    held = hold(made)
    for width in sorted(set(bits.values())):
        wanted = {name for name, value in bits.items() if value == width}
        quantizer = MatMulNBitsQuantizer(
            made,
            bits=width,
            block_size=block_size,
            accuracy_level=accuracy_level or None,
            nodes_to_exclude=[node.name for node in made.graph.node if node.name not in wanted],
            op_types_to_quantize=("MatMul",),
        )
        quantizer.process()
        made = quantizer.model.model
    release(made, held)
    return made


def channels(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """A copy of the model in which the named nodes read int8 weights, a scale per output channel, dequantized.

    Weights are symmetric and rounded to nearest, the widest of a channel at 127. Tables are dequantized row by row,
    after the rows are looked up.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = on_dynamic.Rewriter(made, per_channel=True, largest=127)
    for node in list(made.graph.node):
        slots = (1, 2) if node.op_type in ("LSTM", "GRU", "RNN") else (1,)
        if node.name not in nodes:
            continue
        if node.op_type == "Gather" and _floats(node, (0,), work.known):
            work.look_up(node)
            work.done.add(node.name)
        elif node.op_type in CHANNELS and _floats(node, slots, work.known):
            work.restore_weights(node, slots, _channel(node, len(work.known[node.input[1]].dims)))
    on_dynamic.finish(made, work.done, work.added, foreign=False)
    return made


def _floats(node: onnx.NodeProto, slots: tuple[int, ...], known: Mapping[str, onnx.TensorProto]) -> bool:
    found = [known.get(node.input[slot]) for slot in slots if slot < len(node.input)]
    return len(found) == len(slots) and all(
        one is not None and one.data_type == onnx.TensorProto.FLOAT for one in found
    )


def _channel(node: onnx.NodeProto, rank: int) -> int | None:
    """The axis of the weights along which outputs lie; None for a vector."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return 1
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return 0
    return rank - 1 if rank > 1 else None


def _as_products(model: onnx.ModelProto, nodes: Collection[str]) -> None:
    """Make of each named Gemm a MatMul of its name, with a weight of its own, and an Add."""
    known, taken = constants(model), names(model)
    made = []
    for node in model.graph.node:
        weight = known.get(node.input[1]) if node.op_type == "Gemm" and node.name in nodes else None
        plain = weight is not None and not attribute(node, "transA", 0) and attribute(node, "beta", 1.0) == 1.0
        if not plain or weight is None:
            made.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        values = array(weight) * np.float32(attribute(node, "alpha", 1.0))
        values = values.T if attribute(node, "transB", 0) else values
        name = add_constant(model, fresh(f"{weight.name}_matrix", taken), values)
        bias = node.input[2] if len(node.input) > 2 else ""
        result = fresh(f"{node.output[0]}_product", taken) if bias else node.output[0]
        made.append(onnx.helper.make_node("MatMul", [node.input[0], name], [result], node.name))
        if bias:
            addition = fresh(f"{node.name}_bias", taken)
            made.append(onnx.helper.make_node("Add", [result, bias], [node.output[0]], addition))
    del model.graph.node[:]
    model.graph.node.extend(made)
    drop_unused(model)
