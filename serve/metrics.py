"""Metrics of our own long-running processes, for Prometheus to read on loopback.

`registry` holds what every process has (descriptors, memory, threads); the process adds its own metrics with
``prometheus_client`` and counts with or without readers. `Endpoint` answers ``GET /metrics`` on 127.0.0.1 from
one thread with one event loop: a reader that hangs, trickles or sends garbage is dropped after two seconds, and nothing
is kept of a scrape that is over. The library's own endpoint makes a thread for each connection and waits without end.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from .errors import ServerError

ADDRESS = "127.0.0.1"
_SECONDS = 2.0
_AT_ONCE = 16
_HEAD_BYTES = 16384
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_TEXT = "text/plain; charset=utf-8"


def registry() -> CollectorRegistry:
    """A registry with ``process_open_fds``, ``process_resident_memory_bytes``, ``process_threads`` and their like."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it out
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    Gauge("process_threads", "Threads of this process.", registry=made).set_function(_threads)
    return made


class Endpoint:
    """``http://127.0.0.1:port/metrics`` of one registry, for the length of a block; port 0 takes a free one.

    Raises:
        ServerError: on entering, the port is taken.
    """

    def __init__(self, metrics: CollectorRegistry, port: int = 0) -> None:
        self._metrics, self.port = metrics, port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._socket = socket.socket()
        self._open = 0
        self._over: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        """Return where to scrape."""
        return f"http://{ADDRESS}:{self.port}/metrics"

    def __enter__(self) -> Self:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((ADDRESS, self.port))
            self._socket.listen(_AT_ONCE)
            self.port = int(self._socket.getsockname()[1])
        except (OSError, OverflowError) as error:
            self._socket.close()
            self._loop.close()
            raise ServerError(
                f"the metrics cannot be served on port {self.port}: {getattr(error, 'strerror', None) or error}",
                where=ADDRESS,
                next_step="choose a free port between 1 and 65535",
            ) from error
        self._loop.set_exception_handler(lambda loop, context: None)  # a reader's fault, or accept without descriptors
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(lambda: self._over())
        self._thread.join(_SECONDS + 1.0)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._socket.close()
            self._loop.close()

    async def _serve(self) -> None:
        over = asyncio.Event()
        self._over = over.set
        server = await asyncio.start_server(self._answer, sock=self._socket, limit=_HEAD_BYTES)
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport: Any = writer.transport
        if self._open >= _AT_ONCE:
            transport.abort()
            return
        self._open += 1
        try:
            transport.set_write_buffer_limits(high=0)  # so that `drain` waits until all is sent
            async with asyncio.timeout(_SECONDS):
                writer.write(self._response(await _head(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        finally:
            self._open -= 1
            transport.abort()

    def _response(self, head: bytes) -> bytes:
        """The response to a request with that head."""
        try:
            lines = head.decode("ascii").split("\r\n")
            method, target, _ = lines[0].split(" ")
        except ValueError:
            return _spelled(400, _TEXT, b"this is not HTTP\n")
        if target.partition("?")[0] != "/metrics":
            return _spelled(404, _TEXT, b"metrics are at /metrics\n")
        if method != "GET":
            return _spelled(405, _TEXT, b"GET only\n")
        accept = next((line[7:].strip() for line in lines[1:] if line.lower().startswith("accept:")), "")
        try:
            encode, kind = choose_encoder(accept)
            return _spelled(200, kind, encode(self._metrics))
        except Exception as error:  # noqa: BLE001  a metric that cannot be read must not end the endpoint
            return _spelled(500, _TEXT, f"{error}\n".encode())


async def _head(reader: asyncio.StreamReader) -> bytes:
    """A request's head; empty where there is none that ends in time or size."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""


def _spelled(status: int, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _threads() -> float:
    try:
        return float(len(os.listdir("/proc/self/task")))
    except OSError:
        return float("nan")
