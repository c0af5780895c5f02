"""Planted faults of coverage: graphs whose int8 fraction depends on the sizes, and promises that hold at 8 alone."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.benchmarks.faults import Fault
from scripts.benchmarks.workshop import made_by
from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.building import coverage_cache
from seatrial.optimize.errors import StageError
from seatrial.optimize.graphs.coverage import Coverage, enforce
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store

_LOADER = """
import numpy as np

def samples(split, count=None, seed=7):
    return {"x": np.random.default_rng(seed).normal(size=(count or 4, 3, HEIGHT, WIDTH)).astype(np.float32)}, None
"""
_RECIPE = """
schema = 1
name = "sized"
[source]
onnx = "model.onnx"
[data]
loader = "loader.py:samples"
calibration = 4
[[stages]]
kind = "quantize"
"""


def _graph(path: Path, channels: int, columns: int, *, flat: bool) -> None:
    """A float convolution over height and width, and an integer product: of the pooled channels, or of each row."""
    random = np.random.default_rng(1)
    weights = {
        "filters": random.normal(size=(channels, 3, 3, 3)).astype(np.float32),
        "matrix": random.integers(-9, 9, (channels, columns)).astype(np.int8),
        "scale": np.float32(0.1),
    }
    nodes = [helper.make_node("Conv", ["x", "filters"], ["seen"], name="conv", pads=[1, 1, 1, 1])]
    if flat:
        nodes += [
            helper.make_node("GlobalAveragePool", ["seen"], ["pooled"], name="pool"),
            helper.make_node("Flatten", ["pooled"], ["rows"], name="flatten"),
        ]
    else:
        nodes.append(helper.make_node("Transpose", ["seen"], ["rows"], name="move", perm=[0, 2, 3, 1]))
    nodes += [
        helper.make_node("DynamicQuantizeLinear", ["rows"], ["q", "step", "zero"], name="round"),
        helper.make_node("MatMulInteger", ["q", "matrix", "zero"], ["sums"], name="product"),
        helper.make_node("Cast", ["sums"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "step"], ["scaled"], name="rescale"),
        helper.make_node("Mul", ["scaled", "scale"], ["y"], name="weigh"),
    ]
    graph = helper.make_graph(
        nodes,
        "sized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def _measured(random: np.random.Generator) -> tuple[Coverage, float, float]:
    """The coverage that the product says, the int8 fraction by arithmetic, and that at a length of 8."""
    height, width = (int(size) for size in random.choice([4, 5, 16, 24, 33, 48], 2))
    channels, flat = int(random.choice([4, 8, 16])), bool(random.random() < 0.7)
    columns = int(random.choice([256, 1024, 4096])) if flat else int(random.choice([8, 32, 64]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _graph(folder / "model.onnx", channels, columns, flat=flat)
        (folder / "loader.py").write_text(_LOADER.replace("HEIGHT", str(height)).replace("WIDTH", str(width)))
        (folder / "recipe.toml").write_text(_RECIPE)
        store = Store(folder / "home" / "store")
        artifact = Artifact(
            name="sized",
            format="onnx",
            files=(File.of(folder / "model.onnx"),),
            inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 3, "height", "width")),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("n", columns)),),
            requires={},
            made_by=made_by(),
        )
        kept = store.put(artifact, folder)
        found = coverage_cache.measured(kept, store, recipe=load_recipe(folder / "recipe.toml"))

    def fraction(size: int) -> float:
        floats, whole = size * channels * 27, channels * columns * (1 if flat else size)
        return whole / (floats + whole)

    return found, fraction(height * width), fraction(64)


def _promised(found: Coverage, least: float) -> bool:
    try:
        enforce(found, least, "case")
    except StageError:
        return False
    return True


def planted_coverage(random: np.random.Generator) -> bool:
    """Promise that holds at 8 and not at the samples' sizes, or that is a little more than what runs."""
    found, true, small = _measured(random)
    least = (true + small) / 2 if small > true + 0.02 else min(true + 0.02, 1.0)
    return not _promised(found, least)


def sound_coverage(random: np.random.Generator) -> bool:
    found, true, _ = _measured(random)
    return not _promised(found, max(true - 0.001, 0.0)) or abs(found.share("int8") - true) > 1e-9


FAULTS = (
    Fault(
        name="A9-coverage",
        claim="promises of int8 that the samples' sizes do not keep, by MACs counted on paper",
        planted=planted_coverage,
        sound=sound_coverage,
    ),
)
