"""Dynamic quantization: integer weights under activations that are measured at run time, in ONNX Runtime's patterns.

The patterns are those that its optimizer fuses (``DynamicQuantizeMatMul``, ``MatMulIntegerToFloat``). They are written
here and not by its quantizer, which overlooks bodies, turns shared weights twice, and takes a weight's second axis for
its outputs whatever the rank.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..graphs.on_onnx import add_constant, array, constants, drop_unused, fresh, names, sort
from ..samples import Array
from .on_graph import attribute

DYNAMIC = (
    "MatMul",
    "Gemm",
    "Attention",
    "LSTM",
)  # embeddings and GRU only where they are named; convolutions never gain
KNOWN = (*DYNAMIC, "Gather", "GRU", "RNN", "Conv")
_MICROSOFT = "com.microsoft"
_ATTENTION = ("num_heads", "unidirectional", "scale", "mask_filter_value", "do_rotary", "past_present_share_buffer")


def why_not(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """Return why the node has no integer form at run time; empty where it has one."""
    known = constants(model)

    def weights(*slots: int) -> bool:
        present = [node.input[slot] if slot < len(node.input) else "" for slot in slots]
        return all(name in known and known[name].data_type == onnx.TensorProto.FLOAT for name in present)

    if node.op_type not in KNOWN:
        return f"{node.op_type} has no integer kernel for dynamic quantization"
    if node.op_type == "LSTM" and attribute(node, "layout", 0):
        return "no integer kernel for layout = 1"
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return "" if weights(1, 2) else "its weights are not constant"
    if node.op_type == "Gather":
        return "" if weights(0) else "its table is not constant"
    if node.op_type == "Attention":
        foreign = [item.name for item in node.attribute if item.name not in _ATTENTION]
        if foreign or any(node.input[5:]) or not weights(1, 2):
            return f"no integer kernel for attention with {', '.join(foreign) or 'these inputs'}"
        return ""
    if not weights(1):
        return "its constant is the left factor" if weights(0) else "its weights are not constant"
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or attribute(node, "beta", 1.0) != 1.0):
        return "no integer kernel for transA or beta"
    return ""


def dynamic(
    model: onnx.ModelProto, nodes: Collection[str], *, per_channel: bool, reduce_range: bool
) -> onnx.ModelProto:
    """A copy of the model whose named nodes hold integer weights and, where a kernel is there, multiply in integers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    work = Rewriter(made, per_channel=per_channel, largest=63 if reduce_range else 127)
    for node in list(made.graph.node):
        if node.name in nodes and not why_not(model, node):
            work.replace(node)
    finish(made, work.done, work.added, foreign=work.foreign)
    return made


def finish(
    model: onnx.ModelProto, replaced: Collection[str], added: Collection[onnx.NodeProto], *, foreign: bool
) -> None:
    """Put nodes in the place of others: in order, without what nothing reads any more, with the domain they need."""
    kept = [node for node in model.graph.node if node.name not in replaced]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend([*kept, *added])
    if foreign and not any(entry.domain == _MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    sort(model.graph)
    drop_unused(model)


class Rewriter:
    """The nodes that come into the graph, and the activations that are measured already."""

    def __init__(self, model: onnx.ModelProto, *, per_channel: bool, largest: int) -> None:
        self.model, self.per_channel, self.largest = model, per_channel, largest
        self.known, self.taken = constants(model), names(model)
        self.added: list[onnx.NodeProto] = []
        self.done: set[str] = set()
        self.foreign = False
        self._measured: dict[str, list[str]] = {}

    def replace(self, node: onnx.NodeProto) -> None:
        """Write the integer form of one node."""
        makers = {
            **dict.fromkeys(("MatMul", "Gemm"), self._product),
            **dict.fromkeys(("GRU", "RNN"), self._restored),
            "Attention": self._attention,
            "LSTM": self._lstm,
            "Gather": self.look_up,
            "Conv": self._convolution,
        }
        makers[node.op_type](node)
        self.done.add(node.name)

    def add(self, operator: str, inputs: list[str], output: str, name: str, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns its output."""
        name = fresh(name, self.taken)
        self.added.append(helper.make_node(operator, inputs, [output], name, domain=domain, **attributes))
        self.foreign |= domain == _MICROSOFT
        return output

    def tensor(self, name: str) -> str:
        """A free name for a tensor."""
        return fresh(name, self.taken)

    def constant(self, name: str, values: Array) -> str:
        """Add a constant of the shape of `values`; returns its name."""
        made = add_constant(self.model, fresh(name, self.taken), values)
        self.taken.add(made)
        return made

    def _measure(self, tensor: str) -> list[str]:
        """The integers of an activation, their scale and zero point."""
        if tensor not in self._measured:
            outputs = [self.tensor(f"{tensor}_{part}") for part in ("integers", "step", "zero")]
            name = fresh(f"{tensor}_measure", self.taken)
            self.added.append(helper.make_node("DynamicQuantizeLinear", [tensor], outputs, name))
            self._measured[tensor] = outputs
        return self._measured[tensor]

    def _product(self, node: onnx.NodeProto) -> None:
        weights = array(self.known[node.input[1]])
        if node.op_type == "Gemm":
            weights = weights.T if attribute(node, "transB", 0) else weights
            weights = weights * np.float32(attribute(node, "alpha", 1.0))
        axis = (0,) if self.per_channel and weights.ndim == 2 else None
        integers, scale = rounded(weights, axis, self.largest)
        x, step, zero = self._measure(node.input[0])
        w = self.constant(f"{node.input[1]}_int8", integers)
        w_scale = self.constant(f"{node.input[1]}_step", scale.reshape(-1) if axis else scale.reshape(()))
        w_zero = self.constant(f"{node.input[1]}_zero", np.zeros(scale.size if axis else (), np.int8))
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        result = self.tensor(f"{node.output[0]}_product") if bias else node.output[0]
        self._multiply("MatMulInteger", node, [x, w, zero, w_zero], step, w_scale, result)
        if bias:
            self.add("Add", [result, bias], node.output[0], f"{node.name}_bias")

    def _multiply(
        self, operator: str, node: onnx.NodeProto, inputs: list[str], step: str, scale: str, result: str, **more: Any
    ) -> None:
        """Integers times integers, and back to floats."""
        whole = self.add(operator, inputs, self.tensor(f"{result}_int32"), node.name, **more)
        real = self.add("Cast", [whole], self.tensor(f"{result}_real"), f"{node.name}_cast", to=onnx.TensorProto.FLOAT)
        scales = self.add("Mul", [step, scale], self.tensor(f"{result}_steps"), f"{node.name}_steps")
        self.add("Mul", [real, scales], result, f"{node.name}_scaled")

    def _convolution(self, node: onnx.NodeProto) -> None:
        weights = array(self.known[node.input[1]])
        integers, scale = rounded(weights, tuple(range(1, weights.ndim)) if self.per_channel else None, self.largest)
        x, step, zero = self._measure(node.input[0])
        shifted = (integers.astype(np.int16) + 128).astype(np.uint8)  # the kernel takes unsigned weights alone
        w = self.constant(f"{node.input[1]}_uint8", shifted)
        w_zero = self.constant(f"{node.input[1]}_zero", np.array(128, np.uint8))
        along = [1, -1, *[1] * (weights.ndim - 2)]
        w_scale = self.constant(f"{node.input[1]}_step", scale.reshape(along if self.per_channel else ()))
        bias = node.input[2] if len(node.input) > 2 else ""
        result = self.tensor(f"{node.output[0]}_product") if bias else node.output[0]
        more = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        self._multiply("ConvInteger", node, [x, w, zero, w_zero], step, w_scale, result, **more)
        if bias:
            shape = self.constant(f"{bias}_along", np.array(along, np.int64))
            wide = self.add("Reshape", [bias, shape], self.tensor(f"{bias}_wide"), f"{node.name}_widen")
            self.add("Add", [result, wide], node.output[0], f"{node.name}_bias")

    def _attention(self, node: onnx.NodeProto) -> None:
        weights = array(self.known[node.input[1]])
        integers, scale = rounded(weights, (0,) if self.per_channel else None, self.largest)
        x, step, zero = self._measure(node.input[0])
        flat = scale.reshape(-1) if self.per_channel else scale.reshape(())
        w = self.constant(f"{node.input[1]}_int8", integers)
        w_scale = self.constant(f"{node.input[1]}_step", flat)
        w_zero = self.constant(f"{node.input[1]}_zero", np.zeros(flat.shape, np.int8))
        rest = [*node.input[3:5], "", ""]
        inputs = [x, w, node.input[2], step, w_scale, rest[0], zero, w_zero, rest[1]]
        self._copy(node, "QAttention", inputs)

    def _lstm(self, node: onnx.NodeProto) -> None:
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        scales = []
        for slot in (1, 2):
            weights = array(self.known[inputs[slot]])
            integers, scale = rounded(weights, (2,) if self.per_channel else (1, 2), self.largest)
            shape = scale.shape[:2] if self.per_channel else scale.shape[:1]
            name = inputs[slot]
            inputs[slot] = self.constant(f"{name}_int8", integers.transpose(0, 2, 1))
            scales.append(self.constant(f"{name}_step", scale.reshape(shape)))
            scales.append(self.constant(f"{name}_zero", np.zeros(shape, np.int8)))
        self._copy(node, "DynamicQuantizeLSTM", [*inputs, *scales])

    def _copy(self, node: onnx.NodeProto, operator: str, inputs: list[str]) -> None:
        """The node under another operator of ONNX Runtime's own."""
        made = helper.make_node(operator, inputs, list(node.output), node.name, domain=_MICROSOFT)
        made.attribute.extend(item for item in node.attribute if item.name != "layout")  # it has the first one alone
        self.added.append(made)
        self.foreign = True

    def _restored(self, node: onnx.NodeProto) -> None:
        self.restore_weights(node, (1, 2), axis=1)

    def restore_weights(self, node: onnx.NodeProto, slots: tuple[int, ...], axis: int | None) -> None:
        """Integer weights under float arithmetic, a scale for each place along the axis."""
        made = onnx.NodeProto.FromString(node.SerializeToString())
        for slot in slots:
            weights = array(self.known[node.input[slot]])
            others = None if axis is None else tuple(one for one in range(weights.ndim) if one != axis)
            integers, scale = rounded(weights, others, self.largest)
            flat = scale.reshape(()) if axis is None else scale.reshape(-1)
            made.input[slot] = self.restore(node.input[slot], integers, flat, axis=axis or 0)
        self.added.append(made)
        self.done.add(node.name)

    def restore(self, name: str, integers: Array, scale: Array, axis: int) -> str:
        """Keep a constant in integers of its shape, dequantized by `scale` along `axis`; return the float's name."""
        whole = self.constant(f"{name}_int8", integers)
        step = self.constant(f"{name}_step", scale)
        restored = self.tensor(f"{name}_restored")
        return self.add("DequantizeLinear", [whole, step], restored, f"{restored}_node", axis=axis)

    def look_up(self, node: onnx.NodeProto) -> None:
        """Look integers up, each row of a table with its own scale, and only those that are looked up become floats."""
        table = array(self.known[node.input[0]])
        axis = int(attribute(node, "axis", 0))
        rows = table.ndim == 2 and axis in (0, -2) and self.per_channel
        integers, scale = rounded(table, (1,) if rows else None, self.largest)
        whole = self.constant(f"{node.input[0]}_int8", integers)
        found = self.add("Gather", [whole, node.input[1]], self.tensor(f"{node.output[0]}_int8"), node.name, axis=axis)
        if not rows:
            step = self.constant(f"{node.input[0]}_step", scale.reshape(()))
            self.add("DequantizeLinear", [found, step], node.output[0], f"{node.name}_restored")
            return
        steps = self.constant(f"{node.input[0]}_step", scale)
        step = self.add("Gather", [steps, node.input[1]], self.tensor(f"{node.output[0]}_step"), f"{node.name}_steps")
        kind = onnx.TensorProto.FLOAT
        real = self.add("Cast", [found], self.tensor(f"{node.output[0]}_real"), f"{node.name}_cast", to=kind)
        self.add("Mul", [real, step], node.output[0], f"{node.name}_scaled")


def rounded(weights: Array, axes: tuple[int, ...] | None, largest: int) -> tuple[Array, Array]:
    """Round weights [...] to symmetric int8 of the same shape; scales keep the reduced `axes` (None: all) as size 1."""
    bound = np.abs(weights).max(axis=axes, keepdims=True, initial=0.0)
    scale = (bound / largest).astype(np.float32)
    scale[scale == 0] = 1.0  # nothing but zeros
    return np.clip(np.rint(weights / scale), -largest, largest).astype(np.int8), scale
