"""Requests as bytes, one encoder per wire: KServe v2 over HTTP with binary tensors, as JSON, or naming shared memory.

Pure; opens nothing and cuts no samples. gRPC messages need a protobuf library and are made in `on_grpc`.
Formats: https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

import json
from collections.abc import Mapping
from math import isfinite, prod
from typing import Any

import numpy as np

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError

from ..targets import DATATYPES, Endpoint
from .wire import Wire

Array = np.ndarray[Any, np.dtype[Any]]

ALIGNMENT = 64  # bytes; every tensor in shared memory starts at a multiple


def binary(endpoint: Endpoint, tensors: Mapping[str, Array]) -> bytes:
    """HTTP with binary tensors: the JSON part, then every tensor's bytes in its order; the outputs come back alike."""
    raw = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}
    inputs = [
        described(endpoint, name, tensor) | {"parameters": {"binary_data_size": len(raw[name])}}
        for name, tensor in tensors.items()
    ]
    outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in endpoint.outputs]
    part = _json({"inputs": inputs, "outputs": outputs})
    return _http(endpoint, part, b"".join(raw.values()), binary_part=True)


def text(endpoint: Endpoint, tensors: Mapping[str, Array]) -> bytes:
    """HTTP with the tensors as JSON numbers, as `curl` would send them.

    Raises:
        ConfigError: a tensor that JSON cannot carry: half precision, NaN or infinity, bytes that are no UTF-8.
    """
    if short := [spec.name for spec in endpoint.inputs if spec.dtype == "bfloat16"]:
        raise ConfigError(f"JSON cannot carry bfloat16, which input {short[0]!r} takes", next_step="use http or grpc")
    inputs = [described(endpoint, name, tensor) | {"data": _values(name, tensor)} for name, tensor in tensors.items()]
    outputs = [{"name": spec.name} for spec in endpoint.outputs]
    return _http(endpoint, _json({"inputs": inputs, "outputs": outputs}), b"", binary_part=False)


def naming_regions(
    endpoint: Endpoint,
    tensors: Mapping[str, Array],
    inputs: tuple[str, Mapping[str, tuple[int, int]]],
    outputs: tuple[str, Mapping[str, tuple[int, int]]],
) -> bytes:
    """HTTP whose tensors lie in registered regions: (region, {tensor: (offset, bytes)}); others come back as bytes."""
    asked = [
        {"name": spec.name, "parameters": _place(outputs[0], outputs[1][spec.name])}
        if spec.name in outputs[1]
        else {"name": spec.name, "parameters": {"binary_data": True}}
        for spec in endpoint.outputs
    ]
    given = [
        described(endpoint, name, tensor) | {"parameters": _place(inputs[0], inputs[1][name])}
        for name, tensor in tensors.items()
    ]
    return _http(endpoint, _json({"inputs": given, "outputs": asked}), b"", binary_part=True)


def output_bytes(spec: TensorSpec, batch: int) -> int | None:
    """The size of an output for `batch` samples; None where the model decides it while running."""
    shape = [batch if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(spec.shape)]
    if spec.dtype == "object" or spec.dtype == "bfloat16" or any(isinstance(size, str) for size in shape):
        return None
    return prod(int(size) for size in shape) * np.dtype(spec.dtype).itemsize


def bfloat16(values: Array) -> Array:
    """The bits of float32 values rounded to bfloat16 (ties to even), as uint16 of the same shape; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(bits: Array) -> Array:
    """The float32 values of bfloat16 bits, in the same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def item_bytes(dtype: str, protocol: Wire) -> int:
    """Bytes that one element takes while its request is made, at most or about; JSON makes a number an object first."""
    size = {"bfloat16": 2, "object": 64}.get(dtype) or np.dtype(dtype).itemsize
    return 64 if protocol == "json" else size


def described(endpoint: Endpoint, name: str, tensor: Array) -> dict[str, Any]:
    """A tensor's name, shape and KServe datatype."""
    dtype = next(spec.dtype for spec in endpoint.inputs if spec.name == name)
    return {"name": name, "shape": list(tensor.shape), "datatype": DATATYPES[dtype]}


def tensor_bytes(tensor: Array) -> bytes:
    """Little-endian C-order bytes; a BYTES tensor is each element's length (uint32) and bytes."""
    if tensor.dtype.kind in "OSU":
        elements = [each.encode() if isinstance(each, str) else each for each in tensor.ravel().tolist()]
        return b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    return np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).tobytes()


def _values(name: str, tensor: Array) -> list[Any]:
    """Return a tensor of any shape as the flat list of JSON values that a request carries."""
    if tensor.dtype == np.float16:
        raise ConfigError(f"JSON cannot carry half precision, which input {name!r} takes", next_step="use http or grpc")
    values = tensor.ravel().tolist()
    try:
        values = [each.decode() if isinstance(each, bytes) else each for each in values]
    except UnicodeDecodeError as error:
        raise ConfigError(f"JSON cannot carry bytes that are not UTF-8: input {name!r}") from error
    if tensor.dtype.kind == "f" and not all(isfinite(each) for each in values):
        raise ConfigError(f"JSON cannot carry NaN or infinity: input {name!r}", next_step="use http or grpc")
    return values


def _place(region: str, where: tuple[int, int]) -> dict[str, Any]:
    offset, size = where
    place: dict[str, Any] = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return place | {"shared_memory_offset": offset} if offset else place


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _http(endpoint: Endpoint, part: bytes, raw: bytes, *, binary_part: bool) -> bytes:
    """One whole HTTP/1.1 message."""
    kind = "application/octet-stream" if binary_part else "application/json"
    cut = f"Inference-Header-Content-Length: {len(part)}\r\n" if binary_part else ""
    head = (
        f"POST {endpoint.path}/infer HTTP/1.1\r\n"
        f"Host: {endpoint.url}\r\n"
        f"Content-Type: {kind}\r\n{cut}"
        f"Content-Length: {len(part) + len(raw)}\r\n\r\n"
    )
    return head.encode() + part + raw
