"""Both ends of a low precision's range: constants that vanish in it, what divides by them, and numbers beyond it.

A guard such as 1e-8 below a division is zero in fp16, and calibration samples rarely hold the row of zeros that it is
there for. So it is found by its value: the node that reads it stays in fp32, and so does what leads from it to a
division, logarithm or root of it. What is left is found by a run on rows of zeros and on samples made very small.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..graphs.on_onnx import consumers
from ..samples import Array
from .casting import FloatGraph

_LOST = 1e-2  # relative error of a constant beyond which it is another number
_ANOTHER = 0.3  # error relative to the greatest value that rounding cannot explain
_SINGULAR = {"Div": 1, "Reciprocal": 0, "Log": 0, "Pow": 0}  # operator -> the input that must not vanish
_PASSING = """
Sqrt Reshape Expand Unsqueeze Squeeze Transpose Identity Cast Max Min Clip Mul Abs Neg Concat Slice Where Tile
Flatten Gather ReduceSum ReduceMean ReduceMax ReduceMin Add Sub Relu Split Dropout
"""  # operators that can pass on a small value
_THROUGH = frozenset(_PASSING.split())
_EXACT = ("LayerNormalization", "RMSNormalization", "GroupNormalization")  # compute in fp32 inside (stash_type)


def guarded(graph: FloatGraph, largest: float) -> dict[str, str]:
    """Nodes that must stay in fp32 for a constant that the precision cannot hold, each with the reason."""
    rounded = {name: _rounded(graph, item) for name, item in graph.weights.items()}
    found: dict[str, str] = {}
    readers = consumers(graph.model)
    for node in graph.model.graph.node:
        for slot, name in enumerate(node.input):
            if name in rounded and (why := _lost(node, slot, *rounded[name])):
                found[node.name] = f"{name} {why}"
        if why := _attribute(graph, node, largest):
            found[node.name] = why
    for node in list(graph.model.graph.node):
        if node.name in found:
            for output in node.output:
                found |= _onward(output, found[node.name], readers, set(found))
    return found


def _rounded(graph: FloatGraph, tensor: onnx.TensorProto) -> tuple[Array, Array]:
    """Return an initializer's values and the same rounded to the graph's type, as float32 of its shape."""
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        return values, values.astype(graph.numpy).astype(np.float32)


def _lost(node: onnx.NodeProto, slot: int, values: Array, rounded: Array) -> str:
    """Return what becomes of the constant, of any shape, where rounding changes it; empty where it does not."""
    finite = np.isfinite(values) & np.isfinite(rounded)
    values, rounded = values[finite].astype(np.float64), rounded[finite].astype(np.float64)
    if not values.size:
        return ""
    error = np.abs(values - rounded)
    if _SINGULAR.get(node.op_type) == slot:
        worst = int(np.argmax(error / np.maximum(np.abs(values), 1e-300)))
        if error[worst] > _LOST * abs(values[worst]):
            return f"holds {values[worst]:.3g}, which would be {rounded[worst]:.3g}"
        return ""
    if node.op_type == "BatchNormalization" and slot == 4:  # a variance beside its epsilon
        values = values + max(_number(node, "epsilon", 1e-5), 1e-12)
    if np.linalg.norm(error) <= _LOST * np.linalg.norm(values):
        return ""
    worst = int(np.argmax(error))
    return f"holds {values[worst]:.3g}, which would be {rounded[worst]:.3g}"


def _attribute(graph: FloatGraph, node: onnx.NodeProto, largest: float) -> str:
    """Return what is wrong with a guard that stands in an attribute."""
    for attribute in node.attribute:
        if attribute.type != onnx.AttributeProto.FLOAT or attribute.name not in ("epsilon", "min", "max"):
            continue
        if attribute.name == "epsilon" and node.op_type in _EXACT:
            continue
        value = float(attribute.f)
        rounded = float(np.float32(value).astype(graph.numpy)) if abs(value) <= largest else value
        if abs(value - rounded) > _LOST * abs(value):
            return f"its {attribute.name} {value:.3g} would be {rounded:.3g}"
    return ""


def _onward(tensor: str, why: str, readers: Mapping[str, list[onnx.NodeProto]], kept: set[str]) -> dict[str, str]:
    """The nodes from a tensor that may be as small as a guard up to what divides by it; empty where nothing does."""
    found: dict[str, str] = {}
    known: dict[str, bool] = {}

    def leads(name: str) -> bool:
        if name in known:
            return known[name]
        known[name] = reached = False
        for node in readers.get(name, ()):
            slots = [slot for slot, one in enumerate(node.input) if one == name]
            singular = node.op_type in _SINGULAR and _SINGULAR[node.op_type] in slots
            if singular and node.op_type != "Div":  # what it gives may be very large, until it is multiplied
                for output in node.output:
                    for reader in readers.get(output, ()):
                        if reader.op_type in ("Mul", "Sqrt"):
                            found[reader.name] = f"it depends on {name}: {why}"
            behind = [leads(one) for one in node.output] if node.op_type in _THROUGH else []
            through = any(behind) or (node.op_type in _THROUGH and node.name in kept)
            if singular or (through and node.name not in kept):
                found[node.name] = f"{name} may be equally small: {why}"
            reached |= singular or through
        known[name] = reached
        return reached

    leads(tensor)
    return {name: reason for name, reason in found.items() if name and name not in kept}


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(helper.get_attribute_value(attribute))
    return default


def stressed(inputs: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The samples with every float row at zero, and made very small: what calibration rarely holds."""
    floats = {name for name, array in inputs.items() if array.dtype.kind == "f"}
    if not floats:
        return []
    made = []
    for factor in (0.0, 1e-4):
        made.append({k: (v * v.dtype.type(factor) if k in floats else v) for k, v in inputs.items()})
    return made


def broken(graph: FloatGraph, exact: Mapping[str, Array], rounded: Mapping[str, Array]) -> dict[str, str]:
    """The first nodes whose results, of any shape, become others, where an output of the model does in the end."""
    off = {name: _off(exact[name], rounded[name]) for name in exact}
    if not any(off.get(value.name) for value in graph.model.graph.output):
        return {}
    makers = {output: node for node in graph.model.graph.node for output in node.output}
    found: dict[str, str] = {}
    for node in graph.model.graph.node:
        why = next((f"{name} {off[name]} on very small samples" for name in node.output if off.get(name)), "")
        if why and not any(off.get(name) for name in node.input):
            found[node.name] = why
            if any("not finite" in off.get(name, "") for name in node.output):
                found |= {makers[name].name: why for name in node.input if name in makers and name in graph.floats}
    return found


def _off(exact: Array, rounded: Array) -> str:
    """Return how the rounded result differs from the exact one of its shape; empty where it is near."""
    finite = np.isfinite(exact)
    if not np.isfinite(rounded[finite]).all():
        return "is not finite"
    difference = float(np.abs(exact[finite] - rounded[finite]).max(initial=0.0))
    return "is another" if difference > _ANOTHER * float(np.abs(exact[finite]).max(initial=0.0)) else ""
