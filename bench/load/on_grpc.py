"""KServe v2 messages for gRPC, serialised once; what sends them is `grpc_wire`. Knows protobuf and no connection."""

from collections.abc import Mapping

from tritonclient.grpc import service_pb2

from ..targets import Endpoint
from .messages import Array, described, tensor_bytes


def message(endpoint: Endpoint, tensors: Mapping[str, Array]) -> bytes:
    """A serialised ModelInferRequest with raw contents; tensors have the shapes that they are sent with."""
    request = service_pb2.ModelInferRequest(model_name=endpoint.model, model_version=endpoint.version)
    for name, tensor in tensors.items():
        request.inputs.add(**described(endpoint, name, tensor))
        request.raw_input_contents.append(tensor_bytes(tensor))
    for spec in endpoint.outputs:
        request.outputs.add(name=spec.name)
    serialised: bytes = request.SerializeToString()
    return serialised
