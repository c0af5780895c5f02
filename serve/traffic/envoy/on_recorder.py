"""The recorder's end of Envoy's access log stream: a gRPC server on a socket of the edge's private folder.

A stream waits while nobody takes what it brought; then the proxy drops, and the numbers of what is missing say so.
"""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import grpc

from ...errors import ServerError
from .exchanges import Exchange, exchanges
from .recording import SERVICE

_STREAMS = 160  # the edge has 64 workers at most; streams of one that was killed linger
_WAITING = 64  # messages
_LARGEST = 64 << 20  # bytes of a message


class Listener:
    """What arrived and was not taken yet; `unreadable` messages were not what they should be."""

    def __init__(self) -> None:
        self.unreadable = 0
        self._waiting: queue.Queue[list[Exchange]] = queue.Queue(_WAITING)
        self._over = Event()

    def take(self, seconds: float) -> list[Exchange]:
        """Return what one message brought, empty after so many seconds without one."""
        try:
            return self._waiting.get(timeout=seconds)
        except queue.Empty:
            return []

    def close(self) -> None:
        """Let the streams end that wait."""
        self._over.set()

    def serve(self, messages: Iterator[bytes], context: Any) -> bytes:
        """Read one stream to its end."""
        for message in messages:
            try:
                found = exchanges(message)
            except ValueError:
                self.unreadable += 1
                continue
            while found and not self._over.is_set():
                try:
                    self._waiting.put(found, timeout=0.2)
                except queue.Full:
                    continue
                break
        return b""


@contextmanager
def listening(socket: Path) -> Iterator[Listener]:
    """Listen on that socket for the length of a block; what waits at its end can still be taken.

    Raises:
        ServerError: the socket cannot be made.
    """
    listener = Listener()
    socket.unlink(missing_ok=True)
    with ThreadPoolExecutor(_STREAMS, thread_name_prefix="record") as threads:
        options = [("grpc.max_receive_message_length", _LARGEST), ("grpc.so_reuseport", 0)]
        server = grpc.server(threads, options=options)
        handler = grpc.stream_unary_rpc_method_handler(listener.serve)
        _, service, method = SERVICE.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            server.add_insecure_port(f"unix:{socket}")
        except RuntimeError as error:
            raise ServerError(
                f"the recorder cannot listen: {error}", where=str(socket), next_step="start the edge again"
            ) from error
        server.start()
        try:
            yield listener
        finally:
            stopped = server.stop(grace=0.5)
            stopped.wait(2.0)
            listener.close()
