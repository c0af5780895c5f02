"""Entries of Envoy's access log stream: what one sampled request and its answer were, off the protobuf wire.

Pure, and reads only the fields that are used. Messages: ``envoy/service/accesslog/v3/als.proto`` and
``envoy/data/accesslog/v3/accesslog.proto``; https://protobuf.dev/programming-guides/encoding/ is the encoding.
"""

import base64
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .recording import BODIES, FACTS

WHOLE = "whole"
_CLUSTER = re.compile(r"(.+)_v(\d+)(?:_grpc)?")
_HTTP_LOGS, _ENTRY = 2, 1
_COMMON, _RESPONSE = 1, 4
_START, _UPSTREAM, _METADATA, _DURATION = 5, 15, 17, 23
_CODE, _HEADERS, _TRAILERS, _DETAILS = 1, 4, 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A body as it went over the wire. `kept` is "whole", or why `content` is empty: "too large", "over budget", ""."""

    kept: str = ""
    content: bytes = b""
    content_type: str = ""
    content_encoding: str = ""
    grpc_encoding: str = ""
    header_length: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One sampled request. `version` is None where no server took it; `at` is in seconds since 1970.

    `details` is the proxy's word for how the answer came about. `sequence` counts what `worker` sampled, from 1.
    """

    id: str
    model: str
    version: int | None
    at: float
    seconds: float
    status: int
    grpc_status: str
    details: str
    worker: str
    sequence: int
    asked: Body
    answered: Body


def exchanges(message: bytes) -> list[Exchange]:
    """Return the sampled requests of one message of the stream.

    Raises:
        ValueError: it is no such message.
    """
    logs = [part for number, part in _fields(message) if number == _HTTP_LOGS and isinstance(part, bytes)]
    entries = [part for each in logs for number, part in _fields(each) if number == _ENTRY and isinstance(part, bytes)]
    return [found for entry in entries if (found := _exchange(_parts(entry))) is not None]


def _exchange(entry: Mapping[int, list[bytes]]) -> Exchange | None:
    common = _parts(_last(entry, _COMMON))
    response = _parts(_last(entry, _RESPONSE))
    filters = _map(_parts(_last(common, _METADATA)).get(1, []))
    facts = _strings(filters.get(FACTS, b""))
    if "id" not in facts:
        return None
    bodies = _strings(filters.get(BODIES, b""))
    headers = _texts(response.get(_HEADERS, []))
    cluster = _CLUSTER.fullmatch(_last(common, _UPSTREAM).decode(errors="replace"))
    code = _number(_last(response, _CODE), 1)
    return Exchange(
        id=facts["id"],
        model=facts.get("model", ""),
        version=int(cluster[2]) if cluster else None,
        at=_seconds(_last(common, _START)),
        seconds=_seconds(_last(common, _DURATION)),
        status=code,
        grpc_status=_texts(response.get(_TRAILERS, [])).get("grpc-status", headers.get("grpc-status", "")),
        details=_last(response, _DETAILS).decode(errors="replace"),
        worker=facts.get("worker", ""),
        sequence=int(facts.get("sequence") or 0),
        asked=_body(facts, facts.get("request", ""), bodies.get("request", "")),
        answered=_body(headers, facts.get("answer", ""), bodies.get("answer", "")),
    )


def _body(headers: Mapping[str, str], kept: str, content: str) -> Body:
    return Body(
        kept=kept,
        content=base64.b64decode(content, validate=True),
        content_type=headers.get("content-type", ""),
        content_encoding=headers.get("content-encoding", ""),
        grpc_encoding=headers.get("grpc-encoding", ""),
        header_length=headers.get("inference-header-content-length", ""),
    )


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message in order: numbers as they are, everything else as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(message):
            raise ValueError("the message is truncated, or no message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number has no end")


def _parts(message: bytes) -> dict[int, list[bytes]]:
    """Return the fields that are bytes, by number."""
    found: dict[int, list[bytes]] = {}
    for number, value in _fields(message):
        if isinstance(value, bytes):
            found.setdefault(number, []).append(value)
    return found


def _last(parts: Mapping[int, list[bytes]], number: int) -> bytes:
    return parts.get(number, [b""])[-1]


def _number(message: bytes, number: int) -> int:
    values = [value for each, value in _fields(message) if each == number and isinstance(value, int)]
    return values[-1] if values else 0


def _seconds(message: bytes) -> float:
    """Return a timestamp or a duration: whole seconds and nanoseconds."""
    return _number(message, 1) + _number(message, 2) / 1e9


def _map(entries: list[bytes]) -> dict[str, bytes]:
    """Return a protobuf map of messages."""
    found = [_parts(each) for each in entries]
    return {_last(each, 1).decode(errors="replace"): _last(each, 2) for each in found}


def _texts(entries: list[bytes]) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in _map(entries).items()}


def _strings(struct_: bytes) -> dict[str, str]:
    """Return the texts of a ``google.protobuf.Struct``; a number becomes text, everything else is left out."""
    found = {}
    for name, value in _map(_parts(struct_).get(1, [])).items():
        parts = _parts(value)
        if 3 in parts:
            found[name] = parts[3][-1].decode(errors="replace")
        elif 2 in parts:
            found[name] = f"{struct.unpack('<d', parts[2][-1])[0]:g}"
    return found
