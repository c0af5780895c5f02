"""Torch as an engine: eager, compiled whole, and captured (on the CPU with a stand-in for the capture)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import StageError
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions import on_torch_compile
from seatrial.optimize.sessions.device import HOST, Device
from seatrial.optimize.sessions.engine import ENGINES, Bindable, ModelFiles, RanOn, opened
from seatrial.optimize.sessions.on_torch import Architecture, TorchSession, placed, save_module, torch_missing
from seatrial.optimize.sessions.on_torch_compile import CompiledSession
from seatrial.optimize.sessions.on_torch_graph import SHAPES, GraphSession

IO = (
    (TensorSpec(name="x", dtype="float32", shape=("n", 8)),),
    (TensorSpec(name="y", dtype="float32", shape=("n", 4)),),
)
RANDOM = np.random.default_rng(3)
Forward = Callable[[Any, torch.Tensor], Any]


def rows(count: int) -> Array:
    return RANDOM.normal(size=(count, 8)).astype(np.float32)


class Net(torch.nn.Module):
    def __init__(self, act: Forward | None = None) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.product = torch.nn.Linear(8, 4)
        self.act = act

    def forward(self, x: torch.Tensor) -> Any:
        return torch.relu(self.product(x)) * 2 if self.act is None else self.act(self, x)


def broken(self: Any, x: torch.Tensor) -> Any:
    y = self.product(x)
    return y + 1 if float(y.sum()) > 0 else y - 1  # a branch on a value, which no graph holds


def compiled(module: torch.nn.Module, **options: Any) -> CompiledSession:
    return CompiledSession(module, *IO, forward=torch.compile(module, fullgraph=True), **options)


needs_compiler = pytest.mark.skipif(
    ENGINES.get("torch-compile").missing(HOST) is not None, reason="no C++ compiler or no Python headers here"
)


@needs_compiler
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_compiled_module_computes_what_the_eager_one_does_at_every_batch() -> None:
    module = Net()
    session, eager = compiled(module), TorchSession(module, *IO)
    code: list[int] = []
    for count in (3, 1, 7):
        given = rows(count)
        np.testing.assert_allclose(session.run({"x": given})["y"], eager.run({"x": given})["y"], rtol=1e-5, atol=1e-6)
        code.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert code[-1] > 0  # Dynamo compiled; the figures of an eager run are not those of this engine


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_is_not_one_graph_is_refused_and_not_run_in_parts() -> None:
    given = rows(2)
    TorchSession(Net(broken), *IO).run({"x": given})
    with pytest.raises(StageError, match="cannot run the module as one compiled graph") as caught:
        compiled(Net(broken)).run({"x": given})
    assert "use engine torch" in caught.value.next_step


@pytest.mark.filterwarnings("ignore")
def test_beyond_the_limit_of_compilations_nothing_runs_eagerly() -> None:
    torch._dynamo.reset()
    module = Net()
    session = CompiledSession(
        module, *IO, forward=torch.compile(module, fullgraph=True, dynamic=False, backend="eager")
    )
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        session.run({"x": rows(2)})
        with pytest.raises(StageError, match="one compiled graph"):
            session.run({"x": rows(3)})


@pytest.mark.filterwarnings("ignore")
def test_inputs_that_the_module_refuses_are_its_own_error() -> None:
    torch._dynamo.reset()
    with pytest.raises(StageError):
        compiled(Net()).run({"x": RANDOM.normal(size=(2, 3)).astype(np.float32)})


@pytest.mark.parametrize(
    ("which", "header", "said"),
    [(None, "Python.h", "needs a C++ compiler"), ("/usr/bin/g++", "absent.h", "needs Python's headers")],
)
def test_a_machine_that_cannot_compile_says_so(
    monkeypatch: pytest.MonkeyPatch, which: str | None, header: str, said: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: which)
    monkeypatch.setattr(on_torch_compile, "_HEADER", header)
    found = ENGINES.get("torch-compile").missing(HOST)
    assert found is not None
    assert said in found.what
    assert "apt-get install" in found.next_step


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is built for CUDA")
@pytest.mark.parametrize("name", ["torch", "torch-compile", "torch-cuda-graph"])
def test_a_torch_for_the_cpu_says_that_it_is_one(name: str) -> None:
    found = ENGINES.get(name).missing(Device(kind="cuda"))
    assert found is not None
    assert f"torch {torch.__version__} is built for the CPU alone" in found.what
    assert "built for CUDA" in found.next_step
    assert torch_missing(HOST) is None


def test_the_device_of_a_session_is_that_of_its_tensors() -> None:
    assert str(TorchSession(Net(), *IO).device) == "cpu"
    assert placed(torch.nn.Identity(), Device(kind="cuda", index=1)) == Device(kind="cuda", index=1)
    apart = Net()
    apart.product.to("meta")
    apart.register_buffer("scale", torch.ones(1))
    assert placed(apart, HOST) == HOST


class Recorder:
    """Stands in for a capture: counts captures and replays, and computes again into the same buffers."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, run: Any, device: Device) -> Any:
        self.captures += 1
        outputs = run()

        def replay() -> None:
            self.replays += 1
            with torch.inference_mode():
                for name, value in run().items():
                    outputs[name].copy_(value)

        return outputs, replay


def test_a_captured_module_is_captured_once_for_each_shape_and_replayed() -> None:
    record, module = Recorder(), Net()
    session, eager = GraphSession(module, *IO, device=HOST, capture=record), TorchSession(module, *IO)
    for count in (3, 5, 3, 5, 3):
        given = rows(count)
        np.testing.assert_array_equal(session.run({"x": given})["y"], eager.run({"x": given})["y"])
    assert (record.captures, record.replays) == (2, 5)


def test_a_bound_graph_reads_what_was_written_and_refuses_other_shapes() -> None:
    record, module, first, second = Recorder(), Net(), rows(2), rows(2)
    session, eager = GraphSession(module, *IO, device=HOST, capture=record), TorchSession(module, *IO)
    assert isinstance(session, Bindable)
    bound = session.bind({"x": first})
    np.testing.assert_array_equal(bound.read()["y"], eager.run({"x": first})["y"])
    bound.write({"x": second})
    bound.run()
    np.testing.assert_array_equal(bound.read()["y"], eager.run({"x": second})["y"])
    for given in ({}, {"x": rows(3)}, {"x": first.astype(np.float64)}):
        with pytest.raises(StageError, match=r"input 'x' is captured as torch.float32 \[2, 8\]"):
            bound.write(given)
    assert record.captures == 1


def test_a_session_gives_up_its_oldest_captures() -> None:
    record = Recorder()
    session = GraphSession(Net(), *IO, device=HOST, capture=record)
    for count in range(1, SHAPES + 2):
        session.run({"x": rows(count)})
    session.run({"x": rows(SHAPES + 1)})
    assert record.captures == SHAPES + 1
    session.run({"x": rows(1)})
    assert record.captures == SHAPES + 2


def test_what_cannot_be_captured_is_an_error_with_the_way_out() -> None:
    def refuse(run: Any, device: Device) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    session = GraphSession(Net(), *IO, device=HOST, capture=refuse)
    with pytest.raises(StageError, match="cannot be captured as a CUDA graph: operation not permitted") as caught:
        session.run({"x": rows(2)})
    assert "use engine torch" in caught.value.next_step
    with pytest.raises(StageError, match="the inputs lack x"):
        session.run({})


SOURCE_TEXT = """
import torch


def net() -> torch.nn.Module:
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh())
"""


@needs_compiler
@pytest.mark.filterwarnings("ignore")
def test_an_artifact_opens_in_the_compiled_engine_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(SOURCE_TEXT)
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Tanh())
    folder = tmp_path / "files"
    folder.mkdir()
    save_module(module, Architecture(factory="source.py:net", arguments={}), tmp_path / "source.py", folder)
    model = ModelFiles(
        format="torch",
        file=lambda name: folder / name,
        names=frozenset(path.name for path in folder.iterdir()),
        inputs=IO[0],
        outputs=IO[1],
    )
    found = opened(ENGINES.get("torch-compile"), model, threads=1)
    assert found.ran_on == RanOn(engine="torch-compile", provider="inductor", device="cpu")
    eager = opened(ENGINES.get("torch"), model, threads=1)
    assert eager.ran_on == RanOn(engine="torch", provider="torch", device="cpu")
    given = {"x": rows(3)}
    np.testing.assert_allclose(found.session.run(given)["y"], eager.session.run(given)["y"], rtol=1e-5, atol=1e-6)
