"""A KServe-like HTTP server whose service time is known and which fails on cue, for what a real server will not do."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import TensorSpec

_RESULT = b'{"outputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[0.0]}]}'


@dataclass
class Faulty:
    """A KServe-like server that answers one request at a time, each after `service` seconds, and fails on cue.

    The first request that it takes up `stall_after` seconds after its first one blocks everything for `stall` seconds;
    after `die_after` it is gone; after `mute_after` it answers nothing. `served` is how long each service really took,
    `answered` when each answer was ready, by the monotonic clock.
    """

    service: float = 0.002
    stall: float = 0.0
    stall_after: float = float("inf")
    die_after: float = float("inf")
    mute_after: float = float("inf")
    stalled: list[float] = field(default_factory=list)
    served: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    died: float = float("inf")

    @contextmanager
    def running(self) -> Iterator[Endpoint]:
        loop = asyncio.new_event_loop()
        started: list[tuple[asyncio.Server, int]] = []
        ready = threading.Event()

        async def start() -> None:
            self.busy, self.first = asyncio.Lock(), float("inf")
            server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
            started.append((server, server.sockets[0].getsockname()[1]))
            ready.set()

        thread = threading.Thread(target=lambda: (loop.run_until_complete(start()), loop.run_forever()), daemon=True)
        thread.start()
        assert ready.wait(5)
        tensors = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
        try:
            yield Endpoint(url=f"127.0.0.1:{started[0][1]}", model="m", version="1", inputs=tensors, outputs=tensors)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            started[0][0].close()
            talks = asyncio.all_tasks(loop)
            for talk in talks:
                talk.cancel()
            if talks:
                loop.run_until_complete(asyncio.wait(talks))
            loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.split(b"\r\nContent-Length: ")[1].split(b"\r\n")[0]))
                async with self.busy:
                    now = time.monotonic()
                    self.first = min(self.first, now)
                    if now - self.first > self.die_after:
                        self.died = min(self.died, now)
                        break
                    if now - self.first > self.mute_after:
                        await asyncio.sleep(3600)
                    if now - self.first > self.stall_after and not self.stalled:
                        self.stalled.append(now)
                        await asyncio.sleep(self.stall)
                    now = time.monotonic()
                    await asyncio.sleep(self.service)
                    self.answered.append(time.monotonic())
                    self.served.append(self.answered[-1] - now)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_RESULT) + _RESULT)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()
