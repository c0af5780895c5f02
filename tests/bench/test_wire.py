"""The HTTP reader against replies cut at any place, over real sockets."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.wire import HttpConnection

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(*conversations: Sequence[Sequence[bytes]]) -> Iterator[tuple[str, int]]:
    """Accepts one connection per conversation; answers its requests with these pieces, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for conversation in conversations:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with peer:
                for pieces in conversation:
                    peer.recv(1 << 16)
                    for piece in pieces:
                        peer.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        listener.close()
        thread.join(5)


def reply(status: str, body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


@given(cuts=st.lists(st.integers(1, 400), max_size=6))
@settings(max_examples=40, deadline=None)
def test_replies_may_come_in_any_pieces(cuts: list[int]) -> None:
    whole = reply("200 OK", b"x" * 300, "Content-Type: a\r\n")
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(edges)]
    with server([pieces, [reply("503 Busy", b'{"error":"queue is full"}')]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        connection.open()
        assert connection.exchange(REQUEST) == (200, "")
        connection.open()
        assert connection.exchange(REQUEST) == (503, '{"error":"queue is full"}')
        connection.close()


def test_a_closed_idle_connection_is_opened_again_without_an_error() -> None:
    with server([[reply("200 OK", b"one")]], [[reply("200 OK", b"two")]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        connection.open()
        assert connection.exchange(REQUEST)[0] == 200
        threading.Event().wait(0.05)  # the server has closed by now
        connection.open()
        assert connection.exchange(REQUEST)[0] == 200
        connection.close()


def test_connection_close_is_obeyed() -> None:
    closing = reply("200 OK", b"one", "Connection: close\r\n")
    with server([[closing]], [[reply("200 OK", b"two")]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        for _ in range(2):
            connection.open()
            assert connection.exchange(REQUEST)[0] == 200
        connection.close()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_whole_reply_is_an_error(broken: bytes) -> None:
    with server([[broken]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        connection.open()
        with pytest.raises(OSError):  # noqa: PT011  (every kind of broken connection is one to the caller)
            connection.exchange(REQUEST)
        connection.close()


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with pytest.raises(ConnectionRefusedError):
        HttpConnection(address, socket.create_connection).open()
