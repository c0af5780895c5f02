"""Engine sessions against the stand-in: types, addresses, sizes known late, and memory that is allocated once."""

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import TensorSpec, digest_file
from seatrial.optimize.errors import MachineError, StageError
from seatrial.optimize.recipe.configs import CompileConfig
from seatrial.optimize.sessions.on_tensorrt import EngineSession
from seatrial.optimize.sessions.on_tensorrt_builder import carry_out
from seatrial.optimize.tensorrt.plan import MODEL, PLAN, TIMING, plan_engine
from tests.support.recorder import VERSIONS, Member, Recorder, Thing

pytestmark = pytest.mark.experimental("TensorRT")

SIGNAL = TensorSpec(name="signal", dtype="float32", shape=("batch", 4))
SIZES = TensorSpec(name="sizes", dtype="int64", shape=(2,))
LOGITS = TensorSpec(name="logits", dtype="float32", shape=("batch", 3))
X = np.arange(8, dtype=np.float32).reshape(2, 4)


def stand_in(version: str, **answers: Any) -> Recorder:
    told: dict[str, Any] = {
        "ICudaEngine.num_optimization_profiles": 1,
        "ICudaEngine.get_tensor_profile_shape": lambda name, number: ((1, 4), (2, 4), (64, 4)),
        "IExecutionContext.get_tensor_shape": (2, 3),
    }
    return Recorder(version, told | answers)


def planned(folder: Path, trt: Recorder) -> None:
    (folder / MODEL).write_bytes(b"a graph")
    config = CompileConfig(kind="compile", batch=(1, 2, 64))
    plan = plan_engine(config, [SIGNAL], digest_file(folder / MODEL))
    carry_out(plan, folder / MODEL, folder, trt=trt)
    (folder / PLAN).write_text(json.dumps(plan.to_json()))


def session(
    folder: Path, trt: Recorder, inputs: tuple[TensorSpec, ...] = (SIGNAL,), device: str = "cpu"
) -> EngineSession:
    planned(folder, trt)
    return EngineSession(lambda name: folder / name, inputs, (LOGITS,), device=device, trt=trt)


def at(trt: Recorder, name: str) -> int:
    """The address that a tensor was given last."""
    return int([address for given, address in trt.made("IExecutionContext.set_tensor_address") if given == name][-1])


def content(address: int, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What lies at an address, read as another array's type and shape."""
    return np.frombuffer(ctypes.string_at(address, array.nbytes), array.dtype).reshape(array.shape)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_input_of_another_type_is_refused_before_the_engine_reads_its_bytes(version: str, tmp_path: Path) -> None:
    opened = session(tmp_path, trt := stand_in(version))
    with pytest.raises(StageError, match="'signal' is float64, the engine takes float32") as caught:
        opened.run({"signal": X.astype(np.float64)})
    assert "astype" in caught.value.next_step
    with pytest.raises(StageError, match="'signal' is missing"):
        opened.run({})
    assert not trt.made("IExecutionContext.execute_async_v3")
    opened.run({"signal": np.asfortranarray(X)})
    np.testing.assert_array_equal(content(at(trt, "signal"), X), X)  # contiguous, in C order


@pytest.mark.parametrize("version", VERSIONS)
def test_an_output_whose_size_depends_on_the_data_is_allocated_while_the_engine_runs(
    version: str, tmp_path: Path
) -> None:
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)

    def execute(handle: int) -> bool:
        name, allocator = trt.made("IExecutionContext.set_output_allocator")[-1]
        address = allocator.reallocate_output_async(name, 0, rows.nbytes, 256, handle)
        ctypes.memmove(address, rows.ctypes.data, rows.nbytes)
        allocator.notify_shape(name, rows.shape)
        return True

    trt = stand_in(
        version,
        **{"IExecutionContext.get_tensor_shape": (-1, 3), "IExecutionContext.execute_async_v3": execute},
    )
    opened = session(tmp_path, trt)
    np.testing.assert_array_equal(opened.run({"signal": X})["logits"], rows)
    rows = rows[:2] + 1
    np.testing.assert_array_equal(opened.run({"signal": X})["logits"], rows)


def test_an_engine_that_does_not_report_its_size_is_an_error_with_the_output(tmp_path: Path) -> None:
    opened = session(tmp_path, stand_in(VERSIONS[0], **{"IExecutionContext.get_tensor_shape": (-1, 3)}))
    with pytest.raises(StageError, match="did not report the shape of output 'logits'"):
        opened.run({"signal": X})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_shape_tensor_stays_in_host_memory_and_its_values_choose_the_profile(version: str, tmp_path: Path) -> None:
    asked: list[tuple[int, str]] = []

    def values(number: int, name: str) -> Any:
        asked.append((number, name))
        return [[1, 1], [4, 4], [8, 8]]

    def location(name: str) -> Any:
        return Member("TensorLocation.HOST" if name == "sizes" else "TensorLocation.DEVICE")

    answers = {"ICudaEngine.get_tensor_location": location, "ICudaEngine.get_tensor_profile_values": values}
    opened = session(tmp_path, trt := stand_in(version, **answers), (SIGNAL, SIZES))
    sizes = np.array([3, 5], np.int64)
    opened.run({"signal": X, "sizes": sizes})
    assert asked == [(0, "sizes")]
    assert at(trt, "sizes") == opened.buffers.staging.host.bytes_of("sizes", 1).data_ptr()
    assert at(trt, "signal") == opened.buffers.staging.device.bytes_of("signal", 1).data_ptr()
    np.testing.assert_array_equal(content(at(trt, "sizes"), sizes), sizes)
    with pytest.raises(StageError, match="no optimization profile covers"):
        opened.run({"signal": X, "sizes": np.array([3, 9], np.int64)})


def test_memory_is_allocated_for_a_larger_shape_and_not_for_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    empty = torch.empty

    def counted(*arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        return empty(*arguments, **options)

    monkeypatch.setattr(torch, "empty", counted)
    opened = session(tmp_path, trt := stand_in(VERSIONS[1]))
    first = opened.run({"signal": X})["logits"]
    assert len(made) == 4  # input and output, on the device and staged
    addresses = at(trt, "signal"), at(trt, "logits")
    again = opened.run({"signal": X + 1})["logits"]
    opened.run({"signal": X[:1]})
    assert len(made) == 4
    assert (at(trt, "signal"), at(trt, "logits")) == addresses
    assert not np.shares_memory(first, again)  # a caller keeps what a call returned
    opened.run({"signal": np.zeros((64, 4), np.float32)})
    assert len(made) == 6


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_a_torch_without_cuda_is_an_error_that_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="built for the CPU alone") as caught:
        session(tmp_path, stand_in(VERSIONS[0]), device="cuda")
    assert "CUDA build of torch" in caught.value.next_step


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("refuses", ["create", "attach"])
def test_timings_of_another_gpu_are_replaced_by_an_empty_cache(version: str, refuses: str, tmp_path: Path) -> None:
    trt = stand_in(version)

    def create(data: bytes) -> Any:
        return None if data and refuses == "create" else Thing(trt, "ITimingCache")

    def attach(cache: Any, ignore: bool) -> bool:
        assert ignore is False
        return refuses != "attach" or len(trt.made("IBuilderConfig.create_timing_cache")) == 2

    answers = {"IBuilderConfig.create_timing_cache": create, "IBuilderConfig.set_timing_cache": attach}
    trt.answers = {**trt.answers, **answers}
    (tmp_path / TIMING).write_bytes(b"of another GPU")
    planned(tmp_path, trt)
    assert trt.made("IBuilderConfig.create_timing_cache") == [(b"of another GPU",), (b"",)]
    assert (tmp_path / TIMING).read_bytes() != b"of another GPU"


def test_a_builder_that_keeps_no_timings_leaves_no_file(tmp_path: Path) -> None:
    planned(tmp_path, stand_in(VERSIONS[0], **{"IBuilderConfig.get_timing_cache": None}))
    assert not (tmp_path / TIMING).exists()


def test_bound_buffers_are_their_own_and_are_run_without_copies(tmp_path: Path) -> None:
    opened = session(tmp_path, trt := stand_in(VERSIONS[1]))
    one, other = (opened.bind({"signal": X + number}) for number in range(2))
    one.run()
    first = at(trt, "signal"), at(trt, "logits")
    other.run()
    assert (at(trt, "signal"), at(trt, "logits")) != first
    np.testing.assert_array_equal(content(first[0], X), X)
    one.write({"signal": X * 2})
    one.run()
    assert (at(trt, "signal"), at(trt, "logits")) == first
    np.testing.assert_array_equal(content(first[0], X), X * 2)
    assert one.read()["logits"].shape == (2, 3)
    assert len(trt.made("IExecutionContext.execute_async_v3")) == 5
    with pytest.raises(StageError, match="is missing"):
        opened.bind({})
