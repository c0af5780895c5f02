"""Exported tiny models with a weakness that the mean hides: for checks that must see it."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PEAK = 3.3  # what clean samples hardly reach


def blanking(data: bytes) -> bytes:
    """A guard in front of the model that blanks samples whose largest value is beyond `PEAK`, as a limiter might."""
    model = onnx.load_from_string(data)
    graph = model.graph
    name = graph.input[0].name
    for node in graph.node:
        for index, each in enumerate(node.input):
            if each == name:
                node.input[index] = "guarded"
    constants: dict[str, np.ndarray[Any, Any]] = {
        "guard_axes": np.array([1, 2], np.int64),
        "guard_peak": np.array(PEAK, np.float32),
        "guard_zero": np.array(0, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    nodes = [
        helper.make_node("Abs", [name], ["guard_size"]),
        helper.make_node("ReduceMax", ["guard_size", "guard_axes"], ["guard_most"], keepdims=1),
        helper.make_node("Greater", ["guard_most", "guard_peak"], ["guard_hit"]),
        helper.make_node("Where", ["guard_hit", "guard_zero", name], ["guarded"]),
    ]
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


def shy(data: bytes, class_: int = 3, by: float = 1.0) -> bytes:
    """A head that wants more evidence for one class than it should."""
    model = onnx.load_from_string(data)
    tensor = next(each for each in model.graph.initializer if each.name.endswith("head.bias"))
    values = numpy_helper.to_array(tensor).copy()
    values[class_] -= by
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    serialized: bytes = model.SerializeToString()
    return serialized
