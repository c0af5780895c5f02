"""Edge, measured: changes of shares without a lost request, and the cost of Envoy in the path.

Real Triton, real Envoy; the models tell their own version, so a request that went astray is seen.
"""

import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.teller import Grpc, Http, Told, telling, upstream
from seatrial.serve.traffic.edge import Edge, Model
from seatrial.serve.traffic.envoy.on_envoy import serving
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.server import Server

REQUESTS = 20_000
UPDATES = 60
LONGEST = 160.0  # seconds, after which a row ends whatever it has
RATE = 200.0
SLOT_SECONDS = 2.0
PAIRS = 15
_SENDERS = 8


@contextmanager
def edged(folder: Path) -> Iterator[tuple[Server, Proxy]]:
    """Triton with the telling model, and an edge before it."""
    with telling(folder, ("teller",)) as server:
        edge = Edge(schema=1, port=0, server=upstream(server), models=(Model(name="teller"),))
        start = Routes(model="teller", stable=1, candidate=2)
        with serving(edge, [start]) as proxy:
            yield server, proxy


def weights(folder: Path) -> Row:
    """60 weight updates while 8 clients ask, half over HTTP, half over gRPC."""
    with edged(folder) as (_, proxy), ThreadPoolExecutor(8) as pool:
        until, changed, took = time.monotonic() + LONGEST, threading.Event(), list[float]()
        clients = [kind(proxy.url) for kind in (Http, Grpc) for _ in range(4)]
        asking = [pool.submit(_ask, client, changed, until) for client in clients]
        random_, router = random.Random(1), EnvoyRouter(proxy)
        for _ in range(UPDATES):
            began = time.monotonic()
            router.apply(Routes(model="teller", stable=1, candidate=2, share=random_.randrange(1, 10**6) / 10**6))
            took.append(time.monotonic() - began)
        changed.set()
        told = [each.result() for each in asking]
    every = sum(told, Counter())
    astray = sum(count for (kind, _), count in every.items() if kind == "astray")
    failed = sum(count for (kind, _), count in every.items() if kind == "failed")
    over = {name: sum(sum(each.values()) for each in half) for name, half in (("HTTP", told[:4]), ("gRPC", told[4:]))}
    arms = {version: every[("answered", version)] for version in (1, 2)}
    return Row(
        name="weights",
        claim=f"{len(took)} weight updates (median {statistics.median(took):.2f} s each, checked and read back) under "
        f"load of {over['HTTP']} HTTP and {over['gRPC']} gRPC requests, {arms[1]} to version 1 and {arms[2]} to 2",
        value=f"{failed} failed, {astray} mis-versioned",
        bar=f"0 and 0 of at least {REQUESTS}",
        met=failed == astray == 0 and every.total() >= REQUESTS and len(took) == UPDATES and min(arms.values()) > 0,
    )


def _ask(client: Http | Grpc, changed: threading.Event, until: float) -> Counter[tuple[str, int]]:
    """Ask until the updates are over and this client's part of the requests is done."""
    found: Counter[tuple[str, int]] = Counter()
    while (not changed.is_set() or found.total() < REQUESTS // 8) and time.monotonic() < until:
        found[_kind(client)] += 1
    client.close()
    return found


def _kind(client: Http | Grpc) -> tuple[str, int]:
    try:
        told: Told = client.ask()
    except OSError:  # a connection that broke is a failed request
        return "failed", 0
    if told.status not in (0, 200):
        return "failed", told.status
    right = told.version in (1, 2) and str(told.version) == told.labelled
    return "answered" if right else "astray", told.version


def edge_cost(folder: Path) -> Row:
    """Open loop at 200 requests a second, in turns directly and through Envoy."""
    with edged(folder) as (server, proxy):
        envoy = psutil.Process(proxy.pid)
        http, failed, cpu = _turns({"direct": server.url, "envoy": proxy.url}, _http_sender, envoy)
        grpc, more, grpc_cpu = _turns({"direct": server.grpc_url, "envoy": proxy.url}, _grpc_sender, envoy)
    added, added_grpc = _added(http, 0.5), _added(grpc, 0.5)
    return Row(
        name="edge-cost",
        claim=f"Envoy in the path, {RATE:.0f} requests a second open loop, {PAIRS} pairs of {SLOT_SECONDS:.0f} s for "
        f"each protocol; direct p50 {_median(http['direct']):.2f} ms HTTP, {_median(grpc['direct']):.2f} ms gRPC",
        value=f"added p50 {added:.2f} ms HTTP, {added_grpc:.2f} ms gRPC (p99 {_added(http, 0.99):+.2f}, "
        f"{_added(grpc, 0.99):+.2f}); {failed + more} errors; Envoy's CPU {cpu:.0f} and {grpc_cpu:.0f} us a request",
        bar="added p50 <= 1 ms, no error",
        met=max(added, added_grpc) <= 1.0 and failed + more == 0,
    )


Slots = dict[str, list[list[float]]]
Sender = Callable[[str], tuple[Callable[[], bool], Callable[[], None]]]


def _turns(arms: dict[str, str], sender: Sender, envoy: psutil.Process) -> tuple[Slots, int, float]:
    """Latencies (ms) of each slot by arm, failures, and Envoy's CPU microseconds for each request through it."""
    found: Slots = {name: [] for name in arms}
    failed, seconds = 0, 0.0
    for number in range(-1, PAIRS):
        order = tuple(arms) if number % 2 else tuple(reversed(arms))
        for name in order:
            before = _cpu(envoy)
            latencies, errors = _slot(arms[name], sender, SLOT_SECONDS if number >= 0 else 1.0)
            if number < 0:  # the first pair warms up
                continue
            found[name].append(latencies)
            failed += errors
            seconds += _cpu(envoy) - before if name == "envoy" else 0.0
    return found, failed, 1e6 * seconds / sum(map(len, found["envoy"]))


def _slot(url: str, sender: Sender, seconds: float) -> tuple[list[float], int]:
    """Every sender takes each eighth of the arrivals; a latency counts from when its request was due."""
    began, due = time.perf_counter() + 0.1, random.Random(7)
    arrivals, at = list[float](), began
    while at < began + seconds:
        arrivals.append(at)
        at += due.expovariate(RATE)
    with ThreadPoolExecutor(_SENDERS) as pool:
        parts = list(pool.map(lambda n: _send(url, sender, arrivals[n::_SENDERS]), range(_SENDERS)))
    return [latency for latencies, _ in parts for latency in latencies], sum(errors for _, errors in parts)


def _send(url: str, sender: Sender, arrivals: Sequence[float]) -> tuple[list[float], int]:
    ask, close = sender(url)
    found, failed = list[float](), 0
    for due in arrivals:
        time.sleep(max(0.0, due - time.perf_counter()))
        failed += not ask()
        found.append(1000 * (time.perf_counter() - due))
    close()
    return found, failed


def _http_sender(url: str) -> tuple[Callable[[], bool], Callable[[], None]]:
    """One connection and one ready request: as little of a client's own time as can be."""
    body = b'{"inputs":[{"name":"x","datatype":"INT32","shape":[2],"data":[0,0]}]}'
    head = f"POST /v2/models/teller/versions/1/infer HTTP/1.1\r\nhost: edge\r\ncontent-length: {len(body)}\r\n\r\n"
    host, _, port = url.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10.0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = head.encode() + body

    def ask() -> bool:
        connection.sendall(request)
        answer = b""
        while b"]}]}" not in answer:
            part = connection.recv(65536)
            if not part:
                return False
            answer += part
        return answer.startswith(b"HTTP/1.1 200")

    return ask, connection.close


def _grpc_sender(url: str) -> tuple[Callable[[], bool], Callable[[], None]]:
    client = Grpc(url)
    return lambda: client.ask(version=1).status == 0, client.close


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quantile(latencies: Sequence[float], share: float) -> float:
    return sorted(latencies)[min(len(latencies) - 1, int(share * len(latencies)))]


def _median(slots: Sequence[Sequence[float]]) -> float:
    return statistics.median(_quantile(slot, 0.5) for slot in slots)


def _added(found: Slots, share: float) -> float:
    """The median over pairs of what the quantile grew by."""
    pairs = zip(found["envoy"], found["direct"], strict=True)
    return statistics.median(_quantile(through, share) - _quantile(direct, share) for through, direct in pairs)


ROWS: Rows = {"weights": weights, "edge-cost": edge_cost}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Measure the claims of the edge.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
