"""Four other servers for the same ONNX model: what each needs installed, its program, and its request. Texts mostly.

Each gets ONNX Runtime with one thread, batches of up to 32 (as many as there are connections, so that a full one need
not wait) and two milliseconds to fill one, as does Triton beside them; BentoML adapts its wait by itself.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scripts.benchmarks.closed_loop import post
from seatrial.bench.load import messages
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

_SESSION = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
def opened(model):
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
"""

_PYTRITON = (
    _SESSION
    + """
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
model, port, item = sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3].split(",")))
session = opened(model)

@batch
def infer(x):
    return {"y": session.run(["y"], {"x": x})[0]}

config = TritonConfig(
    http_address="127.0.0.1", http_port=port, grpc_address="127.0.0.1", grpc_port=port + 1, allow_metrics=False
)
with Triton(config=config) as triton:
    triton.bind(
        model_name="served",
        infer_func=infer,
        inputs=[Tensor(name="x", dtype=np.float32, shape=item)],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(10,))],
        config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=2000)),
    )
    triton.serve()
"""
)

_LITSERVE = (
    _SESSION
    + """
import litserve
model, port = sys.argv[1], int(sys.argv[2])

class Served(litserve.LitAPI):
    def setup(self, device):
        self.session = opened(model)
    def decode_request(self, request):
        return np.asarray(request["x"], np.float32)
    def batch(self, inputs):
        return np.stack(inputs)
    def predict(self, x):
        return self.session.run(["y"], {"x": x})[0]
    def unbatch(self, output):
        return list(output)
    def encode_response(self, output):
        return {"y": output.tolist()}

if __name__ == "__main__":
    server = litserve.LitServer(Served(max_batch_size=32, batch_timeout=0.002), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning")
"""
)

_BENTOML = (
    _SESSION
    + """
import os
import bentoml
from numpy.typing import NDArray

@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Served:
    def __init__(self):
        self.session = opened(os.environ["PEER_ONNX"])
    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def infer(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["y"], {"x": x.astype(np.float32)})[0]
"""
)

_MLSERVER = (
    _SESSION
    + """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Served(MLModel):
    async def load(self):
        self.session = opened(self.settings.parameters.extra["model"])
        return True
    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.session.run(["y"], {"x": np.asarray(x, np.float32)})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server: `installs` for pip (nothing: our own environment has it), files to write, command, one request.

    In `files` and `command`, PORT, MODEL and ITEM stand for what they say; PYTHON and BIN are its environment's.
    """

    name: str
    installs: tuple[str, ...]
    files: dict[str, str]
    command: tuple[str, ...]
    request: Callable[[str, Array], bytes]
    bars: tuple[float, float]
    """How many times faster Triton must be: tiny model, memory-bound model."""


def binary(address: str, sample: Array) -> bytes:
    """KServe v2 with binary tensors: what Triton and PyTriton speak."""
    endpoint = Endpoint(
        url=address,
        model="served",
        version="1",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", *sample.shape)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 10)),),
    )
    return messages.binary(endpoint, {"x": sample[np.newaxis]})


def _json(address: str, path: str, content: Any) -> bytes:
    return post(address, path, json.dumps(content).encode(), ["Content-Type: application/json"])


def _v2_text(address: str, sample: Array) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *sample.shape], "data": sample.ravel().tolist()}
    return _json(address, "/v2/models/served/infer", {"inputs": [tensor]})


_SETTINGS = {
    "host": "127.0.0.1",
    "http_port": "PORT",
    "grpc_port": "PORT1",
    "metrics_endpoint": None,
    "debug": False,  # else a line in its log for every request
    "parallel_workers": 0,  # with 1 its worker does not start under Python 3.11
}
_MODEL = {
    "name": "served",
    "implementation": "served.Served",
    "max_batch_size": 32,
    "max_batch_time": 0.002,
    "parameters": {"extra": {"model": "MODEL"}},
}

PEERS = (
    Peer(
        name="PyTriton",
        installs=(),
        files={"served.py": _PYTRITON},
        command=("PYTHON", "served.py", "MODEL", "PORT", "ITEM"),
        request=binary,
        bars=(4.3, 1.9),
    ),
    Peer(
        name="MLServer",
        installs=("mlserver==1.7.1", "onnxruntime", "numpy"),
        files={
            "served.py": _MLSERVER,
            "settings.json": json.dumps(_SETTINGS).replace('"PORT"', "PORT").replace('"PORT1"', "PORT1"),
            "model-settings.json": json.dumps(_MODEL),
        },
        command=("BIN/mlserver", "start", "."),
        request=_v2_text,
        bars=(5.5, 2.3),
    ),
    Peer(
        name="LitServe",
        installs=("litserve==0.2.19", "onnxruntime", "numpy"),
        files={"served.py": _LITSERVE},
        command=("PYTHON", "served.py", "MODEL", "PORT"),
        request=lambda address, sample: _json(address, "/predict", {"x": sample.tolist()}),
        bars=(8.9, 2.1),
    ),
    Peer(
        name="BentoML",
        installs=("bentoml==1.4.39", "onnxruntime", "numpy"),
        files={"served.py": _BENTOML},
        command=("BIN/bentoml", "serve", "served:Served", "--host", "127.0.0.1", "--port", "PORT"),
        request=lambda address, sample: _json(address, "/infer", {"x": [sample.tolist()]}),
        bars=(11.0, 3.9),
    ),
)
