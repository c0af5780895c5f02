"""Tensors: a captured KServe v2 request or answer as arrays, sent over HTTP with binary tensors or JSON, or over gRPC.

Decodes and compares nothing. Formats: https://github.com/kserve/kserve/tree/master/docs/predict-api/v2
"""

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from seatrial.bench.errors import AnswerError
from seatrial.bench.quality.served import decoded, tensor
from seatrial.bench.targets import DTYPES

Array = np.ndarray[Any, np.dtype[Any]]

_GRPC_HEAD = 5  # one byte of flags, four of length
_MOST = 1 << 28  # bytes that a compressed answer may unpack to


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer of one version of a model, by output; the version is the one that the server reports."""

    model: str
    version: int
    outputs: Mapping[str, Array]


def answer(
    body: bytes,
    *,
    content_type: str = "",
    content_encoding: str = "",
    grpc_encoding: str = "",
    header_length: str | None = None,
) -> Answer:
    """Decode one answer as it went over the wire, with the headers that say how.

    Raises:
        AnswerError: it is not a KServe v2 answer, or was cut short.
    """
    try:
        if content_type.startswith("application/grpc"):
            return _grpc(body, grpc_encoding)
        body = _unpacked(body, content_encoding)
        head = json.loads(body[: int(header_length)] if header_length else body)
        outputs = decoded(body, header_length)
        return Answer(model=str(head["model_name"]), version=int(head["model_version"]), outputs=outputs)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error) as error:
        raise AnswerError(
            f"the answer is not valid KServe v2: {error}", next_step="check the server behind the proxy"
        ) from error


def request(
    body: bytes,
    *,
    content_type: str = "",
    content_encoding: str = "",
    grpc_encoding: str = "",
    header_length: str | None = None,
) -> dict[str, Array]:
    """Decode the inputs of one request as it went over the wire, with the headers that say how.

    Raises:
        AnswerError: it is not a KServe v2 request, was cut short, or names tensors in shared memory.
    """
    try:
        if content_type.startswith("application/grpc"):
            return _grpc_inputs(body, grpc_encoding)
        body = _unpacked(body, content_encoding)
        length = int(header_length) if header_length else len(body)
        head = json.loads(body[:length])
        # The same document as an answer, but for the name of its list.
        again = json.dumps({"outputs": head["inputs"]}).encode()
        return decoded(again + body[length:], str(len(again)))
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error) as error:
        raise AnswerError(f"the request is not valid KServe v2: {error}", next_step="check the client") from error


def _grpc_inputs(framed: bytes, encoding: str) -> dict[str, Array]:
    from tritonclient.grpc import service_pb2

    asked = service_pb2.ModelInferRequest()
    _parsed(asked, framed, encoding)
    if asked.raw_input_contents:
        pairs = zip(asked.inputs, asked.raw_input_contents, strict=True)
        return {each.name: tensor(each.datatype, tuple(each.shape), raw) for each, raw in pairs}
    return {each.name: _typed(each) for each in asked.inputs}


def _typed(each: Any) -> Array:
    """Return a tensor of a gRPC message whose elements stand in the field of their type."""
    elements = [value for _, values in each.contents.ListFields() for value in values]
    return np.array(elements, dtype=np.dtype(DTYPES[each.datatype])).reshape(tuple(each.shape))


def _parsed(message: Any, framed: bytes, encoding: str) -> None:
    """Read a gRPC frame into the message."""
    size = int.from_bytes(framed[1:_GRPC_HEAD], "big")
    content = framed[_GRPC_HEAD : _GRPC_HEAD + size]
    if len(framed) < _GRPC_HEAD or len(content) != size:
        raise ValueError("the gRPC message is truncated")
    if framed[0] & 1:
        content = _unpacked(content, encoding)
    try:
        message.ParseFromString(content)
    except import_module("google.protobuf.message").DecodeError as error:
        raise ValueError(str(error)) from error


def _grpc(framed: bytes, encoding: str) -> Answer:
    from tritonclient.grpc import service_pb2

    reply = service_pb2.ModelInferResponse()
    _parsed(reply, framed, encoding)
    if len(reply.outputs) != len(reply.raw_output_contents):
        raise ValueError("the outputs have no raw contents")
    pairs = zip(reply.outputs, reply.raw_output_contents, strict=True)
    outputs = {each.name: tensor(each.datatype, tuple(each.shape), raw) for each, raw in pairs}
    return Answer(model=reply.model_name, version=int(reply.model_version), outputs=outputs)


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ValueError(f"unknown content encoding {encoding!r}")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by its own header
    plain = unpacker.decompress(body, _MOST)
    if not unpacker.eof:
        raise gzip.BadGzipFile("truncated, or larger than the capture limit")
    return plain
