"""One exchange with a server: in time, whole, or an error; and what this process lacks counts against no server."""

import contextlib
import errno
import http.client
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from seatrial.optimize.errors import MachineError
from seatrial.serve.errors import ExhaustedError, ServerError
from seatrial.serve.exhaustion import lacking
from seatrial.serve.triton.connection import Connection
from seatrial.serve.triton.control import Control

ROOT = Path(__file__).resolve().parents[3]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Talk = Callable[[socket.socket, int], None]


@contextlib.contextmanager
def server(talk: Talk) -> Iterator[str]:
    """A server whose connections each are talked to in a thread; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                taken.append(listener.accept()[0])
                threading.Thread(target=one, args=(taken[-1], len(taken)), daemon=True).start()

    def one(opened: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            talk(opened, number)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in (listener, *taken):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def answering(opened: socket.socket, number: int) -> None:
    while opened.recv(65536):
        opened.sendall(OK)


def test_a_connection_is_kept_and_opened_again_where_the_server_closed_it() -> None:
    seen = list[int]()

    def once(opened: socket.socket, number: int) -> None:
        seen.append(number)
        for _ in range(2):
            opened.recv(65536)
            opened.sendall(OK)
        opened.close()

    with server(once) as url:
        connection = Connection(url, timeout=30.0)
        for number in range(4):
            assert connection.exchange("GET", "/").body == b"ok"
            time.sleep(0.5 if number == 1 else 0.0)  # the server's end has arrived
        connection.close()
    assert seen == [1, 2]


@pytest.mark.parametrize("trickle", [OK[:20], OK[:-1]], ids=["in the headers", "in the body"])
def test_a_response_that_does_not_end_is_late(trickle: bytes) -> None:
    def slow(opened: socket.socket, number: int) -> None:
        opened.recv(65536)
        opened.sendall(trickle)
        time.sleep(30.0)

    with server(slow) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Connection(url, timeout=0.5).exchange("GET", "/")
        assert time.monotonic() - began < 10.0


def test_a_body_that_trickles_is_late_as_a_whole() -> None:
    def slow(opened: socket.socket, number: int) -> None:
        opened.recv(65536)
        opened.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            opened.sendall(b"x")
            time.sleep(0.1)

    with server(slow) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Connection(url, timeout=0.5).exchange("GET", "/")
        assert time.monotonic() - began < 10.0


@pytest.mark.slow
def test_a_late_response_is_never_taken_for_the_next_one() -> None:
    given_up = threading.Event()

    def late(opened: socket.socket, number: int) -> None:
        opened.recv(65536)
        if number == 1:
            given_up.wait(60.0)
        opened.sendall(OK.replace(b"ok", b"%02d" % number))
        opened.recv(65536)

    with server(late) as url:
        connection = Connection(url, timeout=1.0)
        with pytest.raises(TimeoutError):
            connection.exchange("GET", "/first")
        given_up.set()
        assert connection.exchange("GET", "/second").body == b"02"
        connection.close()


@pytest.mark.parametrize("reply", [OK[:-1], b"garbage\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: x"])
def test_a_broken_response_is_an_error_and_the_request_is_not_sent_again(reply: bytes) -> None:
    asked = list[int]()

    def broken(opened: socket.socket, number: int) -> None:
        asked.append(number)
        opened.recv(65536)
        opened.sendall(reply)
        opened.close()

    with server(broken) as url, pytest.raises((OSError, http.client.HTTPException)):
        Connection(url, timeout=30.0).exchange("POST", "/", b"deadly")
    assert asked == [1]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"{}", b'{"model_stats": []}', b"[" * 50_000, b"\xff"])
def test_a_server_that_is_not_triton_is_an_error_of_ours(body: bytes) -> None:
    def other(opened: socket.socket, number: int) -> None:
        while opened.recv(65536):
            opened.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with server(other) as url, Control(url, timeout=30.0) as control:
        with pytest.raises(ServerError):
            control.statistics("m", 1)
        assert control.live()


def test_many_threads_that_come_and_go_leave_no_descriptor() -> None:
    process = psutil.Process()

    def ask(url: str) -> None:
        with Control(url, timeout=30.0) as control:
            assert control.live()

    with server(answering) as url:
        ask(url)
        before = process.num_fds()
        for _ in range(30):
            thread = threading.Thread(target=ask, args=(url,))
            thread.start()
            thread.join()
        until = time.monotonic() + 30.0
        while process.num_fds() > before + 31 and time.monotonic() < until:
            time.sleep(0.01)
        assert process.num_fds() <= before + 31, "the server's side keeps one each, the client's none"


BLIND = """
import os, resource
from seatrial.serve.errors import ExhaustedError
from seatrial.serve.triton.control import Control
from seatrial.serve.processes import alive, halted, start_ticks
from seatrial.serve.triton.running.stubs import memory, stubs
from seatrial.serve.triton.supervision.probe import probe
import numpy, psutil, tritonclient.http, tritonclient.utils
me, ticks = os.getpid(), start_ticks(os.getpid())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
looks = {
    "alive": lambda: alive(me, ticks), "halted": lambda: halted(me), "stubs": lambda: stubs(me),
    "memory": lambda: memory(me, "m", 1), "live": lambda: Control("127.0.0.1:1").live(),
    "index": lambda: Control("127.0.0.1:1").index(), "probe": lambda: probe("127.0.0.1:1", "m", 1),
}
for name, look in looks.items():
    try:
        print(name, look())
    except ExhaustedError as error:
        print(name, "exhausted")
"""


@pytest.mark.slow
def test_without_descriptors_nothing_is_said_of_the_server() -> None:
    """That a process is gone, above all, which would have it started again."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-c", BLIND], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    names = ("alive", "halted", "stubs", "memory", "live", "index", "probe")
    assert ran.stdout.split("\n")[:-1] == [f"{name} exhausted" for name in names]


def test_what_is_lacking_is_found_below_other_errors() -> None:
    above = MachineError("cannot read")
    above.__cause__ = OSError(errno.EMFILE, "Too many open files")
    assert lacking(above) == "Too many open files"
    assert lacking(MemoryError())
    assert lacking(RuntimeError("can't start new thread"))
    for other in (ConnectionRefusedError(111, "refused"), TimeoutError(), RuntimeError("x"), OSError(28, "full")):
        assert not lacking(other)
    assert issubclass(ExhaustedError, MachineError)
    assert not issubclass(ExhaustedError, ServerError), "those that catch a server's errors must not catch ours"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
