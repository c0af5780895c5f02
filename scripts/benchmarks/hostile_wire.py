"""Sends an attack and reads what comes back: each response with its status, its labels and what the model says.

One socket for each attack, bounded in time. Reads HTTP/1 and HTTP/2; judges nothing (`hostile_verdict`).
"""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from scripts.benchmarks.hostile import Hostile
from seatrial.bench.load import http2

LONGEST = 12.0  # seconds until a request that must end has to have ended
QUIET = 0.6  # seconds without a byte after which nothing more is expected of an unfinished request
_MOST = 4 << 20  # bytes of responses that are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response. `label` and `model` are the edge's headers, `said_model` and `said` what the server itself says.

    `grpc` is the gRPC status, None over HTTP.
    """

    status: int
    grpc: int | None = None
    label: str = ""
    model: str = ""
    said: str = ""
    said_model: str = ""
    id: str = ""
    size: int = 0

    @property
    def served(self) -> bool:
        """Return whether the request was carried out."""
        return 200 <= self.status < 300 and self.grpc in (None, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one attack, times in Unix seconds; `ended` is the reason why reading stopped."""

    number: int
    began: float
    seconds: float
    ended: Literal["answered", "closed", "reset", "silent", "unreachable"]
    responses: tuple[Response, ...] = ()
    received: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Outcome":
        """Return the counterpart of `to_json`."""
        return Outcome(**{**value, "responses": tuple(Response(**each) for each in value["responses"])})


def perform(attack: Hostile, port: int, *, number: int = 0, longest: float = LONGEST) -> Outcome:
    """Carry out one attack against the edge on that port of this machine."""
    began = time.time()
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=5.0)
    except OSError:
        return Outcome(number=number, began=began, seconds=time.time() - began, ended="unreachable")
    reader = _Reader(connection, attack)
    try:
        ended = _exchange(connection, attack, reader, longest)
    finally:
        with suppress(OSError):
            connection.close()
    responses = tuple(responses_of(attack, bytes(reader.content)))
    seconds = time.time() - began
    return Outcome(
        number=number, began=began, seconds=seconds, ended=ended, responses=responses, received=len(reader.content)
    )


Ended = Literal["answered", "closed", "reset", "silent", "unreachable"]


@dataclass(slots=True)
class _Reader:
    """Reader of one attack's response: `content` holds the bytes received so far."""

    connection: socket.socket
    attack: Hostile
    content: bytearray = field(default_factory=bytearray)
    over: Ended | None = None

    def read(self, seconds: float) -> bool:
        """Read what comes within that time, or until the connection ends; whether anything came."""
        if self.over is not None or not select.select([self.connection], [], [], max(seconds, 0.0))[0]:
            return False
        try:
            part = self.connection.recv(1 << 16)
        except OSError:
            self.over = "reset"
            return False
        if not part:
            self.over = "closed"
        elif len(self.content) < _MOST:
            self.content += part
        return bool(part)


def _exchange(connection: socket.socket, attack: Hostile, reader: _Reader, longest: float) -> Ended:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    until = time.monotonic() + longest + attack.seconds
    for step in attack.program:
        if isinstance(step, float):
            pause = time.monotonic() + step
            while (left := pause - time.monotonic()) > 0 and reader.over is None:
                reader.read(left)
        elif not _send(connection, step, reader, until):
            break
    if attack.after != "wait":
        return _leave(connection, attack, reader)
    while reader.over is None:
        if time.monotonic() > until:
            return "silent"
        done = _complete(attack, bytes(reader.content))
        if done and attack.ends:
            return "answered"  # nothing was hidden behind this request
        if not reader.read(QUIET if not attack.ends else until - time.monotonic()) and reader.over is None:
            if done:
                return "answered"
            if not attack.ends and time.monotonic() > until - longest / 2:
                return "silent"
    return "answered" if _complete(attack, bytes(reader.content)) else reader.over


def _send(connection: socket.socket, content: bytes, reader: _Reader, until: float) -> bool:
    """Send all of it while reading, so that neither side waits for the other; whether it went out."""
    view, at = memoryview(content), 0
    connection.setblocking(False)
    try:
        while at < len(view):
            left = until - time.monotonic()
            readable, writable, _ = select.select([connection], [connection], [], max(0.0, min(left, 1.0)))
            if readable and not reader.read(0.0):
                return False
            if writable:
                at += connection.send(view[at : at + (1 << 16)])
            if left <= 0:
                return False
    except OSError:
        while reader.read(0.05):
            pass
        reader.over = reader.over or "reset"
        return False
    finally:
        connection.setblocking(True)
    return True


def _leave(connection: socket.socket, attack: Hostile, reader: _Reader) -> Ended:
    while reader.over is None and reader.read(0.0):
        pass
    ended = reader.over or ("answered" if _complete(attack, bytes(reader.content)) else "silent")
    if attack.after == "reset":
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return ended


def _complete(attack: Hostile, content: bytes) -> bool:
    """Return whether the response that is waited for is there."""
    if attack.protocol == "http" or not _is_http2(content):
        return any(True for _ in _http(content))
    if not attack.streams:
        return False
    frames, _ = http2.split(content)
    over = {
        each.stream
        for each in frames
        if each.kind == http2.RST_STREAM or (each.kind in (http2.DATA, http2.HEADERS) and each.flags & http2.END_STREAM)
    }
    return over >= set(attack.streams) or any(each.kind == http2.GOAWAY for each in frames)


def _is_http2(content: bytes) -> bool:
    """Return whether the edge answers in frames: the first one is of settings."""
    return content[:1] == b"\x00" and content[3:4] == bytes((http2.SETTINGS,))


def responses_of(attack: Hostile, content: bytes) -> Iterator[Response]:
    """Yield the responses in what was received."""
    if attack.protocol == "http" or not _is_http2(content):
        for status, headers, body in _http(content):
            yield _of_http(status, headers, body)
        return
    yield from _of_streams(content)


def _http(content: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Yield status, headers and body of each whole HTTP/1 response; interim ones are left out."""
    at = 0
    while (end := content.find(b"\r\n\r\n", at)) >= 0:
        first, *lines = content[at:end].split(b"\r\n")
        parts = first.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1") or not parts[1].isdigit():
            return
        status, at = int(parts[1]), end + 4
        pairs = (line.partition(b":") for line in lines)
        headers = {name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, _, value in pairs}
        if 100 <= status < 200 and status != 101:
            continue
        if headers.get("transfer-encoding") == "chunked":
            body, at = _chunks(content, at)
        else:
            size = int(headers.get("content-length", "0") or 0)
            body, at = content[at : at + size], at + size
        if at > len(content):
            return
        yield status, headers, body


def _chunks(content: bytes, at: int) -> tuple[bytes, int]:
    found, nowhere = b"", len(content) + 1
    while (end := content.find(b"\r\n", at)) >= 0:
        try:
            size = int(content[at:end].split(b";")[0], 16)
        except ValueError:
            return found, nowhere
        found, at = found + content[end + 2 : end + 2 + size], end + 4 + size
        if size == 0:
            return found, at
    return found, nowhere


def _of_http(status: int, headers: Mapping[str, str], body: bytes) -> Response:
    said: Any = {}
    if status == 200:
        text = body[: int(headers["inference-header-content-length"])] if _binary(headers) else body
        with suppress(ValueError):
            said = json.loads(text)
    said = said if isinstance(said, dict) else {}
    return Response(
        status=status,
        label=headers.get("x-model-version", ""),
        model=headers.get("x-model", ""),
        said=str(said.get("model_version", "")),
        said_model=str(said.get("model_name", "")),
        id=headers.get("x-request-id", ""),
        size=len(body),
        grpc=int(code) if (code := headers.get("grpc-status", "")).isdigit() else None,
    )


def _binary(headers: Mapping[str, str]) -> bool:
    return headers.get("inference-header-content-length", "").isdigit()


def _of_streams(content: bytes) -> Iterator[Response]:
    heads: dict[int, dict[str, str]] = {}
    bodies: dict[int, bytes] = {}
    blocks: dict[int, bytes] = {}
    for each in http2.split(content)[0]:
        if each.kind in (http2.HEADERS, http2.CONTINUATION):
            blocks[each.stream] = blocks.get(each.stream, b"") + each.payload
            if each.flags & http2.END_HEADERS:
                with suppress(ValueError):
                    pairs = http2.fields(blocks.pop(each.stream))
                    heads.setdefault(each.stream, {}).update(
                        (n.decode("latin-1"), v.decode("latin-1")) for n, v in pairs
                    )
        elif each.kind == http2.DATA:
            bodies[each.stream] = bodies.get(each.stream, b"") + each.payload
    for stream, head in heads.items():
        body = bodies.get(stream, b"")
        status = int(head.get(":status", "0"))
        if head.get("content-type", "").startswith("application/grpc") or "grpc-status" in head:
            yield _of_grpc(status, head, body)
        else:
            yield _of_http(status, head, body)


def _of_grpc(status: int, head: Mapping[str, str], body: bytes) -> Response:
    version = model = ""
    if len(body) > 5:
        from tritonclient.grpc import service_pb2

        with suppress(Exception):  # whatever is no response of an inference says no version
            said = service_pb2.ModelInferResponse.FromString(body[5 : 5 + int.from_bytes(body[1:5], "big")])
            version, model = said.model_version, said.model_name
    code = head.get("grpc-status", "")
    return Response(
        status=status,
        grpc=int(code) if code.isdigit() else 2,
        label=head.get("x-model-version", ""),
        model=head.get("x-model", ""),
        said=version,
        said_model=model,
        id=head.get("x-request-id", ""),
        size=len(body),
    )
