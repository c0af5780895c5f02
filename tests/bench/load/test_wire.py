"""The HTTP reader against replies cut at any place, over real sockets."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest

from seatrial.bench.load.status import NO_RESULT
from seatrial.bench.load.wire import HttpConnection

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


RESULT = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[1,1],"data":[1]}]}'


def reply(status: str, body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(body: bytes, size: int, extra: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n" + extra + b"\r\n"


def once(pieces: Sequence[bytes]) -> tuple[int, str]:
    with server([pieces]) as address:
        connection = HttpConnection(address, socket.create_connection)
        try:
            return connection.exchange(REQUEST)
        finally:
            connection.close()


BINARY = reply("200 OK", RESULT + bytes(300_000), f"Inference-Header-Content-Length: {len(RESULT)}\r\n")
WHOLE = {
    "length": reply("200 OK", RESULT),
    "binary": BINARY,
    "chunked": chunked(RESULT, 7),
    "chunked with trailers": chunked(RESULT, 1000, b"Expires: never\r\n"),
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + reply("200 OK", RESULT),
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + chunked(RESULT, 20),
    "until the end": b"HTTP/1.1 200 OK\r\n\r\n" + RESULT,
    "lower case": b"HTTP/1.1 200 OK\r\ncontent-length:%d\r\n\r\n" % len(RESULT) + RESULT,
    "late outputs": reply(
        "200 OK", b'{"parameters":{"x":"' + b"y" * 200_000 + b'"}, "outputs" : [ ' + RESULT.partition(b"[")[2]
    ),
    "error in a string": reply("200 OK", RESULT.replace(b'"y"', b'"\\"error\\": no"')),
    "error of an output": reply("200 OK", RESULT.replace(b'"shape"', b'"parameters":{"error":"0.1"},"shape"')),
    "no error": reply("200 OK", RESULT.replace(b'"outputs"', b'"error":null,"outputs"')),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_replies_may_come_in_any_pieces(kind: str) -> None:
    whole = WHOLE[kind]
    for cuts in ([], [1], [12, 60], list(range(0, 200, 9)), [len(whole) - 1], [len(whole) - 3]):
        edges = [0, *sorted(cuts), len(whole)]
        assert once([whole[start:end] for start, end in pairwise(edges)]) == (200, ""), cuts


def test_a_connection_goes_on_after_every_kind_of_reply() -> None:
    kept = [[each] for kind, each in WHOLE.items() if kind != "until the end"]
    with server([*kept, [reply("503 Busy", b'{"error":"queue is full"}')]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        for _ in kept:
            connection.open()
            assert connection.exchange(REQUEST) == (200, "")
        assert connection.exchange(REQUEST) == (503, '{"error":"queue is full"}')
        connection.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"error":"model exploded"}',
        b'{"id":"1","error":"model exploded","outputs":[{"name":"y"}]}',
        b'{"outputs":[]}',
        b'{"outputs":null}',
        b"<html>maintenance</html>",
        b'{"error":"' + b"x" * 200_000 + b'"}',
        RESULT[:20],
    ],
)
def test_a_200_without_a_result_is_no_success(body: bytes) -> None:
    for whole in (reply("200 OK", body), chunked(body, 11)):
        status, text = once([whole])
        assert status == NO_RESULT
        assert text.startswith("HTTP 200 without an inference result: " + (body[:20].decode() or "empty"))


def test_a_closed_idle_connection_is_opened_again_without_an_error() -> None:
    with server([[reply("200 OK", RESULT)]], [[reply("200 OK", RESULT)]]) as address:
        connection = HttpConnection(address, socket.create_connection)
        connection.open()
        assert connection.exchange(REQUEST)[0] == 200
        threading.Event().wait(0.05)  # the server has closed by now
        connection.open()
        assert connection.exchange(REQUEST)[0] == 200
        connection.close()


def test_connection_close_is_obeyed() -> None:
    closing = reply("200 OK", RESULT, "Connection: close\r\n")
    with server([[closing]], [[reply("200 OK", RESULT)]]) as address:
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
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ou',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsize\r\n12345\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12345\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
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
