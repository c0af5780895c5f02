"""The Python backend's sessions: each engine joins what comes, runs it, and refuses in words that may be shown."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.store import Store
from seatrial.serve.triton.backend import python_onnxruntime, python_session
from seatrial.serve.triton.backend.python_onnxruntime import Graphs, OnnxRuntime, cuda_options
from seatrial.serve.triton.backend.python_session import Opening, Session, Unusable, opened, plain, shape
from tests.support.exported import program
from tests.support.graphs import make, pictures, value, words

CPU: dict[str, Any] = {"kind": "onnx-cpu"}
ENGINES = [
    "onnx-cpu",
    pytest.param("openvino", marks=pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")),
    "torch",
]
CONFIG: dict[str, Any] = {
    "parameters": {"threads": {"string_value": "1"}, "model_file": {"string_value": "model.onnx"}},
    "input": [{"name": "image"}, {"name": "gain"}],
    "output": [{"name": "scores"}, {"name": "winner"}],
    "max_batch_size": 8,
}


def session(tmp_path: Path, build: Any = pictures, **options: Any) -> Session:
    """A model in an engine, ONNX Runtime on the CPU unless `options` say otherwise."""
    chosen = CPU | options
    file = program(tmp_path / "made") if chosen["kind"] == "torch" else tmp_path / "made" / "model.onnx"
    if chosen["kind"] != "torch":
        build(Store(tmp_path / "store"), tmp_path / "made")
    axes = {"image": ["n", None, None, None], "gain": ["n", None]}
    return opened(Opening(path=str(file), options=chosen | {"axes": axes}, outputs=("scores", "winner"), largest=8))


def inputs(count: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(count, 3, 8, 8)).astype(np.float32),
        "gain": random.uniform(0.5, 2.0, size=(count, 1)).astype(np.float32),
    }


@pytest.mark.parametrize("kind", ENGINES)
def test_every_engine_gives_the_same_answers_and_joins_parts_in_order(tmp_path: Path, kind: str) -> None:
    reference = session(tmp_path / "reference")
    held, given = session(tmp_path / "held", kind=kind), [inputs(1, 1), inputs(3, 2), inputs(2, 3)]
    apart = [reference.run(("scores", "winner"), {name: [each[name]] for name in each}) for each in given]
    joined = held.run(("scores", "winner"), {name: [each[name] for each in given] for name in given[0]})
    for place, array in enumerate(joined):
        expected = np.concatenate([each[place] for each in apart])
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    (winner,) = held.run(("winner",), {name: [array] for name, array in given[1].items()})
    np.testing.assert_array_equal(winner, apart[1][1])


@pytest.mark.parametrize("kind", ENGINES)
def test_answers_stay_when_the_engine_runs_again(tmp_path: Path, kind: str) -> None:
    """OpenVINO's own outputs are views of a buffer that the next run overwrites."""
    held = session(tmp_path, kind=kind)
    (first,) = held.run(("scores",), {name: [array] for name, array in inputs(2, 1).items()})
    before = first.copy()
    held.run(("scores",), {name: [array] for name, array in inputs(2, 2).items()})
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("wrong", ["rows", "size", "type"])
def test_every_engine_refuses_what_does_not_fit(tmp_path: Path, kind: str, wrong: str) -> None:
    held, given = session(tmp_path, kind=kind), inputs(2)
    if wrong == "rows":
        given["gain"] = np.ones((3, 1), np.float32)
    elif wrong == "size":
        given["gain"] = np.ones((2, 2), np.float32)
    else:
        given["gain"] = given["gain"].astype(np.float64)
    with pytest.raises(held.refusals) as refused:
        held.run(("scores",), {name: [array] for name, array in given.items()})
    assert kind == "onnx-cpu" or held.caused_by_input(refused.value)
    assert held.run(("scores",), {name: [array] for name, array in inputs(2).items()})[0].shape == (2, 5)


def test_a_single_part_is_not_copied(tmp_path: Path) -> None:
    held, given = session(tmp_path), inputs(2)
    assert held.joined("image", [given["image"]]) is given["image"]


@pytest.mark.parametrize("kind", ["onnx-cpu", "torch"])
@pytest.mark.parametrize("device", [("image",), ("gain",), ("image", "gain")])
def test_tensors_on_a_device_are_taken_where_they_lie(tmp_path: Path, device: tuple[str, ...], kind: str) -> None:
    """Host memory stands in for the GPU's: the same DLPack and the same binding; a GPU's own copies are not shown."""
    held, given = session(tmp_path, kind=kind), inputs(2)
    expected = held.run(("scores", "winner"), {name: [array] for name, array in given.items()})
    tensors = {name: held.on_device(array) if name in device else array for name, array in given.items()}
    for name in device:
        assert tensors[name].data_ptr() == given[name].ctypes.data, "the tensor was copied"
        assert shape(tensors[name]) == shape(given[name])
    found = held.run(("scores", "winner"), {name: [tensor] for name, tensor in tensors.items()})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    two = held.run(("scores",), {name: [tensor, given[name]] for name, tensor in tensors.items()})[0]
    np.testing.assert_allclose(two, np.concatenate([expected[0]] * 2), rtol=1e-5)


@pytest.mark.parametrize("kind", ["onnx-cpu", "torch"])
def test_outputs_that_stay_on_the_device_are_tensors_that_can_be_cut(tmp_path: Path, kind: str) -> None:
    """Host memory stands in for the GPU's."""
    given = {name: [array] for name, array in inputs(3).items()}
    expected = session(tmp_path / "host", kind=kind).run(("scores", "winner"), given)
    held = session(tmp_path / "device", kind=kind, outputs="device")
    found = held.run(("scores", "winner"), given)
    assert held.stays
    for tensor, array in zip(found, expected, strict=True):
        assert hasattr(tensor, "__dlpack__")
        assert not isinstance(tensor, np.ndarray)
        np.testing.assert_array_equal(np.asarray(tensor[1:]), array[1:])


def test_captured_graphs_have_buffers_of_their_own_for_each_shape(tmp_path: Path) -> None:
    """Buffers in the host's memory: ONNX Runtime takes the same calls there, and captures nothing."""
    plainly = session(tmp_path)
    model = onnxruntime.InferenceSession(str(tmp_path / "made" / "model.onnx"), providers=["CPUExecutionProvider"])
    graphs = Graphs(onnxruntime, model, ("cpu", 0))
    for seed, count in enumerate((2, 5, 2, 5, 1)):
        given = inputs(count, seed)
        expected = plainly.run(("winner", "scores"), {name: [array] for name, array in given.items()})
        kept = graphs.run(("winner", "scores"), given)
        graphs.run(("winner",), inputs(count, 99))
        for one, other in zip(kept, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(graphs._held) == 3


def test_cuda_options_are_those_of_the_provider() -> None:
    assert cuda_options({"kind": "onnx-cuda"}, "1") == {
        "device_id": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "do_copy_in_default_stream": "1",
    }
    more = {"conv_search": "exhaustive", "arena": "next-power-of-two", "memory_bytes": 1 << 30, "cuda_graph": True}
    assert cuda_options(more, None) == {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "do_copy_in_default_stream": "1",
        "gpu_mem_limit": str(1 << 30),
        "enable_cuda_graph": "1",
    }


def test_cuda_that_is_not_to_be_had_is_an_error_that_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a GPU")
    with pytest.raises(Unusable, match=r"CUDAExecutionProvider.*(missing|wheel).*onnxruntime-gpu\[cuda,cudnn\]"):
        session(tmp_path, kind="onnx-cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(Unusable, match=r"CUDAExecutionProvider is not part of the server's onnxruntime wheel"):
        session(tmp_path / "again", kind="onnx-cuda")
    with pytest.raises(Unusable, match="finds no GPU here"):
        opened(Opening(path=str(program(tmp_path / "torch")), options={"kind": "torch"}, device="0"))


@pytest.mark.parametrize("kind", ["onnx-cpu", "openvino", "torch"])
def test_a_library_that_is_missing_is_named_with_how_to_install_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = {"onnx-cpu": "onnxruntime"}.get(kind, kind)
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(Unusable, match=f"cannot import {library} .*pip install") as missing:
        opened(Opening(path=str(tmp_path / "model"), options={"kind": kind}))
    assert str(tmp_path) not in str(missing.value)


def test_text_comes_as_bytes_and_goes_in_as_text(tmp_path: Path) -> None:
    def text(store: Store, folder: Path) -> object:
        ends = [value(name, TensorProto.STRING, ["n", 2]) for name in ("said", "heard")]
        graph = helper.make_graph([helper.make_node("Identity", ["said"], ["heard"])], "text", ends[:1], ends[1:])
        return make(store, folder, "text", graph, {"inputs": (), "outputs": ()})

    held = session(tmp_path, text)
    given = [np.array([["ä".encode(), b""]], object), np.array([[b"b", b"c"]], object)]
    assert held.run(("heard",), {"said": given})[0].tolist() == [["ä", ""], ["b", "c"]]
    with pytest.raises(held.refusals) as refused:
        held.run(("heard",), {"said": [np.array([[b"\xff", b""]], object)]})
    assert held.caused_by_input(refused.value)


def test_what_cannot_be_opened_says_why_without_paths(tmp_path: Path) -> None:
    words(Store(tmp_path / "store"), tmp_path / "made")
    with pytest.raises(Unusable, match=r"gone\.onnx cannot be loaded") as missing:
        OnnxRuntime(Opening(path=str(tmp_path / "made" / "gone.onnx")))
    assert str(tmp_path) not in str(missing.value)
    (tmp_path / "made" / "model.onnx").write_bytes(onnx.ModelProto().SerializeToString() + b"\0\1")
    with pytest.raises(Unusable, match="cannot be loaded"):
        OnnxRuntime(Opening(path=str(tmp_path / "made" / "model.onnx")))


def test_the_version_says_in_which_engine_it_is_served(tmp_path: Path) -> None:
    """The configuration is that of all versions of a model, so it stands in the version's own record."""

    def read(record: object, **more: Any) -> Opening:
        (tmp_path / "placement.json").write_text(json.dumps(record))
        return Opening.of(str(tmp_path), CONFIG | more, device=None)

    found = read({"engine": {"kind": "openvino", "precision": "bf16", "buckets": [1, 8]}})
    assert found.options["precision"] == "bf16"
    assert (found.file, found.threads, found.largest) == ("model.onnx", 1, 8)
    assert (found.inputs, found.outputs, found.shapes) == (["image", "gain"], ["scores", "winner"], [])
    assert read({"digest": "d"}).options == CPU, "as earlier releases wrote it"
    assert Opening.of(str(tmp_path), CONFIG, device="0").options == {"kind": "onnx-cuda"}
    sample = {"batch_size": 1, "inputs": {"image": {"dims": ["3", "8", "8"]}, "gain": {"dims": ["1"]}}}
    assert read({}, model_warmup=[sample, sample]).shapes == [{"image": (3, 8, 8), "gain": (1,)}]
    records: list[object] = [{"engine": {"kind": "evil"}}, {"engine": "evil"}, {"engine": {"precision": "f32"}}, []]
    for damaged in records:
        with pytest.raises(Unusable, match=r"placement\.json"):
            read(damaged)
    (tmp_path / "placement.json").unlink()
    with pytest.raises(Unusable, match="cannot be read"):
        Opening.of(str(tmp_path), CONFIG, device=None)


def test_a_refusal_keeps_only_its_first_line_and_no_path() -> None:
    assert plain(ValueError("bad shape in /opt/x/y/z.cc:12\nmore")) == "bad shape in ...:12"
    assert plain(MemoryError()) == "MemoryError"


def test_each_engine_has_a_file_of_its_own_that_is_placed() -> None:
    from seatrial.serve.deployment.engines import KINDS
    from seatrial.serve.triton.backend import PLACED_CODE

    assert set(python_session._ENGINES) == set(KINDS["python"])
    assert {f"{module}.py" for module, _ in python_session._ENGINES.values()} <= PLACED_CODE.keys()
    assert python_onnxruntime.__file__ == str(PLACED_CODE["python_onnxruntime.py"])
