"""Cast with the real ONNX Runtime: an overflow that is built in stays in fp32, the rest becomes fp16 or bf16."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.errors import ContractError, StageError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from tests.support.graphs import constant, value

pytestmark = pytest.mark.system

LOADER = """
import numpy as np

def samples(split, count=None, seed=7):
    random = np.random.default_rng(len(split))
    return {"x": random.normal(size=(count or 64, 16)).astype(np.float32)}, np.zeros(count or 64, dtype=np.int64)
"""


def model(folder: Path, opset: int) -> None:
    """A product, a square that passes 65504, its root that brings it back, and a head."""
    random = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return constant(name, random.normal(size=shape).astype(np.float32))

    loud: Array = np.array(1000.0, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["hidden"], name="body"),
        helper.make_node("Mul", ["hidden", "loud"], ["big"], name="amplify"),
        helper.make_node("Mul", ["big", "big"], ["square"], name="square"),
        helper.make_node("Sqrt", ["square"], ["size"], name="root"),
        helper.make_node("Div", ["size", "loud"], ["back"], name="attenuate"),
        helper.make_node("MatMul", ["back", "w1"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "overflow",
        [value("x", TensorProto.FLOAT, ["n", 16])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [weights("w0", 16, 16), weights("w1", 16, 4), constant("loud", loud)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), folder / "m.onnx"
    )


def made(folder: Path, stage: str, opset: int = 22) -> tuple[Build, onnx.ModelProto]:
    model(folder, opset)
    (folder / "loader.py").write_text(LOADER)
    (folder / "r.toml").write_text(
        'schema = 1\nname = "overflow"\n[source]\nonnx = "m.onnx"\noutputs = ["y"]\n'
        '[data]\nloader = "loader.py:samples"\n'
        f'calibration = 64\n[[stages]]\nkind = "cast"\n{stage}\n'
    )
    store = Store(folder / "store")
    done = build(load_recipe(folder / "r.toml"), store)
    return done, onnx.load(str(store.path(done.artifact, "model.onnx")))


def weights_of(graph: onnx.ModelProto) -> dict[str, int]:
    return {item.name: item.data_type for item in graph.graph.initializer}


def test_an_overflow_is_kept_in_fp32_and_the_rest_is_fp16(tmp_path: Path) -> None:
    done, graph = made(tmp_path, "")
    kept = done.artifact.made_by.notes["in_fp32"]
    assert set(kept) == {"square", "root"}
    assert all("square reaches" in why for why in kept.values())
    assert weights_of(graph)["w0_low"] == weights_of(graph)["w1_low"] == TensorProto.FLOAT16
    assert done.steps[0].agreements  # the real fp16 file ran and agreed
    assert {item.type.tensor_type.elem_type for item in (*graph.graph.input, *graph.graph.output)} == {
        TensorProto.FLOAT
    }


def test_bf16_carries_the_range_and_is_marked_as_emulated(tmp_path: Path) -> None:
    done, graph = made(tmp_path, 'precision = "bf16"')
    assert not done.artifact.made_by.notes["in_fp32"]
    assert "emulated" in done.artifact.made_by.notes["checked"]
    assert weights_of(graph)["w0_low"] == TensorProto.BFLOAT16
    assert [file.path for file in done.artifact.files] == ["model.onnx"]
    assert done.artifact.requires["kernels"] == "bfloat16"
    with pytest.raises(ContractError, match=r"its bfloat16 operators have kernels in openvino") as caught:
        open_session(done.artifact, Store(tmp_path / "store"))
    assert "--engine openvino" in caught.value.next_step


def test_a_tight_contract_keeps_the_worst_nodes_and_no_more(tmp_path: Path) -> None:
    done, _ = made(tmp_path, 'precision = "bf16"\nparity = { "*" = { relative_error = 0.004 } }')
    kept = done.artifact.made_by.notes["in_fp32"]
    assert 0 < len(kept) < 6
    assert all("contract" in why for why in kept.values())
    assert all(row.relative_error <= 0.004 for row in done.steps[0].agreements)


def test_what_is_asked_for_stays_in_fp32(tmp_path: Path) -> None:
    done, graph = made(tmp_path, 'keep = ["head"]')
    assert done.artifact.made_by.notes["in_fp32"]["head"] == "asked for"
    assert weights_of(graph)["w1"] == TensorProto.FLOAT


def test_bf16_of_an_old_opset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="opset 22"):
        made(tmp_path, 'precision = "bf16"', opset=20)
