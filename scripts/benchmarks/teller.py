"""A real server whose models tell their own version, and clients that ask it over HTTP and gRPC.

``teller`` has versions 1 to 3 and ``small`` version 1. Input ``x`` is (milliseconds to sleep, failure), which the small
model does not heed; the answer is (version, 1 for the small model). Failures: 1 every version (503), 10 + N version N
alone, 20 + N version N refuses it (400), 30 + N version N's process ends.
"""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.serve.traffic.edge import Server as Upstream
from seatrial.serve.triton.running.on_pytriton import serving
from seatrial.serve.triton.server import Server

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 0
input [{{ name: "x" data_type: TYPE_INT32 dims: [ 2 ] }}]
output [{{ name: "y" data_type: TYPE_INT32 dims: [ 2 ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
version_policy {{ all {{ }} }}
"""
MODEL = """
import os
import time

import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        self.told = np.array([int(args["model_version"]), args["model_name"] == "small"], dtype=np.int32)

    def execute(self, requests):
        return [self.answer(*utils.get_input_tensor_by_name(request, "x").as_numpy().tolist()) for request in requests]

    def answer(self, sleep, fail):
        if self.told[1]:
            return utils.InferenceResponse([utils.Tensor("y", self.told)])
        time.sleep(sleep / 1000)
        version = self.told[0]
        if fail == 20 + version:
            return utils.InferenceResponse(error=utils.TritonError("refused", utils.TritonError.INVALID_ARG))
        if fail == 30 + version:
            os._exit(1)
        if fail in (1, 10 + version):
            return utils.InferenceResponse(error=utils.TritonError("asked to fail", utils.TritonError.UNAVAILABLE))
        return utils.InferenceResponse([utils.Tensor("y", self.told)])
"""
VERSIONS = {"teller": (1, 2, 3), "small": (1,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer: status (HTTP's, or gRPC's), what the model said of itself, and what the edge said of it."""

    status: int
    version: int = 0
    small: bool = False
    labelled: str = ""
    id: str = ""


@contextmanager
def telling(folder: Path, models: tuple[str, ...] = ("teller", "small")) -> Iterator[Server]:
    """The server for the length of a block; its repository lies in `folder`."""
    for name in models:
        for version in VERSIONS[name]:
            (folder / "repository" / name / str(version)).mkdir(parents=True)
            (folder / "repository" / name / str(version) / "model.py").write_text(MODEL)
        (folder / "repository" / name / "config.pbtxt").write_text(CONFIG.format(name=name))
    with serving(folder / "repository", models) as server:
        yield server


def upstream(server: Server) -> Upstream:
    """Return the server as an edge names it."""
    return Upstream(http=server.url, grpc=server.grpc_url)


class Http:
    """One keep-alive connection over HTTP."""

    def __init__(self, url: str, *, timeout: float = 30.0, context: ssl.SSLContext | None = None) -> None:
        self._connection = (
            http.client.HTTPSConnection(url, timeout=timeout, context=context)
            if context is not None
            else http.client.HTTPConnection(url, timeout=timeout)
        )

    def ask(
        self,
        model: str = "teller",
        *,
        version: int = 0,
        sleep: int = 0,
        fail: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """One inference; a connection that the edge closed is opened anew."""
        tensor = {"name": "x", "datatype": "INT32", "shape": [2], "data": [sleep, int(fail)]}
        body = json.dumps({"inputs": [tensor]})
        at = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        self._connection.request("POST", at, body, {"content-type": "application/json", **(headers or {})})
        answer = self._connection.getresponse()
        content = answer.read()
        said = json.loads(content)["outputs"][0]["data"] if answer.status == 200 else (0, 0)
        return Told(
            status=answer.status,
            version=said[0],
            small=bool(said[1]),
            labelled=answer.headers.get("x-model-version", ""),
            id=answer.headers.get("x-request-id", ""),
        )

    def get(self, path: str) -> int:
        """The status of a GET."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Grpc:
    """One channel over gRPC."""

    def __init__(self, url: str) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(url, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._types, self._error = service_pb2, grpc.RpcError

    def ask(
        self,
        model: str = "teller",
        *,
        version: int = 0,
        sleep: int = 0,
        fail: int = 0,
        headers: Mapping[str, str] | None = None,
        compression: Any = None,
        padding: int = 0,
    ) -> Told:
        """One inference; `padding` bytes are added to the message as a parameter."""
        tensor = self._types.ModelInferRequest.InferInputTensor(name="x", datatype="INT32", shape=[2])
        tensor.contents.int_contents.extend([sleep, int(fail)])
        request = self._types.ModelInferRequest(
            model_name=model, model_version=str(version or ""), id="a", inputs=[tensor]
        )
        if padding:
            request.parameters["padding"].string_param = "p" * padding
        try:
            answer, call = self._stub.ModelInfer.with_call(
                request, timeout=30.0, metadata=tuple((headers or {}).items()), compression=compression
            )
        except self._error as error:
            return Told(status=error.code().value[0])
        about = dict(call.initial_metadata())
        said = memoryview(answer.raw_output_contents[0]).cast("i")
        return Told(
            status=0,
            version=said[0],
            small=bool(said[1]),
            labelled=str(about.get("x-model-version", "")),
            id=str(about.get("x-request-id", "")),
        )

    def about(self, model: str = "teller") -> str:
        """The version that answers for a model's metadata."""
        answer = self._stub.ModelMetadata(self._types.ModelMetadataRequest(name=model), timeout=10.0)
        return ",".join(answer.versions)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
