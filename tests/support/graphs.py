"""Small ONNX models made on the spot: two inputs and outputs, symbolic lengths, and one that does not batch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.samples import Array
from seatrial.optimize.store import Store
from tests.support.made_by import MADE_BY


def make(store: Store, folder: Path, name: str, graph: onnx.GraphProto, tensors: Mapping[str, Any]) -> Artifact:
    """An artifact of an ONNX graph."""
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    artifact = Artifact(
        name=name, format="onnx", files=(File.of(folder / "model.onnx"),), requires={}, made_by=MADE_BY, **tensors
    )
    return store.put(artifact, folder)


def value(name: str, dtype: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name: str, array: Array) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def pictures(store: Store, folder: Path, scale: float = 1.0) -> Artifact:
    """Two inputs (an image and a gain), two outputs: class scores, and the winning class as one number per item."""
    weights = np.random.default_rng(3).normal(size=(3 * 8 * 8, 5)).astype(np.float32) * scale
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["raw"]),
            helper.make_node("Mul", ["raw", "gain"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["winner"], axis=1, keepdims=0),
        ],
        "pictures",
        [value("image", TensorProto.FLOAT, ["n", 3, 8, 8]), value("gain", TensorProto.FLOAT, ["n", 1])],
        [value("scores", TensorProto.FLOAT, ["n", 5]), value("winner", TensorProto.INT64, ["n"])],
        [constant("weights", weights)],
    )
    inputs = (
        TensorSpec(name="image", dtype="float32", shape=("n", 3, 8, 8)),
        TensorSpec(name="gain", dtype="float32", shape=("n", 1)),
    )
    outputs = (
        TensorSpec(name="scores", dtype="float32", shape=("n", 5)),
        TensorSpec(name="winner", dtype="int64", shape=("n",)),
    )
    return make(store, folder, "pictures", graph, {"inputs": inputs, "outputs": outputs})


def words(store: Store, folder: Path) -> Artifact:
    """Nothing like an image: token numbers of any length into a table of eight rows; a ninth is out of range."""
    table = np.random.default_rng(4).normal(size=(8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["vectors"], axis=0),
            helper.make_node("ReduceMean", ["vectors", "axes"], ["meaning"], keepdims=0),
        ],
        "words",
        [value("tokens", TensorProto.INT64, ["n", "length"])],
        [value("meaning", TensorProto.FLOAT, ["n", 4])],
        [constant("table", table), constant("axes", np.array([1], dtype=np.int64))],
    )
    tensors = {
        "inputs": (TensorSpec(name="tokens", dtype="int64", shape=("n", "length")),),
        "outputs": (TensorSpec(name="meaning", dtype="float32", shape=("n", 4)),),
    }
    return make(store, folder, "words", graph, tensors)


def fixed(store: Store, folder: Path) -> Artifact:
    """A model that does not batch: its first axis is its own."""
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["signal"], ["shares"], axis=1)],
        "fixed",
        [value("signal", TensorProto.DOUBLE, [2, 6])],
        [value("shares", TensorProto.DOUBLE, [2, 6])],
    )
    tensors = {
        "inputs": (TensorSpec(name="signal", dtype="float64", shape=(2, 6)),),
        "outputs": (TensorSpec(name="shares", dtype="float64", shape=(2, 6)),),
    }
    return make(store, folder, "fixed", graph, tensors)
