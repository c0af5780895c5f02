"""The load generator that Locust runs in its own process: arrivals sent on time, every reply's time kept raw.

Started by `bench.load.on_locust` with one JSON file of parameters, named in ``SEATRIAL_LOAD``; leaves one npz and one
JSON file per worker. Judges nothing and reads no TOML. The only file that may import locust or gevent.

`OpenLoop` sends each arrival at its absolute deadline whether or not earlier ones were answered. Locust's own waiting
times all start after the previous reply, so a server that stalls would also silence its load. `Offline` is the closed
loop: so many connections, back to back. Both stop by themselves, and when the process that started them is gone.
"""

import ctypes
import gc
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from math import floor, isnan, log10, nan
from pathlib import Path
from typing import Any

import gevent
import locust.stats
import numpy as np
from gevent import socket
from gevent.pool import Group
from locust import User, task

from bench.load.payload import Payload
from bench.load.run import CENSORED, OK, TRANSPORT
from bench.load.wire import Connection
from bench.schedule import Schedule
from optimize.store import write_atomically

WARMUP_SECONDS = 20.0  # for all warm-up requests together
GO_SECONDS = 60.0  # waiting for the word to start
LEAD_SECONDS = 250e-6  # waking up and fetching a connection take about so long; what is left of it is spun away
LEAD_SHARE = 0.1  # of the mean gap between arrivals, so that spinning takes at most so much of the core

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_ABSTIME = 1, os.O_NONBLOCK, os.O_CLOEXEC, 1

_FILES = 1 << 16

_now = time.monotonic  # one clock for every process of this machine, so that a start can be agreed on


def three_digits(milliseconds: float) -> float:
    """Locust's own tables with three significant digits; its default turns 0.4 ms into 0."""
    if milliseconds <= 0:
        return 0.0
    return round(milliseconds, 2 - floor(log10(milliseconds)))


class RequestFailed(Exception):
    """What Locust's tables show for a request that was not answered with 200."""


class Pacer:
    """Waits for absolute deadlines of the monotonic clock with a kernel timer.

    The event loop's own timers round up to whole milliseconds, more than many a model takes.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._hub = gevent.get_hub()
        self._readable = self._hub.loop.io(self._timer, 1)
        self._setting = (ctypes.c_long * 4)()  # interval s, ns; value s, ns

    def until(self, deadline: float) -> None:
        """Let others run until `deadline` (seconds), or once if it is past; late by a tenth of a millisecond."""
        if _now() >= deadline:
            gevent.sleep(0)
        while _now() < deadline:
            self._setting[2], self._setting[3] = int(deadline), int(deadline % 1.0 * 1e9)
            self._libc.timerfd_settime(self._timer, _TFD_ABSTIME, self._setting, None)
            self._hub.wait(self._readable)

    def close(self) -> None:
        """Give the kernel timer back."""
        self._readable.close()
        os.close(self._timer)


class _Generator(User):
    """What both loops share: parameters, warm connections, the common start, the window and the results."""

    abstract = True
    fixed_count = 1

    def on_start(self) -> None:
        self.given: dict[str, Any] = json.loads(Path(os.environ["SEATRIAL_LOAD"]).read_text())
        self.folder = Path(self.given["folder"])
        self.address = (self.given["host"], self.given["port"])
        self.requests = Payload.read(self.folder / "payload.npz").requests
        self.reasons: dict[int, str] = {}
        self.warmup_errors = 0
        if self.given["cores"]:
            os.sched_setaffinity(0, self.given["cores"])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        gevent.spawn(self._quit_when_orphaned)

    @task
    def run_once(self) -> None:
        """Run the load and leave, whatever happens: Locust would start a failed task again and again."""
        try:
            self.drive()
        except OSError as error:
            self._publish("failed.json", {"error": f"{type(error).__name__}: {error}"})
        finally:
            gevent.spawn(self.environment.runner.quit)
            gevent.sleep(GO_SECONDS)

    def drive(self) -> None:
        raise NotImplementedError

    def warm_connections(self, count: int) -> list[Connection]:
        """Open connections before the start, and send a few requests that are not recorded.

        A server that refuses each of them as malformed (4xx) would refuse the whole run, so that is said at once.
        """
        connections = [Connection(self.address, socket.create_connection) for _ in range(count)]
        for connection in connections:
            connection.open()
        until = _now() + WARMUP_SECONDS
        statuses, text = [], ""
        for index in range(self.given["warmup"]):
            if _now() > until:
                break
            connection = connections[index % count]
            connection.open()
            with gevent.Timeout(WARMUP_SECONDS, OSError(f"no reply to a warm-up request in {WARMUP_SECONDS:.0f} s")):
                status, text = connection.exchange(self.requests[index % len(self.requests)])
            statuses.append(status)
        self.warmup_errors = sum(status != OK for status in statuses)
        if statuses and all(400 <= status < 500 for status in statuses):
            raise OSError(f"the server refuses the requests: HTTP {statuses[-1]} {text}")
        return connections

    def agreed_start(self) -> float:
        """Say that this worker is ready, and learn when all start (monotonic seconds)."""
        gc.collect()  # tens of milliseconds, so not in the window
        gc.freeze()
        self._publish("ready.json", {})
        go, until = self.folder / "go.json", _now() + GO_SECONDS
        while not go.exists():
            if _now() > until:
                raise OSError("nobody gave the word to start")
            gevent.sleep(0.005)
        return float(json.loads(go.read_text())["start"])

    @contextmanager
    def window(self, about: dict[str, Any]) -> Iterator[None]:
        """The measured time: no garbage collection, and the processor time that this process used."""
        gc.disable()
        began, used = _now(), _cpu_seconds()
        try:
            yield
        finally:
            about["elapsed_s"], about["cpu_s"] = _now() - began, _cpu_seconds() - used
            gc.enable()

    def failure(self, status: int, text: str) -> RequestFailed | None:
        """What to tell Locust; keeps the first reason of each status."""
        if status == OK:
            return None
        self.reasons.setdefault(status, text)
        return RequestFailed(f"HTTP {status}" if status else "transport error")

    def report(self, kind: str, latency: float, failure: RequestFailed | None, context: dict[str, float]) -> None:
        """Hand one request to Locust's own statistics (milliseconds there)."""
        self.environment.events.request.fire(
            request_type=kind,
            name=self.given["name"],
            response_time=latency * 1e3,
            response_length=0,
            exception=failure,
            context=context,
        )

    def leave(self, about: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Write the results; the JSON file comes last and says that the run is complete."""
        staged = self.folder / f"{self._file('arrays')}.part.npz"
        np.savez(staged, **arrays)
        staged.replace(self.folder / f"{self._file('arrays')}.npz")
        about |= {
            "reasons": {str(status): text for status, text in self.reasons.items()},
            "warmup_errors": self.warmup_errors,
            "python": platform.python_version(),
            "locust": metadata.version("locust"),
            "gevent": metadata.version("gevent"),
        }
        self._publish("result.json", about)

    def _publish(self, name: str, value: dict[str, Any]) -> None:
        write_atomically(self.folder / self._file(name), json.dumps(value).encode())

    def _file(self, name: str) -> str:
        return f"worker-{self.given['worker']}-{name}"

    def _quit_when_orphaned(self) -> None:
        while os.getppid() == self.given["parent"]:
            gevent.sleep(0.5)
        self.environment.runner.quit()


class OpenLoop(_Generator):
    """Every arrival at its time: one dispatcher, and one greenlet per request in flight."""

    def drive(self) -> None:
        """Send this worker's share of the schedule; wait for late replies up to the drain limit."""
        given = self.given
        schedule = Schedule.read(self.folder / "schedule.npz")
        intended = schedule.share(given["worker"], given["workers"])
        sent, done = np.full(len(intended), nan), np.full(len(intended), nan)
        status = np.full(len(intended), CENSORED, np.int16)
        idle = self.warm_connections(min(given["in_flight"], given["connections"]))
        in_flight, pacer = Group(), Pacer()
        start = self.agreed_start()
        send = self._sender(start, intended, sent, done, status, idle)
        about: dict[str, Any] = {
            "schedule": schedule.digest,
            "start": start,
            "real_time": given["real_time"] and _real_time(),
        }
        lead = min(LEAD_SECONDS, LEAD_SHARE * given["workers"] / schedule.rate)
        pacer.until(start - 1e-3)
        with self.window(about):
            for index, wake in enumerate((intended + (start - lead)).tolist()):
                pacer.until(wake)
                if len(in_flight) < given["in_flight"]:
                    in_flight.spawn(send, index)
            pacer.until(start + schedule.seconds)
            in_flight.join(timeout=given["drain"])
            end = _now() - start
        in_flight.kill(block=True, timeout=5)
        done[np.isnan(done)] = end  # a lower bound: no reply by the end of the run
        pacer.close()
        for connection in idle:
            connection.close()
        self.leave(about, {"intended": intended, "sent": sent, "done": done, "status": status})

    def _sender(
        self, start: float, intended: Any, sent: Any, done: Any, status: Any, idle: list[Connection]
    ) -> Callable[[int], None]:
        requests, address = self.requests, self.address
        first, step = self.given["worker"], self.given["workers"]
        deadlines = (intended + start).tolist()

        def send(index: int) -> None:
            connection = idle.pop() if idle else Connection(address, socket.create_connection)
            text, due = "", deadlines[index]
            try:
                connection.open()
                while _now() < due:
                    pass
                sent[index] = _now() - start
                status[index], text = connection.exchange(requests[(first + index * step) % len(requests)])
            except OSError as error:
                connection.close()
                status[index], text = TRANSPORT, f"{type(error).__name__}: {error}"
                if isnan(sent[index]):
                    sent[index] = _now() - start
            done[index] = _now() - start
            idle.append(connection)
            latency, lag = done[index] - intended[index], sent[index] - intended[index]
            failure = self.failure(int(status[index]), text)
            self.report("open loop", latency, failure, {"service_ms": (latency - lag) * 1e3, "lag_ms": lag * 1e3})

        return send


class Offline(_Generator):
    """So many connections, each sending the next request as soon as the last is answered."""

    def drive(self) -> None:
        """Keep `concurrency` requests in flight for the agreed seconds; what is unanswered then does not count."""
        concurrency, seconds = self.given["concurrency"], self.given["seconds"]
        connections = self.warm_connections(concurrency)
        records: list[tuple[float, float, int]] = []
        start = self.agreed_start()
        about: dict[str, Any] = {"start": start, "concurrency": concurrency}
        gevent.sleep(max(0.0, start - _now()))
        with self.window(about):
            users = Group()
            for number, connection in enumerate(connections):
                users.spawn(self._back_to_back, connection, number, start, records)
            users.join(timeout=max(0.0, start + seconds - _now()))
        users.kill(block=True, timeout=5)
        for connection in connections:
            connection.close()
        sent, done, status = (
            (np.array(column) for column in zip(*records, strict=True)) if records else [np.empty(0)] * 3
        )
        self.leave(about, {"sent": sent, "done": done, "status": status.astype(np.int16)})

    def _back_to_back(
        self, connection: Connection, number: int, start: float, records: list[tuple[float, float, int]]
    ) -> None:
        step = self.given["concurrency"]
        while True:
            text, sent = "", _now()
            try:
                connection.open()
                status, text = connection.exchange(self.requests[number % len(self.requests)])
            except OSError as error:
                connection.close()
                status, text = TRANSPORT, f"{type(error).__name__}: {error}"
                gevent.sleep(0.05)  # a dead server refuses at once; do not spin on it
            number += step
            done = _now()
            records.append((sent - start, done - start, status))
            self.report("closed loop", done - sent, self.failure(status, text), {})


def _real_time() -> bool:
    """Let this process run as soon as a timer or a reply wakes it, where the machine allows that.

    It sleeps nearly always, so the server loses little; without it a busy neighbour on the same core delays sends by
    milliseconds. Not for the closed loop, which never sleeps and would starve the server.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return True


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# Locust's own bookkeeping: finer tables, and no charts of the run, which cost milliseconds every few seconds of it.
# (Its CSV files cost 3 to 5 ms each second; they work with this file, but `on_locust` does not ask for them.)
locust.stats.bucket_response_time = three_digits  # type: ignore[assignment]  # documented as replaceable; floats do
locust.stats.HISTORY_STATS_INTERVAL_SEC = 86400
