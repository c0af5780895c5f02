"""Finished files on the real server: a state on another axis, a scalar, and lengths beside the samples' own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seatrial.optimize.draft.finished import sealed
from seatrial.optimize.store import Store
from seatrial.serve.deployment import default_deployment
from seatrial.serve.errors import ProofError
from seatrial.serve.triton.proof.placed import prove

pytestmark = pytest.mark.system


def saved(
    path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]], outputs: dict[str, list[int | str]]
) -> Path:
    def values(shapes: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    weights = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_a_state_and_a_scalar_are_served_as_whole_tensors(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["state", "rate"], ["next"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("ReduceSum", ["next"], ["rate_out"], keepdims=0),
        helper.make_node("Mul", ["a", "rate_out"], ["y"]),
    ]
    path = saved(
        tmp_path / "vad.onnx",
        nodes,
        {"x": ["n", 8], "state": [2, "n", 4], "rate": []},
        {"y": ["n", 3], "next": [2, "n", 4], "rate_out": []},
    )
    store = Store(tmp_path / "home" / "store")
    artifact = sealed(path, store)
    assert not artifact.batches
    proof = prove(artifact, default_deployment(artifact, "vad"), store=store)
    assert proof.report.passed
    assert proof.report.requests >= 8


def test_a_length_beside_the_samples_own_is_served(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = saved(tmp_path / "tags.onnx", nodes, {"x": ["n", "t", 8]}, {"y": ["n", 5, 3]})
    store = Store(tmp_path / "home" / "store")
    artifact = sealed(path, store)
    assert artifact.outputs[0].shape == ("batch", "t", 3)
    proof = prove(artifact, default_deployment(artifact, "tags"), store=store)
    assert proof.report.passed
    assert [length.partition(" ")[0] for length in proof.report.lengths] == ["t"]


def test_a_declared_shape_that_answers_do_not_have_is_not_placed(tmp_path: Path) -> None:
    from dataclasses import replace

    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    store = Store(tmp_path / "home" / "store")
    artifact = sealed(saved(tmp_path / "t.onnx", nodes, {"x": ["n", "t", 8]}, {"y": ["n", "t", 3]}), store)
    size = 32
    wrong = replace(artifact, outputs=(replace(artifact.outputs[0], shape=("batch", size, 3)),))
    with pytest.raises(ProofError, match="the model declares"):
        prove(wrong, default_deployment(wrong, "t"), store=store)
