"""A Triton model that returns its input and refuses negative values, and a real server that serves two of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from seatrial.serve.triton.running.on_pytriton import serving
from seatrial.serve.triton.server import Server

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 16
input [{{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
MODEL = """
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        if (x < 0).any():
            return utils.InferenceResponse(error=utils.TritonError("negative values are refused"))
        return utils.InferenceResponse([utils.Tensor("y", x)])
"""


@contextmanager
def echoing(folder: Path) -> Iterator[Server]:
    """The server, with the models ``echo`` and ``echo2``, for the length of a block."""
    for name in ("echo", "echo2"):
        (folder / "repository" / name / "1").mkdir(parents=True)
        (folder / "repository" / name / "config.pbtxt").write_text(CONFIG.format(name=name))
        (folder / "repository" / name / "1" / "model.py").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with serving(folder / "repository", ["echo", "echo2"]) as server:
            yield server


def samples(count: int = 10) -> dict[str, npt.NDArray[np.float32]]:
    """Its input: float32[count, 4] in [0, 1)."""
    return {"x": np.random.default_rng(0).random((count, 4), dtype=np.float32)}
