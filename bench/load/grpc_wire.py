"""KServe v2 over gRPC on a plain socket: one HTTP/2 connection per caller, one unary call at a time.

Knows frames and the few rules of gRPC over HTTP/2 that a unary call needs; opens no TLS and keeps no times. gRPC's own
Python client costs two to three times the processor time under an event loop, which the figures of a fast model showed.
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import re
import socket
from typing import cast
from urllib.parse import unquote

from . import http2
from .status import NO_RESULT, OK
from .wire import CONNECT_SECONDS, REASON_BYTES, Address, Connect, ForeignError

_PATH = b"/inference.GRPCInferenceService/ModelInfer"
_SETTINGS = ((1, 0), (2, 0), (4, 0x7FFFFFFF), (5, (1 << 24) - 1))  # no table, no push, widest window and frame
_CHUNK = 1 << 18
_WINDOW = 65_535  # of a connection and of a stream before anything was agreed
_RENEW = 1 << 23  # bytes received until the connection's window is widened again
_HEAD = 9
_KEPT = 1 << 12  # bytes of a reply that are looked at
_PRIORITY = 0x20
_OUTPUTS = 5  # field of ModelInferResponse
_PORT = "is this the gRPC port (Triton's is 8001 by default)?"
_HIGHEST_STREAM = 0x7FFFFFF0

_NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
# google.rpc.Code's own mapping to HTTP, so that one table of failures serves every wire.
_HTTP = {1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}

_blocks: dict[bytes, dict[bytes, bytes]] = {}  # header blocks read before: a server sends the same few again and again


class GrpcConnection:
    """A connection that is opened again when the server has closed it between two requests."""

    __slots__ = (
        "_address",
        "_buffer",
        "_connect",
        "_ending",
        "_frame",
        "_headers",
        "_initial",
        "_received",
        "_socket",
        "_spoken",
        "_stream",
        "_window",
    )

    def __init__(self, address: Address, connect: Connect) -> None:
        self._address, self._connect = address, connect
        self._socket: socket.socket | None = None
        self._headers = http2.block(
            (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", _PATH),
                (b":authority", f"{address[0]}:{address[1]}".encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        self._reset()

    def _reset(self) -> None:
        self._buffer = b""
        self._stream, self._received, self._ending, self._spoken = 1, 0, False, False
        self._frame, self._window, self._initial = 16_384, _WINDOW, _WINDOW

    def open(self) -> None:
        """Connect, unless an open connection is there that the server has not ended meanwhile.

        Raises:
            OSError: there is no answer.
        """
        if self._socket is not None and self._alive():
            return
        self.close()
        opened = self._connect(self._address, CONNECT_SECONDS)
        opened.settimeout(None)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reset()
        self._socket = opened
        opened.sendall(http2.opening(_SETTINGS))

    def close(self) -> None:
        """Drop the connection; the next `open` makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, request: bytes) -> tuple[int, str]:
        """Send one message, connecting first where it must; the status as HTTP has it, and the reason unless 200.

        Raises:
            OSError: the connection broke, or the peer is no gRPC server.
        """
        if self._socket is None:
            self.open()
        call = _Call(stream=self._stream, window=self._initial)
        self._stream += 2
        self._send(call, b"\0" + len(request).to_bytes(4, "big") + request)
        while not call.ended:
            self._read(call)
        if self._ending or self._stream > _HIGHEST_STREAM:
            self.close()
        return call.outcome()

    def _send(self, call: "_Call", message: bytes) -> None:
        """Send the call's headers and its message, as far as the peer's windows let it at a time."""
        opened, at = cast(socket.socket, self._socket), 0
        parts = [http2.frame(http2.HEADERS, self._headers, flags=http2.END_HEADERS, stream=call.stream)]
        while at < len(message):
            size = min(self._frame, self._window, call.window, len(message) - at)
            if size <= 0:
                opened.sendall(b"".join(parts))
                parts = []
                self._read(call)
                if call.ended:
                    return
                continue
            last = http2.END_STREAM if at + size == len(message) else 0
            parts.append(http2.frame(http2.DATA, message[at : at + size], flags=last, stream=call.stream))
            at, self._window, call.window = at + size, self._window - size, call.window - size
        opened.sendall(b"".join(parts))

    def _read(self, call: "_Call | None") -> None:
        """Receive once, and take every frame that is whole by then; the body of a long one is received as it comes."""
        opened = cast(socket.socket, self._socket)
        more = opened.recv(_CHUNK)
        if not more and not self._spoken:
            raise ForeignError(f"the server closed the connection without an HTTP/2 frame: {_PORT}")
        if not more:
            raise ConnectionResetError("the server closed the connection before its reply was complete")
        self._take(self._buffer + more, call)

    def _take(self, buffer: bytes, call: "_Call | None") -> None:
        at = 0
        if buffer[:5] == b"HTTP/":
            raise ForeignError(f"the server speaks HTTP/1.1 there: {_PORT}")
        while len(buffer) - at >= _HEAD:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < _HEAD + size:
                buffer, at = self._whole(buffer[at:], _HEAD + size), 0
            payload = buffer[at + _HEAD : at + _HEAD + size]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self._frame_of(buffer[at + 3], buffer[at + 4], stream, payload, call)
            at += _HEAD + size
            self._spoken = True
        self._buffer = buffer[at:]

    def _whole(self, begun: bytes, size: int) -> bytes:
        """Receive the rest of a frame."""
        opened, parts, have = cast(socket.socket, self._socket), [begun], len(begun)
        while have < size:
            more = opened.recv(max(_CHUNK, min(size - have, 1 << 20)))
            if not more:
                raise ConnectionResetError("the server closed the connection before its reply was complete")
            parts.append(more)
            have += len(more)
        return b"".join(parts)

    def _frame_of(self, kind: int, flags: int, stream: int, payload: bytes, call: "_Call | None") -> None:
        ours = call is not None and stream == call.stream
        if kind == http2.DATA:
            self._renew(len(payload))
        if kind == http2.SETTINGS and not flags & http2.ACK:
            self._agree(payload, call)
        elif kind == http2.PING and not flags & http2.ACK:
            self._write(http2.frame(http2.PING, payload, flags=http2.ACK))
        elif kind == http2.WINDOW_UPDATE:
            widened = int.from_bytes(payload, "big") & 0x7FFFFFFF
            if stream == 0:
                self._window += widened
            elif ours and call is not None:
                call.window += widened
        elif kind == http2.GOAWAY:
            self._ending = True
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            if call is not None and last < call.stream:
                raise ConnectionResetError(f"the server ended the connection: {_printable(payload[8:])}")
        elif ours and call is not None:
            call.take(kind, flags, payload)

    def _agree(self, payload: bytes, call: "_Call | None") -> None:
        """Take the peer's settings over, and say so."""
        for at in range(0, len(payload) - 5, 6):
            key, value = int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
            if key == 4:
                if call is not None:
                    call.window += value - self._initial
                self._initial = value
            elif key == 5:
                self._frame = value
        self._write(http2.frame(http2.SETTINGS, flags=http2.ACK))

    def _renew(self, size: int) -> None:
        self._received += size
        if self._received > _RENEW:
            self._write(http2.frame(http2.WINDOW_UPDATE, self._received.to_bytes(4, "big")))
            self._received = 0

    def _write(self, content: bytes) -> None:
        cast(socket.socket, self._socket).sendall(content)

    def _alive(self) -> bool:
        """Take what came while nothing was asked (pings, settings); False where the server has ended the connection."""
        opened = cast(socket.socket, self._socket)
        opened.settimeout(0.0)
        try:
            more = opened.recv(_CHUNK)
        except BlockingIOError:
            return not self._ending
        except OSError:
            return False
        finally:
            opened.settimeout(None)
        if not more:
            return False
        try:
            self._take(self._buffer + more, None)
        except OSError:
            return False
        return not self._ending


class _Call:
    """State of one call so far."""

    __slots__ = ("_block", "_kept", "_size", "_told", "ended", "stream", "window")

    def __init__(self, *, stream: int, window: int) -> None:
        self.stream, self.window, self.ended = stream, window, False
        self._told: dict[bytes, bytes] = {}
        self._kept, self._size, self._block = b"", 0, b""

    def take(self, kind: int, flags: int, payload: bytes) -> None:
        """Take one frame of this stream.

        Raises:
            OSError: the server reset the stream, or its headers cannot be read.
        """
        if kind == http2.RST_STREAM:
            raise ConnectionResetError(f"the server reset the stream (code {int.from_bytes(payload, 'big')})")
        if flags & http2.PADDED and kind in (http2.DATA, http2.HEADERS) and payload:
            payload = payload[1 : len(payload) - payload[0]]
        if kind == http2.DATA:
            self._size += len(payload)
            if len(self._kept) < _KEPT:
                self._kept += payload[:_KEPT]
        elif kind in (http2.HEADERS, http2.CONTINUATION):
            self._block += payload[5:] if kind == http2.HEADERS and flags & _PRIORITY else payload
            if flags & http2.END_HEADERS:
                self._told |= _fields(self._block)
                self._block = b""
        if kind in (http2.DATA, http2.HEADERS) and flags & http2.END_STREAM:
            self.ended = True

    def outcome(self) -> tuple[int, str]:
        """The status as HTTP has it, and the reason where it is not 200."""
        status = self._told.get(b"grpc-status", b"")
        if not status.isdigit():
            http = self._told.get(b":status", b"")
            code = int(http) if http.isdigit() and http != b"200" else 500
            return code, f"HTTP/2 {_printable(http)} without a gRPC status: is this a gRPC server?"
        number = int(status)
        if number:
            name = _NAMES[number] if number < len(_NAMES) else f"status {number}"
            return _HTTP.get(number, 500), f"{name}: {_printable(self._told.get(b'grpc-message', b''))}"[:REASON_BYTES]
        if self._size < 5 or self._size != 5 + int.from_bytes(self._kept[1:5], "big"):
            return NO_RESULT, f"OK with a truncated message of {max(0, self._size - 5)} bytes"
        if not _has_field(self._kept[5:], _OUTPUTS, whole=self._size <= _KEPT):
            return NO_RESULT, "OK without any output"
        return OK, ""


def _fields(block: bytes) -> dict[bytes, bytes]:
    found = _blocks.get(block)
    if found is None:
        try:
            found = dict(http2.fields(block))
        except (ValueError, IndexError) as error:
            raise ConnectionError(f"unreadable headers: {error}") from error
        if len(_blocks) < 256:
            _blocks[block] = found
    return found


def _has_field(message: bytes, wanted: int, *, whole: bool) -> bool:
    """Tell whether a protobuf message has a field; of one that is cut off, the rest gets the benefit of the doubt."""
    at = 0
    try:
        while at < len(message):
            key, at = _varint(message, at)
            if key >> 3 == wanted:
                return True
            match key & 7:
                case 0:
                    _, at = _varint(message, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(message, at)
                    at += size
                case 5:
                    at += 4
                case _:
                    return False
    except IndexError:
        pass
    return not whole


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def _printable(text: bytes) -> str:
    return re.sub(r"[^ -~]", "?", unquote(text.decode(errors="replace")))[:REASON_BYTES]
