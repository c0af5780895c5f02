"""A small convolutional net in ONNX with a residual, and its quantized forms, made by ONNX Runtime's own quantizer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from seatrial.optimize.environment import environment
from seatrial.optimize.recipe.targets import TARGETS, resolve
from seatrial.optimize.samples import Array
from tests.support.graphs import constant, value

SHAPES = {"w0": (16, 3, 3, 3), "b0": (16,), "w1": (16, 16, 3, 3), "b1": (16,), "wh": (16, 10), "bh": (10,)}
MACS = 16 * 16 * 16 * (3 * 9 + 16 * 9) + 16 * 10  # two 3x3 convolutions on 16x16, and the head


def pictures(rows: int = 8) -> dict[str, Array]:
    return {"x": np.random.default_rng(5).normal(size=(rows, 3, 16, 16)).astype(np.float32)}


def float_net(path: Path) -> Path:
    random = np.random.default_rng(0)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return constant(name, (random.normal(size=shape) * 0.1).astype(np.float32))

    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1", "b1"], ["c1"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Add", ["r0", "r1"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wh", "bh"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [value("y", TensorProto.FLOAT, ["n", 10])],
        [weights(name, *shape) for name, shape in SHAPES.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._batches: Iterator[dict[str, Any]] = iter([pictures()])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def static(source: Path, path: Path, activations: str) -> Path:
    kind = QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8
    seven_bits = TARGETS[resolve("auto", environment())].reduce_range  # else this processor's sums saturate
    quantize_static(
        str(source),
        str(path),
        _Reader(),
        activation_type=kind,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=seven_bits,
    )
    return path


def dynamic(source: Path, path: Path) -> Path:
    quantize_dynamic(str(source), str(path))
    return path
