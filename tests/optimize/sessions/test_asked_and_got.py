"""What an engine was asked for and what it got: a fall back to another provider or device is an error."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest
import torch

from seatrial.optimize.artifact import Format
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, ContractError, MachineError
from seatrial.optimize.sessions.device import device_of
from seatrial.optimize.sessions.engine import (
    ENGINES,
    Engine,
    ModelFiles,
    Opened,
    RanOn,
    engine_of,
    opened,
    require,
)
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.sessions.on_ort_graph import executed
from seatrial.optimize.sessions.on_ort_providers import CPU, CUDA, TENSORRT, hold, left_to_cpu, provider_missing
from tests.support.linear import linear

X = np.random.default_rng(3).normal(size=(5, 8)).astype(np.float32)
ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt", "torch-cuda-graph")
cpu_torch = pytest.mark.skipif(
    torch.version.cuda is not None, reason="this torch brings CUDA's libraries, so that the driver alone is missing"
)
no_gpu = pytest.mark.skipif(bool(environment().gpus), reason="this machine has an NVIDIA GPU")


def files(path: Path) -> ModelFiles:
    return ModelFiles(format="onnx", file=lambda name: path)


@no_gpu
@cpu_torch
@pytest.mark.parametrize("name", ON_GPU)
def test_an_engine_for_a_gpu_says_all_that_is_missing(name: str) -> None:
    with pytest.raises(ContractError, match=r"no NVIDIA driver on this machine \(libcuda.so.1") as caught:
        require(ENGINES.get(name))
    assert caught.value.where == f"engine {name} on cuda:0"
    libraries = {"onnxruntime-cuda": "libcudnn.so.9", "onnxruntime-tensorrt": "libnvinfer.so.10"}
    assert libraries.get(name, "built for the CPU alone") in caught.value.what
    extras = {
        "onnxruntime-cuda": "pip install 'seatrial[cuda]'",
        "onnxruntime-tensorrt": "pip install 'seatrial[cuda,tensorrt-provider]'",
    }
    assert extras.get(name, "torch that is built for CUDA") in caught.value.next_step


@no_gpu
@cpu_torch
@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_session_and_a_graph_that_fell_back_are_refused(
    tmp_path: Path, provider: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = linear(tmp_path / "linear.onnx")
    for act in (
        lambda: OrtSession(path, providers=(provider,)),
        lambda: executed(path, {"x": X}, providers=(provider,)),
    ):
        with pytest.raises(MachineError) as caught:
            act()
        assert provider in caught.value.what
        assert "libcublas.so.13" in caught.value.what
        assert "seatrial[cuda" in caught.value.next_step
        assert caught.value.exit_code == 4
    assert capfd.readouterr().out == ""  # ONNX Runtime prints on stdout when it retries by itself


def test_a_wheel_without_the_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    found = provider_missing(CUDA, device_of("cuda"))
    assert found is not None
    assert f"onnxruntime-gpu {ort.__version__}) has no {CUDA}" in found.what
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install 'seatrial[cuda]'" in found.next_step


def test_another_gpu_than_the_one_asked_for_is_refused() -> None:
    class Other:
        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return {CUDA: {"device_id": "0"}}

    hold(Other(), (CUDA,), device_of("cuda:0"))
    with pytest.raises(MachineError, match="was to run on cuda:1 and runs on cuda:0"):
        hold(Other(), (CUDA,), device_of("cuda:1"))


def test_nodes_that_a_provider_leaves_to_the_cpu_are_listed() -> None:
    class Node:
        def __init__(self, name: str, kind: str) -> None:
            self.name, self.op_type = name, kind

    class Part:
        def __init__(self, provider: str, *nodes: Node) -> None:
            self.ep_name, self.get_nodes = provider, lambda: nodes

    class Session:
        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def get_provider_graph_assignment_info(self) -> list[Part]:
            return [Part(CUDA, Node("conv", "Conv")), Part(CPU, Node("top", "TopK"), Node("", "Shape"))]

    assert left_to_cpu(Session()) == ("top", "Shape")


def test_on_the_cpu_no_node_fell_back(tmp_path: Path) -> None:
    assert OrtSession(linear(tmp_path / "linear.onnx")).on_cpu == ()


def test_this_onnx_runtime_reports_where_each_node_runs(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(linear(tmp_path / "linear.onnx")), options, providers=[CPU])
    (part,) = session.get_provider_graph_assignment_info()
    assert (part.ep_name, [node.op_type for node in part.get_nodes()]) == (CPU, ["MatMul"])


class Falling(Engine):
    """An engine that runs somewhere else than it was asked to."""

    name: ClassVar[str] = "falling"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    provider: ClassVar[str] = "fast"
    install: ClassVar[str] = "pip install fast"

    def __init__(self, provider: str, device: str) -> None:
        self.got = (provider, device)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        session: Any = None
        return Opened(session=session, provider=self.got[0], device=self.got[1], on_cpu=("a",))


@pytest.mark.parametrize(
    ("got", "asked"),
    [(("slow", "cpu"), "cpu"), (("fast", "cpu"), "cuda"), (("fast", "cuda"), "cuda:1"), (("fast", "cuda:0"), "cuda:1")],
)
def test_every_engine_is_held_against_what_it_was_asked_for(got: tuple[str, str], asked: str) -> None:
    with pytest.raises(MachineError, match=f"and got {got[0]} on {got[1]}") as caught:
        opened(Falling(*got), files(Path("none")), threads=1, device=asked)
    assert caught.value.next_step == "pip install fast"


def test_what_was_got_is_said_with_the_engines_name() -> None:
    found = opened(Falling("fast", "cuda"), files(Path("none")), threads=1, device="cuda:0").ran_on
    assert found == RanOn(engine="falling", provider="fast", device="cuda:0", on_cpu=("a",))
    assert str(found) == "falling (fast) on cuda:0, 1 nodes on the CPU"


@pytest.mark.parametrize(
    ("name", "device", "step"),
    [
        ("onnxruntime-cpu", "cuda", "engine onnxruntime-cuda"),
        ("openvino", "cuda:1", "engine onnxruntime-cuda"),
        ("onnxruntime-cuda", "cpu", "use device cuda"),
        ("torch-cuda-graph", "cpu", "use device cuda"),
        ("tensorrt", "cpu", "use device cuda"),
    ],
)
def test_a_device_that_an_engine_does_not_run_on_is_refused(name: str, device: str, step: str) -> None:
    with pytest.raises(ConfigError, match=f"engine {name} runs on") as caught:
        require(ENGINES.get(name), device)
    assert step in caught.value.next_step


def test_an_engine_on_its_default_device_is_the_formats_own() -> None:
    assert str(require(engine_of("onnx"))) == str(require(engine_of("torch"))) == "cpu"
