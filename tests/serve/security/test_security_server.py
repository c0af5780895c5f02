"""What an audit makes of a server that answers strangely: no traceback, no escape of a terminal, and no long wait."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from seatrial.serve.errors import ServerError
from seatrial.serve.security import on_server
from seatrial.serve.security.on_server import Door, _older
from seatrial.serve.security.rules import FIXED_IN, FIXED_STREAM_IN


@contextmanager
def answering(body: bytes, *, drip: float = 0.0) -> Iterator[tuple[str, int]]:
    """A server that answers everything with that body, `drip` seconds before each byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.recv(1 << 16)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                        for place in range(len(body)) if drip else ():
                            time.sleep(drip)
                            connection.sendall(body[place : place + 1])
                        connection.sendall(b"" if drip else body)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1 << 16):
                            pass

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()


@pytest.mark.parametrize("body", [b"[" * 200_000, b"\xff\xfe", b'{"name":1}', b"[]", b"1" * 5000, b""])
def test_an_answer_that_is_none_is_no_inference_server(body: bytes) -> None:
    with answering(body) as address:
        with pytest.raises(ServerError, match="not the answer of an inference server"):
            Door(address).about()
        assert Door(address).models() in (None, [])
        assert isinstance(Door(address).config("a/b\udcff"), str)


def test_names_of_a_server_reach_no_terminal_raw() -> None:
    with answering(b'{"name":"\\u001b[31mtriton","version":"2.51\\u0007"}') as address:
        told = Door(address).about()
    assert all(each.isprintable() for each in told["name"] + told["version"])


def test_a_server_that_sends_a_byte_now_and_then_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_server, "_SECONDS", 0.5)
    began = time.monotonic()
    with answering(b'{"name":"slow","version":"2.51.0"}' + b" " * 2000, drip=0.02) as address:
        Door(address).ask("GET", "/v2")
    assert time.monotonic() - began < 20.0, "the whole reply takes 40 seconds"


@pytest.mark.parametrize(
    ("version", "chain", "stream"),
    [
        ("2.51.0", True, True),
        ("2.58.9", True, True),
        ("2.59.0", True, True),
        ("2.59.1", False, True),
        ("2.67.0", False, True),
        ("2.68.0", False, False),
        ("2.100.0", False, False),
        ("3.0.0", False, False),
        ("1.15", True, True),
        ("unknown", False, False),
        ("2", False, False),
        ("", False, False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, chain: bool, stream: bool) -> None:
    assert (_older(version, FIXED_IN), _older(version, FIXED_STREAM_IN)) == (chain, stream)
