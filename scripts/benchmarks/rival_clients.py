"""Other HTTP clients under the closed loop of `seatrial load`, one process each: how many requests a CPU second buys.

``python -m scripts.benchmarks.rival_clients NAME HOST:PORT MODEL PAYLOAD SECONDS CONCURRENCY`` prints one JSON line.
Every reply must be a 200. Run by `bench_load`, pinned by it; gevent patches this process, so nothing else is measured.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import numpy as np  # noqa: E402
from gevent import socket  # noqa: E402

from seatrial.bench.load.payload import Payload  # noqa: E402

RAMP_SECONDS = 0.7


class Request:
    """One request, whole and in the pieces that general clients ask for."""

    def __init__(self, address: str, model: str, payload: Path) -> None:
        self.address, self.model = address, model
        self.host, port = address.split(":")
        self.port = int(port)
        self.whole = Payload.read(payload).requests[0]
        head, _, self.body = self.whole.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        self.path = line.split(" ")[1]
        self.headers = dict(
            field.split(": ", 1) for field in fields if not field.startswith(("Host", "Content-Length"))
        )


def raw_socket(request: Request) -> Callable[[], None]:
    """The least that can be done: one send, one receive."""
    opened = socket.create_connection((request.host, request.port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send() -> None:
        opened.sendall(request.whole)
        assert opened.recv(65536).startswith(b"HTTP/1.1 200")

    return send


def geventhttpclient(request: Request) -> Callable[[], None]:
    """The HTTP client below FastHttpUser and tritonclient."""
    from geventhttpclient import HTTPClient

    client = HTTPClient(request.host, request.port, concurrency=1)

    def send() -> None:
        reply = client.post(request.path, body=request.body, headers=request.headers)
        reply.read()
        assert reply.status_code == 200

    return send


def tritonclient(request: Request) -> Callable[[], None]:
    """NVIDIA's own client, its tensors made once."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient(request.address, concurrency=1)
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.zeros((1, 4), np.float32))
    asked = [triton.InferRequestedOutput("y")]

    def send() -> None:
        assert client.infer(request.model, [given], outputs=asked).as_numpy("y").shape == (1, 4)

    return send


CLIENTS = {client.__name__: client for client in (raw_socket, geventhttpclient, tritonclient)}


def plain(
    make: Callable[[Request], Callable[[], None]], request: Request, seconds: float, users: int
) -> dict[str, Any]:
    """Greenlets that call a client back to back."""
    count = [0]

    def loop() -> None:
        send = make(request)
        while True:
            send()
            count[0] += 1

    greenlets = [gevent.spawn(loop) for _ in range(users)]
    found = measured(lambda: count[0], seconds)
    assert not any(greenlet.ready() for greenlet in greenlets), "a client broke"
    return found


def locust_user(name: str, request: Request, seconds: float, users: int) -> dict[str, Any]:
    """Locust's own HTTP users with their own statistics, no wait between tasks."""
    import locust
    from locust.env import Environment

    base: Any = getattr(locust, name)

    def send(self: Any) -> None:
        self.client.post(request.path, data=request.body, headers=request.headers)

    user = type("Rival", (base,), {"tasks": [send], "host": f"http://{request.address}"})
    environment = Environment(user_classes=[user])
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=1000)
    found = measured(lambda: int(environment.stats.total.num_requests), seconds)
    assert environment.stats.total.num_failures == 0
    return found


def measured(count: Callable[[], int], seconds: float) -> dict[str, Any]:
    """Requests, and the processor seconds that this process spent on them."""
    gevent.sleep(RAMP_SECONDS)
    before, used, began = count(), _cpu(), time.monotonic()
    gevent.sleep(seconds)
    return {"requests": count() - before, "cpu_s": _cpu() - used, "elapsed_s": time.monotonic() - began}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(name: str, address: str, model: str, payload: str, seconds: str, users: str) -> None:
    request = Request(address, model, Path(payload))
    if name in CLIENTS:
        found = plain(CLIENTS[name], request, float(seconds), int(users))
    else:
        found = locust_user(name, request, float(seconds), int(users))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
