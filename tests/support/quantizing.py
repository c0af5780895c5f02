"""Networks to quantize, and a bench that quantizes one and says how near the answers stay."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.environment import environment
from seatrial.optimize.recipe.configs import QuantizeConfig
from seatrial.optimize.recipe.recipe import Source
from seatrial.optimize.samples import Samples, Split
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.stages.quantize import run
from seatrial.optimize.stages.stage import Context, Made
from seatrial.optimize.store import Store
from tests.support.made_by import MADE_BY

Array = np.ndarray[Any, np.dtype[Any]]
WIDTH, LENGTH, OUTLIERS = 64, 12, (3, 17, 40)


class Graph:
    """A graph under construction: nodes, and constants with random values."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(11)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Array) -> str:
        self.constants.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes))
        return output

    def linear(self, source: str, output: str, wide: int, narrow: int) -> str:
        weight = self.constant(f"{output}.weight", self.random.normal(0, wide**-0.5, (wide, narrow)))
        bias = self.constant(f"{output}.bias", self.random.normal(0, 0.1, narrow))
        return self.node("Add", [self.node("MatMul", [source, weight], f"{output}.product"), bias], output)

    def norm(self, source: str, output: str, outliers: float) -> str:
        scale = self.random.uniform(0.5, 1.5, WIDTH)
        scale[list(OUTLIERS)] *= outliers
        shift = self.constant(f"{output}.shift", self.random.normal(0, 0.1, WIDTH))
        return self.node("LayerNormalization", [source, self.constant(f"{output}.scale", scale), shift], output)

    def model(self, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        values = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side] for side in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "small", values[0], values[1], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def transformer() -> onnx.ModelProto:
    """One block, pre-norm: x [n, 12, 64] -> y [n, 12, 16]; three channels after each norm are thirty times larger."""
    graph = Graph()
    normed = graph.norm("x", "norm1", 30.0)
    query, key, value = (graph.linear(normed, name, WIDTH, WIDTH) for name in ("query", "key", "value"))
    turned = graph.node("Transpose", [key], "turned", perm=[0, 2, 1])
    scores = graph.node("MatMul", [query, turned], "raw")
    scaled = graph.node("Mul", [scores, graph.constant("factor", np.array(0.01))], "scores")
    mixed = graph.node("MatMul", [graph.node("Softmax", [scaled], "weights", axis=-1), value], "mixed")
    first = graph.node("Add", ["x", graph.linear(mixed, "out", WIDTH, WIDTH)], "first")
    hidden = graph.linear(graph.norm(first, "norm2", 30.0), "hidden", WIDTH, 2 * WIDTH)
    second = graph.linear(graph.node("Relu", [hidden], "active"), "down", 2 * WIDTH, WIDTH)
    last = graph.norm(graph.node("Add", [first, second], "last"), "norm3", 1.0)
    graph.linear(last, "y", WIDTH, 16)
    return graph.model([("x", ["n", LENGTH, WIDTH])], [("y", ["n", LENGTH, 16])])


def resnet(*, projected: bool = False) -> onnx.ModelProto:
    """A stem, a residual block (its shortcut `projected` or not) and a linear head: [n, 3, 16, 16] -> [n, 10]."""
    graph = Graph()

    def conv(source: str, output: str, wide: int, narrow: int) -> str:
        spread = graph.random.uniform(0.2, 2.0, (narrow, 1, 1, 1)) * (9 * wide) ** -0.5
        weight = graph.constant(f"{output}.weight", graph.random.normal(0, 1, (narrow, wide, 3, 3)) * spread)
        bias = graph.constant(f"{output}.bias", graph.random.normal(0, 0.1, narrow))
        return graph.node("Conv", [source, weight, bias], output, pads=[1, 1, 1, 1], kernel_shape=[3, 3])

    stem = graph.node("Relu", [conv("x", "stem", 3, 16)], "stem.active")
    one = graph.node("Relu", [conv(stem, "one", 16, 16)], "one.active")
    shortcut = conv(stem, "shortcut", 16, 16) if projected else stem
    joined = graph.node("Relu", [graph.node("Add", [conv(one, "two", 16, 16), shortcut], "joined")], "joined.active")
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [joined], "pooled")], "flat", axis=1)
    weight = graph.constant("head.weight", graph.random.normal(0, 0.25, (10, 16)))
    graph.node("Gemm", [pooled, weight, graph.constant("head.bias", graph.random.normal(0, 0.1, 10))], "y", transB=1)
    return graph.model([("x", ["n", 3, 16, 16])], [("y", ["n", 10])])


def samples(shape: tuple[int, ...], split: Split = "calibration", heavy: bool = False) -> Samples:
    """Noise; `heavy` has the tails of a Student distribution."""
    random = np.random.default_rng({"calibration": 1}.get(split, 2))
    values = random.standard_t(3, (96, *shape)) if heavy else random.normal(size=(96, *shape))
    return Samples(split=split, inputs={"x": values.astype(np.float32)}, labels=None)


class Bench:
    """A float model in a store, and everything that quantizing it takes."""

    def __init__(self, folder: Path, model: onnx.ModelProto, *, heavy: bool = False) -> None:
        self.folder = folder
        (folder / "float").mkdir(parents=True)
        onnx.save(model, str(folder / "float" / "model.onnx"))
        specs = [
            tuple(
                TensorSpec(
                    name=value.name,
                    dtype="float32",
                    shape=tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
                )
                for value in side
            )
            for side in (model.graph.input, model.graph.output)
        ]
        file = File.of(folder / "float" / "model.onnx")
        artifact = Artifact(
            name="small", format="onnx", files=(file,), inputs=specs[0], outputs=specs[1], requires={}, made_by=MADE_BY
        )
        self.store = Store(folder / "store")
        self.artifact = self.store.put(artifact, folder / "float")
        self.shape = tuple(int(size) for size in specs[0][0].shape[1:])
        self.heavy = heavy
        self.loads = 0
        self.runs: list[str] = []
        self.made = 0

    def samples(self, split: Split) -> Samples:
        self.loads += 1
        return samples(self.shape, split, self.heavy)

    def quantize(self, **fields: Any) -> tuple[Made, Path]:
        """Run the stage; the file lies in a folder of its own."""
        self.made += 1
        folder = self.folder / f"made-{self.made}"
        folder.mkdir()
        context = Context(
            folder=folder,
            checkpoints=folder / "checkpoints",
            store=self.store,
            origin=self.artifact,
            source=Source(onnx="model.onnx"),
            samples=self.samples,
            reference=lambda text: pytest.fail(f"{text} is not needed"),
            environment=environment(),
            seed=0,
            progress=lambda share, text: self.runs.append(text),
        )
        config = QuantizeConfig(kind="quantize", **{"target": "auto", **fields})
        return run(config, self.artifact, context), folder / "model.onnx"

    def sqnr(self, path: Path) -> float:
        """Signal over quantization noise of the output in decibels, on samples that calibration did not see."""
        unseen = samples(self.shape, "evaluation", self.heavy).inputs
        expected, got = (
            OrtSession(one).run(unseen)["y"].astype(np.float64) for one in (self.folder / "float" / "model.onnx", path)
        )
        return float(10 * np.log10((expected**2).sum() / ((expected - got) ** 2).sum()))

    def score(self, **fields: Any) -> float:
        return self.sqnr(self.quantize(**fields)[1])


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    names = [node.op_type for node in model.graph.node]
    return {name: names.count(name) for name in names}


def read_quantized(model: onnx.ModelProto) -> set[int]:
    """Element types of the zero points of every QuantizeLinear."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {types[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
