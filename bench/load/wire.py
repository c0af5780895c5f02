"""Wire protocols that send a request and await its reply, and a minimal HTTP/1.1 client.

Knows bytes and sockets, not tensors and not Locust: the caller hands in how to connect, so that the same reader runs on
plain sockets and on those of an event loop. A general HTTP client costs two to ten times the processor time.
"""

import json
import re
import socket
from collections.abc import Callable
from typing import Literal, Protocol, cast

from .status import NO_RESULT, OK

Wire = Literal["http", "json", "grpc", "shm"]
WIRES: tuple[Wire, ...] = ("http", "json", "grpc", "shm")
Address = tuple[str, int]
Connect = Callable[[Address, float], socket.socket]
"""Connects within a timeout in seconds, like ``socket.create_connection`` or an event loop's version of it."""

CONNECT_SECONDS = 5.0
REASON_BYTES = 300

_OUTPUTS = re.compile(rb'"outputs"\s*:\s*\[\s*\{')
_ERROR = re.compile(rb'"error"\s*:\s*(?!null|""|false)')  # a key: within a string its quotes would be escaped
_OVERLAP = 64  # bytes of an earlier piece in which a name may have begun
_LOOKED_AT = 4096  # bytes in which an error would be named
_CHUNK = 1 << 16
_LARGEST_CHUNK = 1 << 20
_LARGEST_HEAD = 1 << 16


class ForeignError(OSError):
    """The answering service does not speak the protocol of this wire."""


class Connection(Protocol):
    """One request at a time to one server, whatever the wire."""

    def open(self) -> None:
        """Connect, unless that has been done; raises OSError if there is no answer."""

    def close(self) -> None:
        """Drop the connection; the next `open` makes another."""

    def exchange(self, request: bytes) -> tuple[int, str]:
        """Send a request, await its reply: HTTP status, and the server's words where it is not 200.

        200 stands for an inference result alone: a reply of status 200 without one is `run.NO_RESULT`.

        Raises:
            OSError: the connection broke.
        """


class HttpConnection:
    """A connection that is opened again when the server has closed it between two requests."""

    __slots__ = ("_address", "_connect", "_socket")

    def __init__(self, address: Address, connect: Connect) -> None:
        self._address = address
        self._connect = connect
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connect, unless an open connection is there that the server has not closed meanwhile.

        Raises:
            OSError: there is no answer.
        """
        if self._socket is not None and _alive(self._socket):
            return
        self.close()
        opened = self._connect(self._address, CONNECT_SECONDS)
        opened.settimeout(None)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = opened

    def close(self) -> None:
        """Drop the connection; the next `open` makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(self, request: bytes) -> tuple[int, str]:
        """Send one request, connecting first where it must; the status, and the body's start where it is no result.

        Raises:
            OSError: the connection broke, or the reply is none that this reader knows.
        """
        if self._socket is None:
            self.open()
        opened = cast(socket.socket, self._socket)
        opened.sendall(request)
        head, body = _head(opened, b"")
        status = _status(head)
        while 100 <= status < 200 and status != 101:  # as 100 Continue: the reply itself follows
            head, body = _head(opened, body)
            status = _status(head)
        reply = _Reply(body)
        if b"\r\ntransfer-encoding:" in head:
            whole = _chunked(opened, head, reply)
        elif (length := _length(head, status)) is not None:
            whole = _measured(opened, length, reply)
        else:  # it ends with the connection
            while more := opened.recv(_LARGEST_CHUNK):
                reply.add(more)
            whole = False
        if not whole or b"\r\nconnection: close" in head or head.startswith(b"http/1.0"):
            self.close()
        if status != OK:
            return status, reply.text
        return (
            (OK, "") if reply.result else (NO_RESULT, f"HTTP 200 without an inference result: {reply.text or 'empty'}")
        )


class _Reply:
    """A body as it comes in: what is needed of it to tell an inference result from anything else.

    A result has a list of outputs, which stands in the JSON part; nothing is kept of what follows it.
    """

    __slots__ = ("_kept", "_named")

    def __init__(self, begun: bytes) -> None:
        self._kept = begun
        self._named = bool(_OUTPUTS.search(begun))

    def add(self, more: bytes) -> None:
        """Take the next piece."""
        if self._named:
            return
        seen = len(self._kept)
        self._kept += more
        self._named = bool(_OUTPUTS.search(self._kept, max(0, seen - _OVERLAP)))

    def cut(self, length: int) -> None:
        """Forget what lies beyond the body."""
        self._kept = self._kept[:length]
        self._named = bool(_OUTPUTS.search(self._kept))

    @property
    def text(self) -> str:
        """The body's start, to be read by people."""
        return self._kept[:REASON_BYTES].decode(errors="replace")

    @property
    def result(self) -> bool:
        """Return whether it names outputs and reports no error."""
        if not self._named:
            return False
        suspect = _ERROR.search(self._kept, 0, _LOOKED_AT)
        if suspect is None:
            return True
        try:
            told, _ = json.JSONDecoder().raw_decode(self._kept.lstrip().decode("latin-1"))
            return not told.get("error")
        except (ValueError, AttributeError):  # the JSON part is not all here
            return cast(re.Match[bytes], _OUTPUTS.search(self._kept)).start() < suspect.start()


def _head(opened: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """A reply's lower-case head, and what has come of its body."""
    data = data or opened.recv(_CHUNK)
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > _LARGEST_HEAD:
            raise OSError("the headers of the reply do not end")
        data += _more(opened, _CHUNK)
    return data[:end].lower() + b"\r\n", data[end + 4 :]


def _status(head: bytes) -> int:
    if not head.startswith(b"http/1.") or not head[9:12].isdigit():
        raise ForeignError("the reply has no HTTP/1.x status")
    return int(head[9:12])


def _length(head: bytes, status: int) -> int | None:
    """Length of the body; None where it ends with the connection.

    Raises:
        OSError: a Content-Length that is no number.
    """
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return 0 if status in (204, 304) else None
    said = head[at + 17 : head.find(b"\r\n", at + 2)].strip()
    if not said.isdigit():
        raise OSError(f"the reply has an invalid Content-Length {said[:20]!r}")
    return int(said)


def _measured(opened: socket.socket, length: int, reply: _Reply) -> bool:
    """Receive a body of known length; False where more came than belongs to it."""
    have = len(reply._kept)
    if have > length:
        reply.cut(length)
        return False
    while have < length:
        more = _more(opened, length - have)
        have += len(more)
        reply.add(more)
    return True


def _chunked(opened: socket.socket, head: bytes, reply: _Reply) -> bool:
    """Receive a body in chunks (RFC 9112, 7.1); False where more came than belongs to it.

    Raises:
        OSError: chunks that cannot be read, another coding, or a connection that ended before the last chunk.
    """
    at = head.find(b"\r\ntransfer-encoding:") + 20
    coding = head[at : head.find(b"\r\n", at)].strip()
    if coding != b"chunked":
        raise OSError(f"the reply uses the unsupported transfer coding {coding[:40].decode(errors='replace')!r}")
    data, reply._kept, reply._named = reply._kept, b"", False
    while True:
        while (end := data.find(b"\r\n")) < 0:
            if len(data) > _LARGEST_HEAD:
                raise OSError("the size of a chunk does not end")
            data += _more(opened, _CHUNK)
        said = data[:end].partition(b";")[0].strip()
        if not said or said.strip(b"0123456789abcdefABCDEF"):
            raise OSError(f"a chunk has the invalid size {said[:20]!r}")
        size, data = int(said, 16), data[end + 2 :]
        if size == 0:
            break
        while len(data) < size + 2:
            data += _more(opened, size + 2 - len(data))
        if data[size : size + 2] != b"\r\n":
            raise OSError("a chunk is longer than its size")
        reply.add(data[:size])
        data = data[size + 2 :]
    while (end := data.find(b"\r\n")) != 0:  # trailers, then an empty line
        data = data[end + 2 :] if end > 0 else data + _more(opened, _CHUNK)
    return len(data) == 2


def _more(opened: socket.socket, most: int) -> bytes:
    more = opened.recv(min(most, _LARGEST_CHUNK))
    if not more:
        raise ConnectionResetError("the server closed the connection before its reply was complete")
    return more


def _alive(opened: socket.socket) -> bool:
    """An idle connection that can be read has been closed, or holds unsolicited bytes."""
    opened.settimeout(0.0)
    try:
        opened.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        opened.settimeout(None)
    return False
