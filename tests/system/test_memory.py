"""Peak memory of a build's steps, measured in processes of their own: in proportion, remembered, and searchable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.building.build import build
from seatrial.optimize.building.figures import figures
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.report.build_page import write_html
from seatrial.optimize.report.show import build_table, memory_line
from seatrial.optimize.samples import Samples
from seatrial.optimize.search.explore import measure
from seatrial.optimize.store import Store
from seatrial.optimize.timing.memory import memory_of
from tests.support.graphs import constant, value

pytestmark = pytest.mark.system
MIB = 1 << 20
RECIPE = """
schema = 1
name = "wide"
[source]
onnx = "wide.onnx"
[data]
loader = "data.py:samples"
evaluation = 32
[[stages]]
kind = "quantize"
operators = ["MatMul"]
parity = { y = { cosine = 0.9 } }
"""
LOADER = """
import numpy as np

def samples(split, count=None, seed=7):
    x = np.random.default_rng([seed, len(split)]).normal(size=(count or 32, 2048)).astype("float32")
    return {"x": x}, x[:, :4].argmax(axis=1)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net of two 2048 x 2048 products: 32 MiB of weights."""
    folder = tmp_path_factory.mktemp("wide")
    weights = np.random.default_rng(1).normal(size=(2, 2048, 2048)).astype(np.float32) / 45
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "wide",
        [value("x", TensorProto.FLOAT, ["n", 2048])],
        [value("y", TensorProto.FLOAT, ["n", 2048])],
        [constant("a", weights[0]), constant("b", weights[1])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "wide.onnx"
    )
    (folder / "data.py").write_text(LOADER)
    (folder / "wide.toml").write_text(RECIPE)
    return folder / "wide.toml"


def test_memory_holds_the_weights_and_int8_takes_less_of_it(recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    made = build(load_recipe(recipe), store)
    assert all(row.memory is None for row in figures(made, store))
    before, after = (row.memory for row in figures(made, store, memory=True))
    assert before is not None
    assert after is not None
    assert 32 * MIB < before.bytes < 160 * MIB
    assert after.bytes < before.bytes
    for each in (before, after):
        assert each.low <= each.bytes <= each.high < each.low + 16 * MIB
        assert (each.batch, each.processes) == (32, 3)
    assert figures(made, store, memory=True)[0].memory == before  # remembered
    worth = measure(load_recipe(recipe), store, lambda label, share, text: None, memory=True)
    assert worth.values["memory"] == float(after.bytes)
    rows = figures(made, store, memory=True)
    assert "memory" in [column.header for column in build_table(made, rows).columns]
    assert "3 fresh processes" in memory_line(rows)
    write_html(tmp_path / "page.html", made, rows)
    assert "memory, MiB" in (tmp_path / "page.html").read_text()

    def wrong() -> Samples:
        return Samples(split="evaluation", inputs={"wrong": np.zeros((4, 2), np.float32)}, labels=None)

    assert memory_of(made.artifact, store, wrong, "sha256:wrong", batch=4) is None  # the engine refuses those inputs
    engine = replace(made.artifact, format="tensorrt")
    assert memory_of(engine, store, wrong, "sha256:wrong", batch=4) is None


def test_a_search_may_weigh_memory(recipe: Path) -> None:
    text = recipe.read_text() + (
        '[search]\nobjectives = ["quality", "memory"]\n[search.stages.quantize.per_channel]\nchoices = [true, false]\n'
    )
    path = recipe.with_name("searched.toml")
    path.write_text(text)
    search = load_recipe(path).search
    assert search is not None
    assert search.objectives == ("quality", "memory")
