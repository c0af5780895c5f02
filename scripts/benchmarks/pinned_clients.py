"""Clients that ask for the version that the routes name at that moment, each in a process of its own.

Each answer of the model names the version that gave it, so every request is right, failed or mis-versioned. A request
is pinned when it is sent: one sent to version 1 must be answered by version 1, whatever was switched meanwhile.
"""

import http.client
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.versioned import NAME

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}]}).encode()
PAUSE_SECONDS = 0.003  # between an answer and the next request: busy cores, but not starved ones
CLIENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests sent, those not answered with 200, and those that another version answered; the longest
    took `longest` seconds; the first failure's text."""

    sent: int
    failed: int
    misversioned: int
    longest: float
    first_failure: str = ""


class Clients:
    """The running clients: the version they are to name, and what they counted so far."""

    def __init__(self, url: str, version: int, clients: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._route = context.Value("i", version)
        self._pinned = context.Array("i", clients)  # the version of each client's request in flight, or its last
        self._counts = context.Array("q", 3 * clients)
        self._longest = context.Array("d", clients)
        self._stop = context.Event()
        self._failures: Any = context.Queue()
        arguments = (url, self._route, self._pinned, self._counts, self._longest, self._stop, self._failures)
        self._processes = [context.Process(target=_ask, args=(each, *arguments)) for each in range(clients)]
        for process in self._processes:
            process.start()

    def route(self, version: int, timeout: float = 10.0) -> None:
        """Send to that version from now on; returns when no request to another is in flight, as a router does."""
        self._route.value = version
        until = time.monotonic() + timeout
        while any(pinned != version for pinned in self._pinned[:]):
            if time.monotonic() > until:
                raise TimeoutError("a client did not follow the route")
            time.sleep(0.0005)

    def counts(self) -> Counts:
        """Return the counts so far."""
        sent, failed, wrong = (sum(self._counts[each::3]) for each in range(3))
        first = "" if not failed or self._failures.empty() else str(self._failures.get())
        return Counts(sent=sent, failed=failed, misversioned=wrong, longest=max(self._longest[:]), first_failure=first)

    def stop(self) -> None:
        """End the clients."""
        self._stop.set()
        for process in self._processes:
            process.join(timeout=20.0)
            if process.is_alive():
                process.kill()


@contextmanager
def pinned_clients(url: str, version: int, *, clients: int = CLIENTS) -> Iterator[Clients]:
    """Clients for the length of a block, each already answered once when it begins."""
    running = Clients(url, version, clients)
    try:
        running.route(version, timeout=30.0)
        yield running
    finally:
        running.stop()


def _ask(me: int, url: str, route: Any, pinned: Any, counts: Any, longest: Any, stop: Any, failures: Any) -> None:
    connection = http.client.HTTPConnection(url, timeout=30.0)
    while not stop.is_set():
        version = route.value
        pinned[me] = version
        if route.value != version:
            continue  # the route moved between reading it and saying so
        counts[3 * me] += 1
        began = time.monotonic()
        try:
            connection.request("POST", f"/v2/models/{NAME}/versions/{version}/infer", BODY)
            reply = connection.getresponse()
            said = reply.read()
            if reply.status == 200:
                answer = json.loads(said)
                right = answer["model_version"] == str(version) and answer["outputs"][0]["data"] == [version]
                counts[3 * me + 2] += not right
            else:
                counts[3 * me + 1] += 1
                failures.put(f"{reply.status} {said.decode(errors='replace')[:200]}")
        except (OSError, http.client.HTTPException) as error:
            counts[3 * me + 1] += 1
            failures.put(repr(error))
            connection.close()
        longest[me] = max(longest[me], time.monotonic() - began)
        time.sleep(PAUSE_SECONDS)
