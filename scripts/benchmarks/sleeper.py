"""A real server whose model sleeps: one request at a time, each a known while, so that theory can say what it bears."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.serve.triton.running.on_pytriton import serving

CONFIG = """
name: "sleeper"
backend: "python"
max_batch_size: 16
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
MODEL = """
import time

import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        time.sleep(SECONDS)
        return utils.InferenceResponse([utils.Tensor("y", utils.get_input_tensor_by_name(request, "x").as_numpy())])
"""


@contextmanager
def sleeper(folder: Path, seconds: float) -> Iterator[Endpoint]:
    """The server for the length of a block; its repository lies in `folder`."""
    model = folder / "repository" / "sleeper"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL.replace("SECONDS", str(seconds)))
    with serving(folder / "repository", ("sleeper",)) as server:
        yield endpoint_of(server.url, "sleeper")
