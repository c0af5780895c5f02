"""The CUDA paths; skipped, with the reason, where there is no NVIDIA GPU."""

import numpy as np
import pytest

from seatrial.optimize.environment import environment
from seatrial.optimize.sessions.on_ort import OrtSession
from tests.support.built import Built

pytestmark = [
    pytest.mark.experimental("GPU"),
    pytest.mark.gpu,
    pytest.mark.skipif(not environment().gpus, reason="no NVIDIA GPU on this machine (nvidia-smi lists none)"),
]


def test_the_float_reference_answers_on_cuda_as_on_the_cpu(tiny: Built) -> None:
    path = tiny.store.path(tiny.build.reference.artifact, "model.onnx")
    signal = np.random.default_rng(0).normal(size=(8, 1, 64)).astype(np.float32)
    on_cpu = OrtSession(path).run({"signal": signal})["logits"]
    session = OrtSession(path, providers=("CUDAExecutionProvider",))
    assert session.provider == "CUDAExecutionProvider", f"ONNX Runtime fell back to {session.provider}"
    on_cuda = session.run({"signal": signal})["logits"]
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-2, atol=1e-2)  # CUDA convolutions may use TF32
