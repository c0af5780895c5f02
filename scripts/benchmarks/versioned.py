"""A model whose answer names its version, placed by hand in as many versions as wanted, some of them broken on purpose.

Whoever asks version 2 and hears 1 was answered by the wrong one. Each version's directory has the record that `place`
writes, so that switches take it for placed.
"""

from pathlib import Path

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.serve.triton.repository.placement import RECORD
from seatrial.serve.triton.repository.version_files import digests

NAME = "versioned"
CONFIG = """
name: "versioned"
backend: "python"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
version_policy { specific { versions: 1 } }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
"""
MODEL = """
import numpy
import triton_python_backend_utils as utils
BEFORE

class TritonPythonModel:
    def initialize(self, args):
        self.version = float(args["model_version"])
        INITIALIZE

    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(each, "x").as_numpy()) for each in requests]

    def answer(self, asked):
        answer = numpy.full((asked.shape[0], 1), self.version, numpy.float32)
        EXECUTE
        return utils.InferenceResponse([utils.Tensor("y", answer)])
"""


def put(repository: Path, version: int, *, before: str = "", initialize: str = "", execute: str = "") -> Path:
    """Write one version, with statements of your own before the class, at the end of loading, and in each answer."""
    model = repository / NAME
    folder = model / str(version)
    folder.mkdir(parents=True)
    if not (model / "config.pbtxt").exists():
        (model / "config.pbtxt").write_text(CONFIG)
    text = MODEL.replace("BEFORE", before).replace("INITIALIZE", initialize or "pass")
    (folder / "model.py").write_text(text.replace("EXECUTE", execute or "pass"))
    (folder / "__pycache__").write_bytes(b"no bytecode\n")
    record = {"schema": 1, "name": NAME, "version": version, "backend": "python"}
    digest = digest_bytes((folder / "model.py").read_bytes() + str(version).encode())
    (folder / RECORD).write_bytes(canonical({**record, "digest": digest, "files": digests(folder)}))
    return folder
