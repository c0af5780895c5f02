"""What sends a request and awaits its reply, and the one over HTTP/1.1: a reader that knows just what servers send.

Knows bytes and sockets, not tensors and not Locust: the caller hands in how to connect, so that the same reader runs on
plain sockets and on those of an event loop. A general HTTP client costs two to ten times the processor time.
"""

import socket
from collections.abc import Callable
from typing import Literal, Protocol, cast

Wire = Literal["http", "json", "grpc", "shm"]
WIRES: tuple[Wire, ...] = ("http", "json", "grpc", "shm")
Address = tuple[str, int]
Connect = Callable[[Address, float], socket.socket]
"""Connects within a number of seconds; ``socket.create_connection`` or an event loop's version of it."""

CONNECT_SECONDS = 5.0
REASON_BYTES = 300

_CHUNK = 1 << 16
_LARGEST_CHUNK = 1 << 20
_LARGEST_HEAD = 1 << 16


class Connection(Protocol):
    """One request at a time to one server, whatever the wire."""

    def open(self) -> None:
        """Connect, unless that has been done; raises OSError where nobody answers."""

    def close(self) -> None:
        """Drop the connection; the next `open` makes another."""

    def exchange(self, request: bytes) -> tuple[int, str]:
        """Send a request, await its reply: HTTP status, and the server's words where it is not 200.

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
            OSError: nobody answers.
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
        """Send one request, connecting first where it must; the status, and the body's start where that is not 200.

        Raises:
            OSError: the connection broke, or the reply is none that this reader knows.
        """
        if self._socket is None:
            self.open()
        opened = cast(socket.socket, self._socket)
        opened.sendall(request)
        data = opened.recv(_CHUNK)
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _LARGEST_HEAD:
                raise OSError("a reply whose headers do not end")
            data += _more(opened, _CHUNK)
        head = data[:end].lower() + b"\r\n"
        status, length = _status_and_length(head)
        body = data[end + 4 :]
        missing = length - len(body)
        while missing > 0:
            more = _more(opened, missing)
            missing -= len(more)
            if len(body) < REASON_BYTES:
                body += more
        if missing < 0 or b"\r\nconnection: close" in head:
            self.close()
        return status, "" if status == 200 else body[:REASON_BYTES].decode(errors="replace")


def _status_and_length(head: bytes) -> tuple[int, int]:
    """Status and body length of a reply's lower-case head.

    Raises:
        OSError: it is not HTTP/1.x with Content-Length.
    """
    at = head.find(b"\r\ncontent-length:")
    try:
        if at < 0 or not head.startswith(b"http/1."):
            raise ValueError
        return int(head[9:12]), int(head[at + 17 : head.find(b"\r\n", at + 2)])
    except ValueError:
        raise OSError("a reply without HTTP/1.x status or Content-Length (chunked replies are not read)") from None


def _more(opened: socket.socket, most: int) -> bytes:
    more = opened.recv(min(most, _LARGEST_CHUNK))
    if not more:
        raise ConnectionResetError("the server closed the connection before its reply was complete")
    return more


def _alive(opened: socket.socket) -> bool:
    """An idle connection that can be read has been closed, or holds bytes that nobody asked for."""
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
