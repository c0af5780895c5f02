"""The least client for comparing servers: N connections that each send a prepared HTTP request back to back.

One process, one thread, no library, so that it costs little beside any server and the same beside all of them. Every
reply must be a 200, or the run fails; it knows nothing of what is asked. It counts, and keeps the time of each reply.

``python -m scripts.benchmarks.closed_loop PLAN`` reads ``{address, requests (a payload's file), connections, warm_up,
seconds, core}`` as JSON from the argument and prints one JSON line; `run` does so in a process of its own.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seatrial.bench.load.payload import Payload
from seatrial.optimize.errors import SeatrialError

_SILENCE_SECONDS = 20.0
_LENGTH = b"\r\ncontent-length:"  # from the line's start: KServe's "Inference-Header-Content-Length" is another


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Replies in a window of `seconds`, the client's own processor time, and quantiles of the replies' milliseconds."""

    replies: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.replies / self.seconds


def post(address: str, path: str, body: bytes, headers: Sequence[str]) -> bytes:
    """One whole request."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {address}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def run(
    address: str,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    warm_up: float = 0.5,
    core: int | None = None,
) -> Found:
    """Load `address` for `seconds` after `warm_up`; connection k sends requests k, k + connections... in turn.

    Raises:
        SeatrialError: a reply was not a 200, a connection broke, or nothing came for twenty seconds.
    """
    with tempfile.TemporaryDirectory(prefix="closed-loop-") as folder:
        Payload(requests=tuple(requests), batch=1).save(Path(folder) / "requests")
        plan = {"address": address, "requests": f"{folder}/requests", "connections": connections}
        plan |= {"seconds": seconds, "warm_up": warm_up, "core": core}
        command = [sys.executable, "-m", "scripts.benchmarks.closed_loop", json.dumps(plan)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 + seconds + warm_up, cwd=Path(__file__).parents[2]
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        raise SeatrialError(f"the load on {address} broke: {said}", next_step="read the server's log")
    return Found(**json.loads(done.stdout))


class Connection:
    """One socket with its share of the requests; the reply's end is found by its length or its last chunk."""

    def __init__(self, address: str, requests: Sequence[bytes]) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.requests, self.turn = requests, 0
        self.pending, self.left, self.sent = b"", -1, 0.0

    def send(self) -> None:
        """The next request, whole; it blocks, which a loopback buffer rarely does."""
        self.sent = time.perf_counter()
        self.socket.sendall(self.requests[self.turn])
        self.turn = (self.turn + 1) % len(self.requests)

    def receive(self) -> bool:
        """Take what has come; whether the reply is whole."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed a connection")
        if self.left > 0:
            self.left -= len(data)
            return self.left == 0
        self.pending += data
        head, found, body = self.pending.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"replied {self.pending[:300]!r}")
        fields = head.lower()
        if b"chunked" in fields:
            whole = body.endswith(b"0\r\n\r\n")
        else:
            at = fields.index(_LENGTH) + len(_LENGTH)
            self.left = int(fields[at : at + 20].split(b"\r\n")[0]) - len(body)
            self.pending, whole = b"", self.left == 0
        if whole:
            self.pending, self.left = b"", 0
        return whole


def _loop(plan: dict[str, Any]) -> Found:
    if plan["core"] is not None:
        os.sched_setaffinity(0, {plan["core"]})
    requests = Payload.read(Path(plan["requests"])).requests
    count = plan["connections"]
    connections = [Connection(plan["address"], requests[k::count] or requests) for k in range(count)]
    poll, by_handle = select.epoll(), {each.socket.fileno(): each for each in connections}
    for connection in connections:
        poll.register(connection.socket, select.EPOLLIN)
        connection.send()
    times: list[float] = []
    begins = time.perf_counter() + plan["warm_up"]
    ends, cpu, begun = begins + plan["seconds"], 0.0, 0.0
    while (now := time.perf_counter()) < ends:
        if not begun and now >= begins:
            begun, cpu, times = now, time.process_time(), []
        ready = poll.poll(_SILENCE_SECONDS)
        if not ready:
            raise TimeoutError(f"no reply in {_SILENCE_SECONDS:.0f} seconds")
        for handle, _ in ready:
            connection = by_handle[handle]
            if connection.receive():
                times.append(time.perf_counter() - connection.sent)
                connection.send()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    for connection in connections:
        connection.socket.close()
    times.sort()
    p50, p99 = (1e3 * times[min(len(times) - 1, int(q * len(times)))] if times else 0.0 for q in (0.5, 0.99))
    return Found(replies=len(times), seconds=seconds, cpu_seconds=cpu, p50_ms=p50, p99_ms=p99)


if __name__ == "__main__":
    print(json.dumps(asdict(_loop(json.loads(sys.argv[1])))))
