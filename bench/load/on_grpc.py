"""KServe v2 over gRPC: messages serialised once, raw bytes in and out, one channel for all connections of a process.

Knows protobuf and channels; keeps no times. Under gevent the caller switches gRPC over first (`under_gevent`).
"""

from collections.abc import Mapping

import grpc

from ..targets import Endpoint
from .messages import Array, described, tensor_bytes
from .wire import REASON_BYTES, Address

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_UNBOUNDED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

# google.rpc.Code's own mapping to HTTP, so that one table of failures serves every wire.
_HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_BROKEN = ("connect", "socket", "goaway", "recvmsg", "sendmsg", "pipe", "end of tcp stream", "transport")


def message(endpoint: Endpoint, tensors: Mapping[str, Array]) -> bytes:
    """A serialised ModelInferRequest with raw contents."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=endpoint.model, model_version=endpoint.version)
    for name, tensor in tensors.items():
        request.inputs.add(**described(endpoint, name, tensor))
        request.raw_input_contents.append(tensor_bytes(tensor))
    for spec in endpoint.outputs:
        request.outputs.add(name=spec.name)
    serialised: bytes = request.SerializeToString()
    return serialised


def under_gevent() -> None:
    """Let gRPC wait in gevent's loop; before the first channel of the process."""
    import grpc.experimental.gevent

    grpc.experimental.gevent.init_gevent()


def channel(address: Address) -> grpc.Channel:
    """An unencrypted channel; connects with its first call."""
    host, port = address
    return grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", options=_UNBOUNDED)


class GrpcConnection:
    """One caller of a shared channel: gRPC itself connects, and connects again."""

    __slots__ = ("_call",)

    def __init__(self, shared: grpc.Channel) -> None:
        self._call = shared.unary_unary(_METHOD)

    def open(self) -> None:
        """Nothing to do: the channel connects with its next call."""

    def close(self) -> None:
        """Nothing to do: the channel is everybody's, and ends with the process."""

    def exchange(self, request: bytes) -> tuple[int, str]:
        """Send one message; the status as HTTP would say it, and the server's words where it is not 200.

        Raises:
            OSError: the connection broke, or nobody answers.
        """
        try:
            self._call(request)
        except grpc.RpcError as error:
            said = str(error.details() or "")
            if error.code() == grpc.StatusCode.UNAVAILABLE and any(word in said.lower() for word in _BROKEN):
                raise ConnectionError(said[:REASON_BYTES]) from error
            return _HTTP.get(error.code(), 500), f"{error.code().name}: {said}"[:REASON_BYTES]
        return 200, ""
