"""Parity of real graphs: planted defects are found to the node, sound pairs agree, lengths are swept."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.building.comparison import Comparison, hold
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.store import Store
from seatrial.optimize.verbs import comparing
from tests.support.built import Built
from tests.support.graphs import constant, value
from tests.support.int8_net import dynamic, float_net, static
from tests.support.made_by import MADE_BY

pytestmark = pytest.mark.system
Change = Callable[[onnx.ModelProto], None]

LOADER = """
import numpy as np

def samples(split, count=None, seed=7):
    return {"x": np.random.default_rng(5).normal(size=(count or 64, SHAPE)).astype(np.float32)}, None
"""


def chain(path: Path, blocks: int = 12) -> Path:
    """Residual blocks of two products beside each other, over a dynamic number of steps; the answer is their mean."""
    random = np.random.default_rng(2)
    nodes, weights = [], []

    def node(kind: str, inputs: list[str], output: str) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"make_{output}"))
        return output

    last = "x"
    for number in range(blocks):
        for side in "ab":
            array = (random.normal(size=(16, 16)) / 4).astype(np.float32)
            weights.append(constant(f"w{side}{number}", array))
            node("Tanh", [node("MatMul", [last, f"w{side}{number}"], f"{side}{number}")], f"t{side}{number}")
        last = node("Add", [last, node("Mul", [f"ta{number}", f"tb{number}"], f"m{number}")], f"r{number}")
    nodes.append(helper.make_node("ReduceMean", [last, "axes"], ["y"], name="make_y", keepdims=0))
    weights.append(constant("axes", np.array([1], dtype=np.int64)))
    inputs, outputs = (
        [value("x", TensorProto.FLOAT, ["n", "steps", 16])],
        [value("y", TensorProto.FLOAT, ["n", 16])],
    )
    graph = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def changed(path: Path, into: Path, change: Change) -> Path:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(into))
    return into


def kept(store: Store, path: Path, *, inner: bool = True) -> Artifact:
    (folder := path.with_suffix("")).mkdir()
    path.rename(folder / "model.onnx")
    shape = ("n", "steps", 16) if inner else ("n", 3, 16, 16)
    artifact = Artifact(
        name=path.stem,
        format="onnx",
        files=(File.of(folder / "model.onnx"),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 16 if inner else 10)),),
        requires={},
        made_by=MADE_BY,
    )
    return store.put(artifact, folder)


def recipe(folder: Path, shape: str = "6, 16", stages: str = "") -> Recipe:
    (folder / "loader.py").write_text(LOADER.replace("SHAPE", shape))
    chain(folder / "any.onnx")
    stages = stages or '[[stages]]\nkind = "quantize"\n'
    (folder / "r.toml").write_text(
        'schema = 1\nname = "chain"\n[source]\nonnx = "any.onnx"\noutputs = ["y"]\n'
        f'[data]\nloader = "loader.py:samples"\ncalibration = 48\n{stages}'
    )
    return load_recipe(folder / "r.toml")


def compared(folder: Path, change: Change, *, make: Callable[[Path, Path], Path] | None = None) -> Comparison:
    """A chain against the same chain (or what `make` makes of it) with a change planted."""
    store = Store(folder / "store")
    source = chain(folder / "sound.onnx")
    other = make(source, folder / "made.onnx") if make is not None else source
    candidate = changed(other, folder / "altered.onnx", change)
    return hold(kept(store, source), kept(store, candidate), recipe(folder), store, bisect=True)


def scaled(weight: str, factor: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(each for each in model.graph.initializer if each.name == weight)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), weight))

    return change


def replaced(node: str, kind: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        next(each for each in model.graph.node if each.name == node).op_type = kind

    return change


def renamed(change: Change) -> Change:
    """The change, and no name left but those of inputs, outputs and weights."""

    def both(model: onnx.ModelProto) -> None:
        change(model)
        own = {each.name for each in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
        for number, node in enumerate(model.graph.node):
            node.name = f"node_{number}"
            for names in (node.input, node.output):
                names[:] = [name if name in own else f"other_{name}" for name in names]

    return both


def half(source: Path, into: Path) -> Path:
    """The graph in fp16, inputs and outputs in fp32."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        node.input[:] = ["x_low" if name == "x" else name for name in node.input]
        node.output[:] = ["y_low" if name == "y" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x_low"], name="down", to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["y_low"], ["y"], name="up", to=TensorProto.FLOAT))
    onnx.save(model, str(into))
    return into


def nothing(model: onnx.ModelProto) -> None:
    """No change."""


@pytest.mark.parametrize(
    ("change", "node"),
    [
        (scaled("wa5", 1.01), "make_a5"),
        (scaled("wb0", 1.001), "make_b0"),
        (scaled("wb11", 0.99), "make_b11"),
        (replaced("make_tb7", "Erf"), "make_tb7"),
        (replaced("make_r3", "Sub"), "make_r3"),
    ],
)
def test_a_planted_defect_is_found_to_the_node(tmp_path: Path, change: Change, node: str) -> None:
    found = compared(tmp_path, change)
    assert found.broken
    assert found.divergence is not None
    assert (found.divergence.kind, found.divergence.node) == ("node", node)
    assert found.divergence.error_in <= found.divergence.limit < found.divergence.error_out
    assert len(found.divergence.probes) < found.divergence.pairs / 2


def test_a_defect_is_found_where_no_name_survived(tmp_path: Path) -> None:
    found = compared(tmp_path, renamed(scaled("wa6", 1.01)))
    assert found.divergence is not None
    assert found.divergence.tensor == "other_a6"


def test_a_sound_fp16_graph_agrees_and_an_overflow_in_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    assert not compared(tmp_path / "1", nothing, make=half).broken
    store = Store(tmp_path / "store")
    source = changed(chain(tmp_path / "c.onnx"), tmp_path / "loud.onnx", loud)
    one = kept(store, changed(source, tmp_path / "one.onnx", nothing))
    found = hold(one, kept(store, half(source, tmp_path / "half.onnx")), recipe(tmp_path), store, bisect=True)
    assert found.broken[0].nonfinite
    assert found.divergence is not None
    assert (found.divergence.node, found.divergence.error_out) == ("square", np.inf)
    assert found.divergence.peak > 65504


def loud(model: onnx.ModelProto) -> None:
    """In the middle of the chain a square that no half holds, and its root."""
    graph = model.graph
    place = next(number for number, node in enumerate(graph.node) if node.name == "make_r5")
    graph.node[place].output[0] = "quiet"
    graph.initializer.append(constant("loud", np.array(600.0, dtype=np.float32)))
    steps = [("Mul", ["quiet", "loud"], "big"), ("Mul", ["big", "big"], "square")]
    steps += [("Sqrt", ["square"], "size"), ("Div", ["size", "loud"], "r5")]
    for offset, (kind, inputs, output) in enumerate(steps, start=1):
        graph.node.insert(place + offset, helper.make_node(kind, inputs, [output], name=output))


@pytest.mark.parametrize("form", ["uint8", "int8", "dynamic"])
def test_sound_quantized_graphs_agree_and_a_wrong_scale_is_found(tmp_path: Path, form: str) -> None:
    store = Store(tmp_path / "store")
    source = float_net(tmp_path / "net.onnx")
    made = dynamic(source, tmp_path / "q.onnx") if form == "dynamic" else static(source, tmp_path / "q.onnx", form)
    wrong = changed(made, tmp_path / "wrong.onnx", scaled("w1_scale", 0.25))
    one, sound, bad = (kept(store, path, inner=False) for path in (source, made, wrong))
    told = recipe(tmp_path, "3, 16, 16")
    assert not hold(one, sound, told, store, bisect=True).broken
    found = hold(one, bad, told, store, bisect=True)
    assert found.divergence is not None
    assert found.divergence.original == "second (Conv)"


def test_lengths_are_swept_and_a_length_baked_in_is_caught(tmp_path: Path) -> None:
    def baked(model: onnx.ModelProto) -> None:
        """The mean over the steps becomes a sum over six of them: right at the samples' own length alone."""
        model.graph.node[-1].op_type = "ReduceSum"
        model.graph.node[-1].output[0] = "sum"
        model.graph.initializer.append(constant("six", np.array(6.0, dtype=np.float32)))
        model.graph.node.append(helper.make_node("Div", ["sum", "six"], ["y"], name="divide"))

    found = compared(tmp_path, baked)
    assert [str(point) for point in found.points] == [
        "batch 1",
        "batch 2",
        "batch 32",
        "batch 8, steps 1",
        "batch 8, steps 2",
    ]
    assert {str(dict(row.lengths)) for row in found.broken} == {"{'steps': 1}", "{'steps': 2}"}
    assert {point.source for point in found.points} == {"samples"}


def test_the_compile_stage_says_which_sizes_are_expected(tmp_path: Path) -> None:
    stages = '[[stages]]\nkind = "compile"\nbatch = [1, 4, 16]\ndynamic = { steps = [1, 8, 12] }\n'
    store = Store(tmp_path / "store")
    one = kept(store, chain(tmp_path / "one.onnx"))
    found = hold(one, one, recipe(tmp_path, stages=stages), store)
    sizes = ["batch 1", "batch 2", "batch 4", "batch 16", *(f"batch 4, steps {size}" for size in (1, 2, 8, 12))]
    assert [str(point) for point in found.points] == sizes
    assert {point.source for point in found.points} == {"compile stage"}
    assert all(row.snr == np.inf and row.relative_error == 0 for row in found.agreements)


def test_only_graphs_can_be_bisected(tiny: Built, tmp_path: Path) -> None:
    source, reference = tiny.build.source.artifact, tiny.build.reference.artifact
    with pytest.raises(ConfigError, match="torch"):
        hold(source, reference, tiny.build.recipe, tiny.store, bisect=True)


def test_the_verb_judges_prints_and_writes_a_page(
    tiny: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tiny.home))
    export, quantized = (step.artifact.digest for step in tiny.build.steps[-2:])
    comparing.parity(export, quantized, json_=True)
    told = json.loads(capsys.readouterr().out)
    comparing.parity("tiny", json_=True)  # against its parent, which is the same
    assert json.loads(capsys.readouterr().out) == told
    assert told["kept"]
    assert told["contract"] == "the tolerances of the quantize stage"
    assert all(row["snr"] > 10 for row in told["agreements"])
    with pytest.raises(ConfigError, match="has no parent"):
        comparing.parity(tiny.build.source.artifact.digest)
    page = tmp_path / "page.html"
    with pytest.raises(typer.Exit) as caught:  # a pruned student is not the teacher
        comparing.parity("tiny.fp32", quantized, bisect=True, html=page)
    assert caught.value.exit_code == 1
    said = capsys.readouterr().out
    assert "beyond tolerance" in said
    assert "first bad node" in said
    assert "first bad node" in page.read_text()
