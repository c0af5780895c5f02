"""Raising a graph to a newer opset, where the target's operators need one."""

import numpy as np
import onnx
from onnx import helper

from ..errors import StageError
from ..graphs.on_onnx import add_constant, every_node, fresh, graphs, names, opset

_HELD = "seatrial.held"  # a domain that the converter passes by
_LOST = "Hardmax"  # the converter keeps its axis and forgets that it flattened the axes behind
_RESIZES = {"Upsample": 10, "Resize": 11}  # operator -> the first opset in which it is no longer what it was


def raised(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """The model at that opset, or as it is where it is there already.

    ONNX's converter knows no way for Upsample and the first Resize, so those are carried by hand.

    Raises:
        StageError: the converter knows no way for an operator.
    """
    version = opset(model)
    if version >= target:
        return model
    if lost := next((node for node in every_node(model) if node.op_type == _LOST and version < 13 <= target), None):
        raise StageError(
            f"the graph of opset {version} cannot be converted to opset {target}: {_LOST} {lost.name!r} would change",
            next_step=f"export the model with opset {target} or newer",
        )
    held = onnx.ModelProto()
    held.CopyFrom(model)
    _hold(held, version)
    if held.ir_version < 7:
        held.ir_version = 7
    try:
        made = onnx.version_converter.convert_version(held, target)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError, which share no base
        raise StageError(
            f"the graph of opset {version} cannot be converted to opset {target}: {_reason(error)}",
            next_step=f"export the model with opset {target} or newer",
        ) from error
    _release(made)
    kept = [entry for entry in made.opset_import if entry.domain != _HELD]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    made.functions.extend(item for item in model.functions if not made.functions)
    return made


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _hold(model: onnx.ModelProto, version: int) -> None:
    """Hide operators that the converter would stumble over."""
    found = False
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and version < _RESIZES.get(node.op_type, 0):
                _scales_as_input(model, node)
                node.domain, found = _HELD, True
    if found:
        model.opset_import.append(helper.make_opsetid(_HELD, 1))


def _scales_as_input(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Upsample of opset 7 holds its scales as an attribute."""
    scales = next((item for item in node.attribute if item.name == "scales"), None)
    if scales is not None:
        name = add_constant(model, f"{node.output[0]}_scales", np.array(scales.floats, np.float32))
        node.input.append(name)
        node.attribute.remove(scales)


def _release(model: onnx.ModelProto) -> None:
    """Turn what was held into today's Resize, which rounds as those did."""
    taken = names(model)
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.domain == _HELD:
                mode = next((item.s.decode() for item in node.attribute if item.name == "mode"), "nearest")
                data, scales = node.input[:2]
                made = helper.make_node(
                    "Resize",
                    [data, "", scales],
                    list(node.output),
                    node.name or fresh("Resize", taken),
                    mode="linear" if mode == "bilinear" else mode,
                    coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor",
                )
                node.CopyFrom(made)
