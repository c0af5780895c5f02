"""The gRPC client on a plain socket, against the gRPC library's own server."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import grpc
import pytest

from seatrial.bench.load import http2
from seatrial.bench.load.grpc_wire import GrpcConnection
from seatrial.bench.load.status import NO_RESULT
from seatrial.bench.load.wire import ForeignError

RESULT = b"\x0a\x01m\x12\x011\x2a\x03\x0a\x01y"  # model_name, model_version, one output called y
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, int]]:
    """A server of the library that answers every ModelInfer with these bytes."""

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            assert details.method == "/inference.GRPCInferenceService/ModelInfer"
            return grpc.unary_unary_rpc_method_handler(answer)

    unbounded = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    found = grpc.server(ThreadPoolExecutor(4), handlers=(Handler(),), options=unbounded)
    port = found.add_insecure_port("127.0.0.1:0")
    found.start()
    try:
        yield "127.0.0.1", port
    finally:
        found.stop(None).wait(5)


def connected(address: tuple[str, int]) -> GrpcConnection:
    connection = GrpcConnection(address, socket.create_connection)
    connection.open()
    return connection


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 70_000, 5_000_000, 40_000_000])
@pytest.mark.slow
def test_messages_of_any_size_arrive_whole_and_come_back(size: int) -> None:
    given, got = os.urandom(size), list[bytes]()

    def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
        got.append(request)
        return RESULT + b"\x32" + _varint(len(request)) + request

    with server(answer) as address:
        connection = connected(address)
        for _ in range(3):
            connection.open()
            assert connection.exchange(given) == (200, "")
        connection.close()
    assert got == [given] * 3


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (grpc.StatusCode.INTERNAL, 500),
        (grpc.StatusCode.UNAVAILABLE, 503),
    ],
)
def test_errors_have_http_s_numbers_and_the_server_s_words(code: grpc.StatusCode, status: int) -> None:
    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "queue is full: 100 % \u00e9")
        return b""

    with server(answer) as address:
        connection = connected(address)
        found = connection.exchange(b"x")
        assert found == (status, f"{code.name}: queue is full: 100 % ?")
        assert connection.exchange(b"x")[0] == status
        connection.close()


@pytest.mark.parametrize("message", [b"", b"\x0a\x01m", b"\x0a\x01m\x32\x04abcd"])
def test_an_ok_without_outputs_is_no_success(message: bytes) -> None:
    with server(lambda *_: message) as address:
        connection = connected(address)
        assert connection.exchange(b"x")[0] == NO_RESULT
        connection.close()


def test_a_server_that_ended_between_two_requests_is_connected_again() -> None:
    with server(lambda *_: RESULT) as first:
        connection = connected(first)
        assert connection.exchange(b"x") == (200, "")
    connection._address = first
    with pytest.raises(OSError):  # noqa: PT011  (nobody is there)
        connection.open()
    with server(lambda *_: RESULT) as second:
        connection._address = second
        connection.open()
        assert connection.exchange(b"x") == (200, "")
        connection.close()


def peer(reply: bytes) -> tuple[str, int]:
    """Accept one connection, read the request, send these bytes, and close it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as opened:
            content = b""
            while http2.data(b"\0\0\0\0\1x")[9:] not in content:
                content += opened.recv(1 << 16)
            opened.sendall(reply)
            opened.shutdown(socket.SHUT_WR)
            opened.recv(1 << 16)

    threading.Thread(target=serve, daemon=True).start()
    address: tuple[str, int] = listener.getsockname()[:2]
    return address


HEADERS = http2.headers(((b":status", b"200"), (b"content-type", b"application/grpc")))
LAST_CALL = http2.frame(http2.GOAWAY, bytes((0, 0, 0, 1, 0, 0, 0, 0)))
TRAILERS = http2.headers(((b"grpc-status", b"0"),), end=True)
MESSAGE = b"\0" + len(RESULT).to_bytes(4, "big") + RESULT
PADDED = http2.frame(http2.DATA, b"\2" + MESSAGE + b"\0\0", flags=http2.PADDED, stream=1)


@pytest.mark.parametrize(
    "reply",
    [
        HEADERS + http2.data(MESSAGE, end=False) + TRAILERS,
        HEADERS + PADDED + TRAILERS,
        HEADERS + http2.data(MESSAGE[:3], end=False) + http2.data(MESSAGE[3:], end=False) + TRAILERS,
        http2.frame(http2.PING, b"8 bytes.") + HEADERS + http2.data(MESSAGE, end=False) + TRAILERS,
        http2.frame(http2.GOAWAY, bytes((0, 0, 0, 1, 0, 0, 0, 0)))
        + HEADERS
        + http2.data(MESSAGE, end=False)
        + TRAILERS,
    ],
)
def test_whole_replies_of_any_make(reply: bytes) -> None:
    connection = connected(peer(reply))
    assert connection.exchange(b"x") == (200, "")
    connection.close()


@pytest.mark.parametrize(
    "reply",
    [
        HEADERS,
        HEADERS + http2.data(MESSAGE, end=False),
        HEADERS + http2.data(MESSAGE, end=False)[:-4],
        HEADERS + http2.frame(http2.RST_STREAM, (11).to_bytes(4, "big"), stream=1),
        http2.frame(http2.GOAWAY, bytes(8)),
    ],
)
def test_what_breaks_off_is_a_broken_connection(reply: bytes) -> None:
    connection = connected(peer(reply))
    with pytest.raises(ConnectionResetError):
        connection.exchange(b"x")
    connection.close()


def test_replies_that_say_ok_and_are_not_whole_or_no_grpc() -> None:
    with closing(connected(peer(HEADERS + http2.data(MESSAGE[:-2], end=False) + TRAILERS))) as cut:
        assert cut.exchange(b"x")[0] == NO_RESULT
    with closing(connected(peer(http2.headers(((b":status", b"404"),), end=True)))) as proxy:
        assert proxy.exchange(b"x")[0] == 404
    for reply in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        with closing(connected(peer(reply))) as foreign, pytest.raises(ForeignError):
            foreign.exchange(b"x")
