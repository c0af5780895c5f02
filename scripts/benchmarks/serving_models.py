"""The three models under which ways of serving are compared, as ONNX files made on the spot, with random weights.

`tiny` costs next to nothing, so the path to it is measured; `compute` takes about five milliseconds a sample on one
core and batching does not help it; `memory` reads 52 MB of weights for each run, so batching is everything.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {"tiny": (64, 512, 512, 10), "memory": (256, 2048, 2048, 2048, 2048, 10)}
CHANNELS, LENGTH = 704, 64
ITEMS: Mapping[str, tuple[int, ...]] = {"tiny": (64,), "memory": (256,), "compute": (1, LENGTH)}
"""Shape of one sample of the input ``x``, float32; the output is ``y``, ten numbers a sample."""


def write(name: str, path: Path) -> None:
    """One of the three as an ONNX file."""
    import onnx
    from onnx import TensorProto, helper

    nodes, weights = _convolutions() if name == "compute" else _layers(WIDTHS[name])
    tensors = [onnx.numpy_helper.from_array(array, key) for key, array in weights.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *ITEMS[name]])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])
    made = [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in nodes]
    graph = helper.make_graph(made, name, [given], [answer], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def samples(name: str, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return `count` distinct samples."""
    return np.random.default_rng(5).standard_normal((count, *ITEMS[name]), np.float32)


_Node = tuple[str, list[str], list[str], dict[str, Any]]
_Weights = dict[str, np.ndarray[Any, np.dtype[Any]]]


def _scaled() -> Callable[..., np.ndarray[Any, np.dtype[Any]]]:
    random = np.random.default_rng(3)
    return lambda *shape: random.standard_normal(shape, np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)


def _layers(widths: tuple[int, ...]) -> tuple[list[_Node], _Weights]:
    nodes: list[_Node] = []
    weights: _Weights = {}
    scaled, last = _scaled(), len(widths) - 2
    for number, (width, after) in enumerate(pairwise(widths)):
        weights |= {f"w{number}": scaled(after, width), f"b{number}": scaled(after)}
        before, result = (f"a{number}" if number else "x"), ("y" if number == last else f"z{number}")
        nodes.append(("Gemm", [before, f"w{number}", f"b{number}"], [result], {"transB": 1}))
        if number < last:
            nodes.append(("Relu", [result], [f"a{number + 1}"], {}))
    return nodes, weights


def _convolutions() -> tuple[list[_Node], _Weights]:
    nodes: list[_Node] = []
    weights: _Weights = {}
    scaled, before = _scaled(), "x"
    for number, width in enumerate((1, CHANNELS, CHANNELS)):
        weights |= {f"w{number}": scaled(CHANNELS, width, 5), f"b{number}": scaled(CHANNELS)}
        nodes.append(("Conv", [before, f"w{number}", f"b{number}"], [f"z{number}"], {"pads": [2, 2]}))
        nodes.append(("Relu", [f"z{number}"], [f"a{number}"], {}))
        before = f"a{number}"
    weights |= {"axis": np.array([2]), "head": scaled(10, CHANNELS)}
    nodes.append(("ReduceMean", [before, "axis"], ["mean"], {"keepdims": 0}))
    nodes.append(("Gemm", ["mean", "head"], ["y"], {"transB": 1}))
    return nodes, weights
