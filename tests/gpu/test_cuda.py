"""Engines on a GPU: they get the provider and device that they ask for, and compute what the CPU computes.

Skipped, with the reason, where there is no NVIDIA driver or GPU. Where there is one, a missing library fails the tests:
no engine falls back to the CPU and passes here.
"""

from functools import partial

import numpy as np
import pytest

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.coverage_cache import measured
from seatrial.optimize.environment import home
from seatrial.optimize.sessions.choice import EngineChoice
from seatrial.optimize.sessions.cuda import driver_missing
from seatrial.optimize.sessions.device import Device
from seatrial.optimize.sessions.engine import ENGINES, Bindable
from seatrial.optimize.sessions.on_ort_providers import CUDA
from seatrial.optimize.sessions.session import open_artifact, open_session
from tests.support.built import Built

LACKING = driver_missing(Device(kind="cuda"))
pytestmark = [
    pytest.mark.experimental("GPU"),
    pytest.mark.gpu,
    pytest.mark.skipif(LACKING is not None, reason=LACKING.what if LACKING else ""),
]
SIGNAL = np.random.default_rng(0).normal(size=(8, 1, 64)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(8, 1, 64)).astype(np.float32)
close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3)  # float32 without TF32; sums in another order


def artifact_for(engine: str, tiny: Built) -> Artifact:
    return tiny.build.source.artifact if engine.startswith("torch") else tiny.build.reference.artifact


@pytest.mark.parametrize(
    ("engine", "provider"),
    [
        ("onnxruntime-cuda", CUDA),
        ("torch", "torch"),
        ("torch-compile", "inductor"),
        ("torch-cuda-graph", "cuda-graph"),
    ],
)
def test_an_engine_runs_on_the_gpu_and_computes_what_the_cpu_does(tiny: Built, engine: str, provider: str) -> None:
    artifact = artifact_for(engine, tiny)
    found = open_artifact(artifact, tiny.store, engine=engine, device="cuda")
    assert (found.ran_on.engine, found.provider, found.device) == (engine, provider, "cuda:0")
    on_cpu = open_session(artifact, tiny.store)
    for given in (SIGNAL, OTHER, SIGNAL[:1]):
        expected = on_cpu.run({"signal": given})["logits"]
        close(found.session.run({"signal": given})["logits"], expected)


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "torch-cuda-graph"])
def test_bound_buffers_compute_what_was_written(tiny: Built, engine: str) -> None:
    artifact = artifact_for(engine, tiny)
    session, on_cpu = open_session(artifact, tiny.store, engine=engine), open_session(artifact, tiny.store)
    assert isinstance(session, Bindable)
    bound = session.bind({"signal": SIGNAL})
    close(bound.read()["logits"], on_cpu.run({"signal": SIGNAL})["logits"])
    bound.write({"signal": OTHER})
    for _ in range(3):
        bound.run()
    close(bound.read()["logits"], on_cpu.run({"signal": OTHER})["logits"])


def test_onnx_runtime_lists_the_nodes_that_cuda_left_to_the_cpu(tiny: Built) -> None:
    found = open_artifact(tiny.build.reference.artifact, tiny.store, engine="onnxruntime-cuda")
    graph = found.session._session.get_provider_graph_assignment_info()  # type: ignore[attr-defined]
    assert CUDA in {part.ep_name for part in graph}
    assert len(found.on_cpu) < sum(len(part.get_nodes()) for part in graph)


def test_coverage_counts_the_graph_that_cuda_runs(tiny: Built) -> None:
    found = measured(tiny.build.artifact, tiny.store, choice=EngineChoice(engine="onnxruntime-cuda"))
    assert CUDA in found.where
    assert found.device == "cuda:0"
    assert found.macs > 0


def test_the_tensorrt_provider_answers_and_leaves_its_caches(tiny: Built) -> None:
    lacking = ENGINES.get("onnxruntime-tensorrt").missing(Device(kind="cuda"))
    if lacking is not None:
        pytest.skip(f"{lacking.what} ({lacking.next_step})")
    artifact = tiny.build.reference.artifact
    found = open_artifact(artifact, tiny.store, engine="onnxruntime-tensorrt")
    assert found.provider == "TensorrtExecutionProvider"
    expected = open_session(artifact, tiny.store).run({"signal": SIGNAL})["logits"]
    np.testing.assert_allclose(found.session.run({"signal": SIGNAL})["logits"], expected, rtol=1e-2, atol=1e-2)
    assert list((home() / "cache" / "tensorrt").rglob("*.engine"))
