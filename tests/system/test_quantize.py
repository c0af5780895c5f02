"""Quantization on small graphs with outlier channels: what each method promises as a law, and what is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.artifact import File
from seatrial.optimize.building.build import build
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, ContractError, SourceError, StageError
from seatrial.optimize.quantization import on_calibration, on_graph
from seatrial.optimize.quantization.on_smooth import smoothed
from seatrial.optimize.recipe.configs import Override, QuantizeConfig
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Samples, Split
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from tests.support.quantizing import Bench, Graph, kinds, read_quantized, resnet, samples, transformer

pytestmark = pytest.mark.system
Array = np.ndarray[Any, np.dtype[Any]]
WIDTH, LENGTH, OUTLIERS = 64, 12, (3, 17, 40)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("transformer"), transformer())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("resnet"), resnet(), heavy=True)


def test_smoothing_beats_plain_where_channels_are_outliers(blocks: Bench) -> None:
    assert blocks.score(smooth=0.5) > blocks.score() + 5
    assert blocks.score(method="dynamic", smooth=0.5) > blocks.score(method="dynamic") + 5


def test_smoothing_alone_changes_nothing(blocks: Bench, tmp_path: Path) -> None:
    """Before anything is rounded to integers, the smoothed graph is the same function to the last digits."""
    model = on_graph.prepare(blocks.folder / "float" / "model.onnx", tmp_path, 13)
    nodes = [node.name for node in model.graph.node]
    inputs = sorted({product.node.input[0] for product in on_graph.products(model, nodes)})
    found = on_calibration.collect(model, inputs, inputs, blocks.samples("calibration"), folder=tmp_path, threads=1)
    changed, added = smoothed(model, nodes, found.channels, 0.5)
    onnx.save(changed, str(tmp_path / "model.onnx"))
    assert blocks.sqnr(tmp_path / "model.onnx") > 90
    assert len(added) == 2  # the attention's mix and the activation; the three norms take theirs in
    assert len(changed.graph.node) == len(model.graph.node) + 2


def test_more_bits_keep_more(blocks: Bench) -> None:
    four, eight = (blocks.score(method="weight-only", bits=bits, block_size=32) for bits in (4, 8))
    assert eight > four + 10
    assert eight > blocks.score(method="dynamic")


def test_a_scale_per_channel_is_never_much_worse_and_wins_where_channels_differ(pictures: Bench) -> None:
    assert pictures.score(per_channel=True) > pictures.score(per_channel=False) - 0.1
    assert pictures.score(method="dynamic") > pictures.score(method="dynamic", per_channel=False)


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "entropy", "mse"])
def test_every_range_gives_a_working_network(pictures: Bench, ranges: str) -> None:
    assert pictures.score(ranges=ranges) > 20


def test_the_mean_error_of_a_corrected_layer_is_gone(tmp_path: Path) -> None:
    """One convolution under hard clipping: the bias takes up its mean error on the samples, channel by channel."""
    graph = Graph()
    weight = graph.constant("weight", np.abs(graph.random.normal(0, 0.3, (8, 3, 3, 3))))
    graph.node("Conv", ["x", weight, graph.constant("bias", np.zeros(8))], "y", kernel_shape=[3, 3])
    bench = Bench(tmp_path, graph.model([("x", ["n", 3, 8, 8])], [("y", ["n", 8, 6, 6])]))
    skewed = samples(bench.shape).inputs["x"] ** 2
    bench.samples = lambda split: Samples(split=split, inputs={"x": skewed}, labels=None)  # type: ignore[method-assign]
    expected = OrtSession(tmp_path / "float" / "model.onnx").run({"x": skewed})["y"]
    errors = []
    for correct in (False, True):
        _, path = bench.quantize(ranges="percentile", percentile=90.0, bias_correction=correct)
        got = OrtSession(path).run({"x": skewed})["y"]
        errors.append(np.abs((got - expected).mean(axis=(0, 2, 3))).max())
    assert errors[1] < errors[0] / 5


def test_calibration_runs_once_for_every_target_and_range(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())
    bench.quantize()
    assert any(text.startswith("calibrating") for text in bench.runs)
    bench.runs.clear()
    for fields in ({"ranges": "mse"}, {"ranges": "entropy"}, {"target": "tensorrt"}, {"target": "cuda"}):
        bench.quantize(**fields)
    assert not any(text.startswith("calibrating") for text in bench.runs)


def test_what_is_seen_does_not_depend_on_how_tensors_are_grouped(
    pictures: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_graph.prepare(pictures.folder / "float" / "model.onnx", tmp_path, 13)
    tensors = on_graph.float_tensors(model, [node.name for node in model.graph.node])
    seen = []
    for budget in (1 << 30, 1 << 20, 1):
        monkeypatch.setattr(on_calibration, "_BUDGET", budget)
        some = pictures.samples("calibration")
        seen.append(on_calibration.collect(model, tensors, (), some, folder=tmp_path, threads=1).to_json())
    assert len(tensors) == 11
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(
    "fields",
    [{}, {"smooth": 0.5, "bias_correction": True, "ranges": "mse"}, {"method": "dynamic"}, {"method": "weight-only"}],
    ids=lambda fields: str(fields.get("method", len(fields))),
)
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, fields: Mapping[str, Any]) -> None:
    first, second = (Bench(tmp_path / name, transformer()).quantize(**fields)[1] for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("method", ["dynamic", "weight-only"])
def test_what_needs_no_samples_loads_none(tmp_path: Path, method: str) -> None:
    bench = Bench(tmp_path, transformer())
    made, _ = bench.quantize(method=method)
    assert bench.loads == 0
    assert bool(made.requires) == (method == "dynamic")


@pytest.mark.parametrize("projected", [False, True])
def test_tensorrt_gets_zero_points_of_zero_and_biases_in_float(tmp_path: Path, projected: bool) -> None:
    bench = Bench(tmp_path, resnet(projected=projected))
    made, path = bench.quantize(target="tensorrt")
    assert bench.sqnr(path) > 30
    model = onnx.load(str(path))
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    assert all(values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any() for node in pairs)
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    sums = [[makers[name] for name in node.input] for node in model.graph.node if node.op_type == "Add"]
    assert sums == [["Conv", "DequantizeLinear"]]
    read = [name for node in model.graph.node for name in node.input if makers.get(name) == "DequantizeLinear"]
    assert len(read) == len(set(read))  # no consumer shares its pair with another
    biases = [node.input[2] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert all(values[name].dtype == np.float32 for name in biases)
    assert made.requires == {"gpu": "nvidia"}


def test_on_x86_products_write_float_and_activations_are_unsigned(blocks: Bench) -> None:
    model = onnx.load(str(blocks.quantize()[1]))
    written = {output for node in model.graph.node if node.op_type == "MatMul" for output in node.output}
    readers = [node.op_type for node in model.graph.node if written & set(node.input)]
    assert readers.count("QuantizeLinear") == 1  # the scores' neighbour: the mix goes straight into the next product
    assert read_quantized(model) == {TensorProto.UINT8}
    assert kinds(model)["LayerNormalization"] == 3


def test_products_of_two_activations_may_stay_in_float(blocks: Bench) -> None:
    every, weighted = (onnx.load(str(blocks.quantize(products=which)[1])) for which in ("all", "weighted"))

    def in_float(model: onnx.ModelProto) -> list[str]:
        makers = {output: node.op_type for node in model.graph.node for output in node.output}
        products = [node for node in model.graph.node if node.op_type == "MatMul"]
        return [node.name for node in products if makers.get(node.input[0]) != "DequantizeLinear"]

    assert in_float(every) == []
    assert len(in_float(weighted)) == 2  # the attention's scores and its mix
    known = {tensor.name for tensor in onnx.load(str(blocks.folder / "float" / "model.onnx")).graph.initializer}
    left = [node for node in weighted.graph.node if node.name in in_float(weighted)]
    assert not any(name in known for node in left for name in node.input)


def test_overrides_change_the_types_of_what_they_name(blocks: Bench) -> None:
    left = blocks.quantize(overrides=(Override(match="down*", activations="float"),))[1]
    wide = blocks.quantize(overrides=(Override(match="down*", activations="uint16"),))[1]
    mixed = blocks.quantize(method="weight-only", overrides=(Override(operator="MatMul", match="y*", weights="int4"),))
    plain = onnx.load(str(blocks.quantize()[1]))
    assert kinds(onnx.load(str(left)))["QuantizeLinear"] == kinds(plain)["QuantizeLinear"] - 1
    assert read_quantized(onnx.load(str(wide))) == {TensorProto.UINT8, TensorProto.UINT16}
    assert mixed[0].notes["bits"] == [4, 8]
    assert blocks.sqnr(wide) > blocks.score() - 0.1


def test_auto_asks_again_under_the_targets_name(blocks: Bench) -> None:
    """An override may be legal for some processor, yet not for this one."""
    arm = (Override(match="down*", activations="int8"),)
    QuantizeConfig(kind="quantize", overrides=arm)
    if environment().architecture != "x86_64":
        pytest.skip("another processor than the one that is tested for")
    with pytest.raises(ConfigError, match="no kernels for int8"):
        blocks.quantize(target="auto", overrides=arm)


def test_a_static_weight_may_have_four_bits_or_one_scale(pictures: Bench) -> None:
    four = onnx.load(str(pictures.quantize(overrides=(Override(operator="Gemm", weights="int4"),))[1]))
    assert TensorProto.INT4 in {tensor.data_type for tensor in four.graph.initializer}
    single = onnx.load(str(pictures.quantize(overrides=(Override(operator="Conv", per_channel=False),))[1]))
    scales = {tensor.name: tensor.dims for tensor in single.graph.initializer if tensor.name.endswith("weight_scale")}
    assert [list(dims) for name, dims in scales.items() if "head" not in name] == [[], [], []]
    assert list(scales["head.weight_scale"]) == [10]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"per_channel": False},
        {"overrides": (Override(operator="MatMul", per_channel=False),)},
        {"method": "dynamic"},
    ],
    ids=["static", "per tensor", "overridden", "dynamic"],
)
def test_without_vnni_weights_keep_seven_bits(blocks: Bench, fields: dict[str, Any]) -> None:
    largest = {}
    for target in ("x86", "x86-vnni"):
        model = onnx.load(str(blocks.quantize(target=target, **fields)[1]))
        weights = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer if len(one.dims) == 2]
        largest[target] = max(int(np.abs(one.astype(np.int32)).max()) for one in weights if one.dtype == np.int8)
    assert largest["x86"] <= 64 < largest["x86-vnni"]


def test_blocks_carry_size_and_accuracy_level(blocks: Bench) -> None:
    model = onnx.load(str(blocks.quantize(method="weight-only", bits=4, block_size=32, accuracy_level=4)[1]))
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    said = [{one.name: helper.get_attribute_value(one) for one in node.attribute} for node in nodes]
    assert len(said) == 7
    assert all((one["bits"], one["block_size"], one["accuracy_level"]) == (4, 32, 4) for one in said)


def test_weights_by_channel_are_integers_under_a_scale_each(blocks: Bench, pictures: Bench) -> None:
    for bench in (blocks, pictures):  # MatMul, and a Gemm whose weight is transposed
        made, path = bench.quantize(method="weight-only", storage="channels")
        model = onnx.load(str(path))
        products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
        weighted = [node for node in products if node.input[1].endswith("_restored")]
        integers = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8]
        assert len(weighted) == len(integers) == kinds(model)["DequantizeLinear"] > 0
        assert all(np.abs(onnx.numpy_helper.to_array(tensor)).max() == 127 for tensor in integers)
        assert made.requires == {}
        assert bench.sqnr(path) > 20


def test_embeddings_are_left_alone_unless_they_are_named(tmp_path: Path) -> None:
    graph = Graph()
    table = graph.constant("table", graph.random.normal(size=(50, WIDTH)))
    places = graph.node("Cast", ["x"], "places", to=TensorProto.INT64)
    graph.linear(graph.norm(graph.node("Gather", [table, places], "found"), "normed", 1.0), "y", WIDTH, 4)
    model = graph.model([("x", ["n", 5])], [("y", ["n", 5, 4])])
    bench = Bench(tmp_path, model)
    bench.samples = lambda split: Samples(  # type: ignore[method-assign]
        split=split, inputs={"x": np.arange(40, dtype=np.float32).reshape(8, 5)}, labels=None
    )
    for method in ("static", "dynamic", "weight-only"):
        made = onnx.load(str(bench.quantize(method=method)[1]))
        tables = [tensor for tensor in made.graph.initializer if list(tensor.dims) == [50, WIDTH]]
        assert [tensor.data_type for tensor in tables] == [TensorProto.FLOAT], method


def test_weights_that_two_layers_share_survive_every_method(tmp_path: Path) -> None:
    graph = Graph()
    weight = graph.constant("weight", graph.random.normal(0, 0.2, (16, 16)))
    graph.node("Gemm", [graph.node("Gemm", ["x", weight], "h", transB=1), weight], "y", transB=1)
    bench = Bench(tmp_path, graph.model([("x", ["n", 16])], [("y", ["n", 16])]))
    for fields in ({}, {"smooth": 0.5}, {"method": "dynamic"}, {"method": "weight-only", "block_size": 16}):
        assert bench.score(**fields) > 25, fields


def test_nothing_to_quantize_is_said(pictures: Bench) -> None:
    with pytest.raises(StageError, match="nothing was quantized"):
        pictures.quantize(exclude=("*",))
    with pytest.raises(StageError, match="nothing was quantized"):
        pictures.quantize(method="weight-only", operators=("Conv",))


def test_a_loader_that_fails_is_the_users_error_not_the_quantizers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, resnet())

    def broken(split: Split) -> Samples:
        raise SourceError("the loader raised", where="loader.py", next_step="fix it")

    bench.samples = broken  # type: ignore[method-assign]
    with pytest.raises(SourceError):
        bench.quantize()


def test_an_artifact_for_a_gpu_is_not_opened_without_one(pictures: Bench) -> None:
    made, path = pictures.quantize(target="tensorrt")
    artifact = replace(pictures.artifact, name="gpu", files=(File.of(path),), requires=made.requires)
    kept = pictures.store.put(artifact, path.parent)
    if environment().gpus:
        pytest.skip("this machine has a GPU")
    with pytest.raises(ContractError, match="NVIDIA GPU"):
        open_session(kept, pictures.store)


RECIPE = """
schema = 1
name = "small"
[source]
onnx = "model.onnx"
outputs = ["y"]
[data]
loader = "loader.py:samples"
calibration = 96
[[stages]]
kind = "quantize"
target = "auto"
parity = { y = { cosine = 0.9 } }
"""
LOADER = """
import numpy as np

def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, len(split)])
    return {"x": random.normal(size=(count or 64, 12, 64)).astype(np.float32)}, None
"""


@pytest.mark.parametrize(
    "lines",
    [
        'method = "weight-only"\nbits = 4\nblock_size = 32',
        'method = "dynamic"\nsmooth = 0.5',
        'smooth = 0.5\nbias_correction = true\n[[stages.overrides]]\nmatch = "y*"\nactivations = "float"',
    ],
    ids=["weight-only", "dynamic", "static"],
)
def test_a_recipe_builds_once(tmp_path: Path, lines: str) -> None:
    onnx.save(transformer(), str(tmp_path / "model.onnx"))
    (tmp_path / "loader.py").write_text(LOADER)
    (tmp_path / "small.toml").write_text(RECIPE + lines + "\n")
    store = Store(tmp_path / "home" / "store")
    made = build(load_recipe(tmp_path / "small.toml"), store)
    assert made.steps[0].agreements
    assert bool(made.artifact.made_by.samples) == ("smooth" in lines)
    again = build(load_recipe(tmp_path / "small.toml"), store)
    assert not again.worked
    assert again.artifact.digest == made.artifact.digest
