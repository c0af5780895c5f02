"""The python flavour's session: joins what comes, runs tensors where they lie, refuses in words that may be shown."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.store import Store
from seatrial.serve.triton.flavour.python_session import Session, Unusable, plain, shape
from tests.support.graphs import make, pictures, value, words

PARAMETERS = {"threads": "1", "providers": "CPUExecutionProvider", "model_file": "model.onnx"}


def opened(tmp_path: Path, build: Any = pictures) -> Session:
    build(Store(tmp_path / "store"), tmp_path / "made")
    return Session(str(tmp_path / "made"), PARAMETERS)


def inputs(count: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(count, 3, 8, 8)).astype(np.float32),
        "gain": random.uniform(0.5, 2.0, size=(count, 1)).astype(np.float32),
    }


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    session, given = opened(tmp_path), [inputs(1, 1), inputs(3, 2), inputs(2, 3)]
    apart = [session.run(("scores",), {name: [each[name]] for name in each})[0] for each in given]
    (joined,) = session.run(("scores",), {name: [each[name] for each in given] for name in given[0]})
    np.testing.assert_allclose(joined, np.concatenate(apart), rtol=1e-5)


def test_a_single_part_is_not_copied(tmp_path: Path) -> None:
    session, given = opened(tmp_path), inputs(2)
    assert session._joined("image", [given["image"]]) is given["image"]


@pytest.mark.parametrize("device", [("image",), ("gain",), ("image", "gain")])
def test_tensors_on_a_device_go_through_io_binding(tmp_path: Path, device: tuple[str, ...]) -> None:
    """Host memory stands in for the GPU's: the same DLPack and the same binding; a GPU's own copies are not shown."""
    session, given = opened(tmp_path), inputs(2)
    expected = session.run(("scores", "winner"), {name: [array] for name, array in given.items()})
    held = {name: session.on_device(array) if name in device else array for name, array in given.items()}
    for name in device:
        assert held[name].data_ptr() == given[name].ctypes.data, "the tensor was copied"
        assert shape(held[name]) == shape(given[name])
    found = session.run(("scores", "winner"), {name: [tensor] for name, tensor in held.items()})
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    two = session.run(("scores",), {name: [tensor, given[name]] for name, tensor in held.items()})[0]
    np.testing.assert_allclose(two, np.concatenate([expected[0]] * 2), rtol=1e-5)


def test_text_comes_as_bytes_and_goes_in_as_text(tmp_path: Path) -> None:
    def text(store: Store, folder: Path) -> object:
        ends = [value(name, TensorProto.STRING, ["n", 2]) for name in ("said", "heard")]
        graph = helper.make_graph([helper.make_node("Identity", ["said"], ["heard"])], "text", ends[:1], ends[1:])
        return make(store, folder, "text", graph, {"inputs": (), "outputs": ()})

    session = opened(tmp_path, text)
    given = [np.array([["ä".encode(), b""]], object), np.array([[b"b", b"c"]], object)]
    assert session.run(("heard",), {"said": given})[0].tolist() == [["ä", ""], ["b", "c"]]
    with pytest.raises(session.refusals):
        session.run(("heard",), {"said": [np.array([[b"\xff", b""]], object)]})


def test_what_cannot_be_opened_says_why_without_paths(tmp_path: Path) -> None:
    words(Store(tmp_path / "store"), tmp_path / "made")
    with pytest.raises(Unusable, match=r"gone\.onnx cannot be loaded") as missing:
        Session(str(tmp_path / "made"), PARAMETERS | {"model_file": "gone.onnx"})
    assert str(tmp_path) not in str(missing.value)
    provider = pytest.warns(UserWarning, match="SomeExecutionProvider")  # of ONNX Runtime, before it refuses
    with provider, pytest.raises(Unusable, match="SomeExecutionProvider"):
        Session(str(tmp_path / "made"), PARAMETERS | {"providers": "SomeExecutionProvider"})
    (tmp_path / "made" / "model.onnx").write_bytes(onnx.ModelProto().SerializeToString() + b"\0\1")
    with pytest.raises(Unusable, match="cannot be loaded"):
        Session(str(tmp_path / "made"), PARAMETERS)


def test_a_refusal_keeps_only_its_first_line_and_no_path() -> None:
    assert plain(ValueError("bad shape in /opt/x/y/z.cc:12\nmore")) == "bad shape in ...:12"
    assert plain(MemoryError()) == "MemoryError"
