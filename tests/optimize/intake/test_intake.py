"""Intake: ONNX files as others write them become sources, or are refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from seatrial.optimize.building.build import build, plan
from seatrial.optimize.draft.finished import named, sealed
from seatrial.optimize.errors import ConfigError, FormatChainError, MissingError, SeatrialError, SourceError
from seatrial.optimize.intake import on_onnx as intake
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.sessions.on_ort_graph import Exposed, executed
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store

X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    *,
    opset: int = 17,
    ir: int = 8,
    ml: bool = False,
) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(W, "w")])
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=ir), str(path))
    return path


def product(path: Path, **given: Any) -> Path:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return saved(path, [node], [value("x", "n", 8)], [value("y", "n", 3)], **given)


def taken(path: Path, folder: Path, **given: Any) -> intake.Taken:
    (folder / "in").mkdir()
    return intake.take_in(path, folder / "in", {"x": X}, **given)


def test_a_file_that_needs_nothing_is_kept_byte_by_byte(tmp_path: Path) -> None:
    path = product(tmp_path / "a.onnx")
    found = taken(path, tmp_path)
    assert found.changes == ()
    assert (tmp_path / "in" / "model.onnx").read_bytes() == path.read_bytes()
    assert found.tensors.outputs[0].shape == ("batch", 3)


def test_outputs_declared_of_one_size_are_declared_as_they_are(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    nodes = [node, helper.make_node("Identity", ["y"], ["z"])]
    path = saved(tmp_path / "a.onnx", nodes, [value("x", "n", "t", 8)], [value("z", "n", 5, 3)])
    (tmp_path / "in").mkdir()
    found = intake.take_in(path, tmp_path / "in", {"x": np.stack([X] * 4)})
    assert found.tensors.outputs[0].shape == ("batch", "t", 3)
    declared = onnx.load(str(tmp_path / "in" / "model.onnx")).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in declared] == ["batch", "t", 3]


def test_constants_among_the_inputs_and_negative_sizes_are_put_right(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = saved(tmp_path / "a.onnx", [node], [value("x", -1, 8), value("w", 8, 3)], [value("y", -1, 3)], opset=9, ir=3)
    found = taken(path, tmp_path)
    assert [spec.name for spec in found.tensors.inputs] == ["x"]
    model = onnx.load(str(tmp_path / "in" / "model.onnx"))
    onnx.checker.check_model(model)
    assert [each.name for each in model.graph.input] == ["x"]
    assert any("removed from the inputs" in change for change in found.changes)


@pytest.mark.parametrize("many", [False, True])
def test_weights_in_other_files_come_along_and_count(tmp_path: Path, many: bool) -> None:
    path = tmp_path / "big" / "a.onnx"
    path.parent.mkdir()
    model = onnx.load(str(product(tmp_path / "one.onnx")))
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=not many,
        location=None if many else "weights.bin",
        size_threshold=0,
    )
    store = Store(tmp_path / "store")
    artifact = sealed(path, store)
    assert len(artifact.files) == 2
    got = open_session(artifact, store).run({"x": X})["y"]
    np.testing.assert_allclose(got, X @ W, rtol=1e-5)
    graph = store.path(artifact, "model.onnx")
    np.testing.assert_allclose(Exposed(graph).run({"x": X})["y"], X @ W, rtol=1e-5)
    assert [each.kind for each in executed(graph, {"x": X}).operations] == ["MatMul"]
    other = next(each for each in path.parent.iterdir() if each.name != "a.onnx")
    other.write_bytes(np.asarray(2 * W).tobytes())
    assert sealed(path, store).digest != artifact.digest
    other.unlink()
    with pytest.raises(MissingError, match="weights file"):
        sealed(path, store)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    model = onnx.load(str(product(tmp_path / "a.onnx")))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="outside the model's folder"):
        taken(tmp_path / "a.onnx", tmp_path)


def test_maps_become_the_tensor_that_they_are_made_of(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    maps = helper.make_value_info(
        "maps", helper.make_sequence_type_proto(helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [])))
    )
    path = saved(tmp_path / "a.onnx", nodes, [value("x", "n", 8)], [maps], ml=True)
    found = taken(path, tmp_path)
    assert [(spec.name, spec.shape) for spec in found.tensors.outputs] == [("maps", ("batch", 3))]
    store = Store(tmp_path / "store")
    artifact = sealed(path, store)
    np.testing.assert_allclose(open_session(artifact, store).run({"x": X})["maps"], X @ W, rtol=1e-5)


def test_strings_are_refused_and_can_be_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Cast", ["y"], ["words"], to=TensorProto.STRING),
    ]
    words = value("words", "n", 3, kind=TensorProto.STRING)
    path = saved(tmp_path / "a.onnx", nodes, [value("x", "n", 8)], [value("y", "n", 3), words])
    with pytest.raises(SourceError, match="holds strings") as refused:
        taken(path, tmp_path)
    assert 'outputs = ["y"]' in refused.value.next_step
    found = intake.take_in(path, tmp_path / "in", {"x": X}, outputs=["y"])
    assert [spec.name for spec in found.tensors.outputs] == ["y"]
    with pytest.raises(SourceError, match="no output 'z'"):
        intake.take_in(path, tmp_path / "in", {"x": X}, outputs=["z"])


def test_an_input_of_strings_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT)
    path = saved(tmp_path / "a.onnx", [node], [value("s", "n", 3, kind=TensorProto.STRING)], [value("y", "n", 3)])
    with pytest.raises(SourceError, match="input 's' holds strings"):
        sealed(path, Store(tmp_path / "store"))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21, 23])
def test_old_and_new_opsets_run_as_they_are(tmp_path: Path, opset: int) -> None:
    found = taken(product(tmp_path / "a.onnx", opset=opset, ir=8 if opset < 21 else 10), tmp_path)
    assert found.changes == ()


def recipe(folder: Path, onnx_file: str, stages: str) -> Recipe:
    (folder / "samples.py").write_text(
        "import numpy as np\n"
        "def samples(split, count=None, seed=7):\n"
        "    return {'x': np.random.default_rng(len(split)).normal(size=(count or 16, 8)).astype('float32')}, None\n"
        "def metric(outputs, labels):\n"
        "    return np.ones(len(next(iter(outputs.values()))))\n"
    )
    (folder / "recipe.toml").write_text(
        f'schema = 1\nname = "net"\n{"stages = []" if not stages else ""}\n[source]\nonnx = "{onnx_file}"\n'
        f'[data]\nloader = "samples.py:samples"\n[metric]\nname = "samples.py:metric"\n{stages}\n'
    )
    return load_recipe(folder / "recipe.toml")


def test_a_recipe_without_stages_serves_its_file(tmp_path: Path) -> None:
    product(tmp_path / "a.onnx")
    made = build(recipe(tmp_path, "a.onnx", ""), store := Store(tmp_path / "home" / "store"))
    assert made.artifact == made.reference.artifact == made.source.artifact
    assert made.steps == ()
    assert store.get("net").digest == store.get("net.fp32").digest
    assert [row.artifact for row in plan(made.recipe, store)] == [made.artifact]


def test_a_plan_refuses_to_quantize_what_is_quantized(tmp_path: Path) -> None:
    quantize_dynamic(str(product(tmp_path / "f.onnx")), str(tmp_path / "a.onnx"))
    wanted = recipe(tmp_path, "a.onnx", '[[stages]]\nkind = "quantize"')
    with pytest.raises(ConfigError, match="already quantized") as refused:
        plan(wanted, Store(tmp_path / "home" / "store"))
    assert "stages = []" in refused.value.next_step
    assert plan(recipe(tmp_path, "a.onnx", ""), Store(tmp_path / "home" / "store"))


def test_a_module_without_stages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make(): ...\n")
    (tmp_path / "recipe.toml").write_text(
        'schema = 1\nname = "net"\nstages = []\n[source]\nfactory = "net.py:make"\n[data]\nloader = "net.py:make"\n'
    )
    with pytest.raises(FormatChainError, match="cannot be served"):
        load_recipe(tmp_path / "recipe.toml")


def test_a_name_that_is_a_file_becomes_an_artifact_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = named(str(product(tmp_path / "Net v1.onnx")), store)
    assert (made.name, made.batches) == ("net-v1", True)
    assert named(made.digest, store) == made
    with pytest.raises(MissingError, match="no such file"):
        named(str(tmp_path / "gone.onnx"), store)


@pytest.mark.parametrize("rubbish", [b"", b"not onnx", onnx.ModelProto().SerializeToString()])
def test_what_is_no_model_is_refused(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(rubbish)
    with pytest.raises(SeatrialError):
        named(str(tmp_path / "a.onnx"), Store(tmp_path / "store"))
