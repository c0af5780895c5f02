"""Tensors: a captured KServe v2 answer as arrays, whatever it was sent over: HTTP with binary tensors or JSON, or gRPC.

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


def _grpc(framed: bytes, encoding: str) -> Answer:

    from tritonclient.grpc import service_pb2

    size = int.from_bytes(framed[1:_GRPC_HEAD], "big")
    message = framed[_GRPC_HEAD : _GRPC_HEAD + size]
    if len(framed) < _GRPC_HEAD or len(message) != size:
        raise ValueError("the gRPC message is truncated")
    if framed[0] & 1:
        message = _unpacked(message, encoding)
    reply = service_pb2.ModelInferResponse()
    try:
        reply.ParseFromString(message)
    except import_module("google.protobuf.message").DecodeError as error:
        raise ValueError(str(error)) from error
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
