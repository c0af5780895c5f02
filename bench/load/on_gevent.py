"""The two loops of a load process, on gevent: arrivals sent on time, and connections kept busy; raw times of both.

Knows nothing of Locust, files or other processes. `OpenLoop` sends each arrival at its absolute deadline whether or
not earlier ones were answered; `ClosedLoop` keeps so many connections sending back to back. Times are the monotonic
clock's, one for every process of this machine, until `arrays` makes them seconds after the start.
"""

import ctypes
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import nan
from typing import Any, Protocol

import gevent
import numpy as np
from gevent import socket
from gevent.pool import Group

from ..schedule import Schedule
from .grpc_wire import GrpcConnection
from .run import CENSORED, OK, TRANSPORT, UNRECORDED, Floats
from .wire import Address, Connection, ForeignError, HttpConnection, Wire

WARMUP_SECONDS = 20.0  # for all warm-up requests together
LEAD_SECONDS = 250e-6  # waking up and fetching a connection take about so long; what is left of it is spun away
LEAD_SHARE = 0.05  # of the mean gap between arrivals, so that spinning takes at most so much of the core
STOPPED_DRAIN = 2.0  # seconds that late replies have after a run was stopped early

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_ABSTIME = 1, os.O_NONBLOCK, os.O_CLOEXEC, 1
_FOREIGN = -9  # of a warm-up request alone
_PAUSE = 0.05  # before the closed loop tries a dead server again

now = time.monotonic


class Loop(Protocol):
    """Interface of both loops for the load process."""

    reasons: dict[int, str]

    def run(self, start: float, stopped: Any) -> None:
        """Send from `start` (monotonic seconds) to the end of the run, or until the event `stopped` is set."""

    def fresh(self) -> tuple[Floats, list[int]]:
        """Latency (seconds) and status of every request that ended since the last call."""

    def recent(self, window: float) -> tuple[Floats, int]:
        """The waits of the last `window` seconds' requests, answered or not, and how many of them failed."""

    def arrays(self) -> dict[str, Any]:
        """The raw result after `run`: times in seconds after the start."""


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
        if now() >= deadline:
            gevent.sleep(0)
        while now() < deadline:
            self._setting[2], self._setting[3] = int(deadline), int(deadline % 1.0 * 1e9)
            self._libc.timerfd_settime(self._timer, _TFD_ABSTIME, self._setting, None)
            self._hub.wait(self._readable)

    def close(self) -> None:
        """Give the kernel timer back."""
        self._readable.close()
        os.close(self._timer)


def connector(protocol: Wire, address: Address) -> Callable[[], Connection]:
    """Return a factory of connections of a wire to an address; none is opened yet."""
    kind = GrpcConnection if protocol == "grpc" else HttpConnection
    return lambda: kind(address, socket.create_connection)


def warm(connections: Sequence[Connection], requests: Sequence[bytes], count: int) -> int:
    """Open the connections, send `count` requests that are not recorded, and return how many of them failed.

    A connection that breaks is a failed request, as it is in the run itself.

    Raises: OSError: there is no answer, every request is refused as malformed (4xx), or what answers speaks another
    protocol: so would be the whole run.
    """
    for connection in connections:
        connection.open()
    until = now() + WARMUP_SECONDS
    statuses, text = [], ""
    for index in range(count):
        if now() > until:
            break
        connection = connections[index % len(connections)]
        connection.open()
        with gevent.Timeout(WARMUP_SECONDS, TimeoutError(f"no reply to a warm-up request in {WARMUP_SECONDS:.0f} s")):
            try:
                status, text = connection.exchange(requests[index % len(requests)])
            except TimeoutError:
                raise
            except OSError as error:
                connection.close()
                status, text = _FOREIGN if isinstance(error, ForeignError) else TRANSPORT, str(error)
        statuses.append(status)
    if statuses and all(400 <= status < 500 for status in statuses):
        raise OSError(f"the server refused the requests: HTTP {statuses[-1]} {text}")
    if statuses and all(status == _FOREIGN for status in statuses):
        raise OSError(text)
    return sum(status != OK for status in statuses)


class OpenLoop:
    """Every arrival of a worker's share at its time: one dispatcher, and one sender per request in flight.

    A sender keeps its connection and waits for the next arrival: a fresh greenlet each would cost as much as a send.
    """

    def __init__(
        self,
        schedule: Schedule,
        requests: Sequence[bytes],
        connect: Callable[[], Connection],
        *,
        worker: int,
        workers: int,
        in_flight: int,
        drain: float,
    ) -> None:
        self._schedule, self._connect, self._in_flight, self._drain = schedule, connect, in_flight, drain
        self._intended = schedule.share(worker, workers)
        count = len(self._intended)
        self._requests = [requests[(worker + index * workers) % len(requests)] for index in range(count)]
        self._lead = min(LEAD_SECONDS, LEAD_SHARE * workers / schedule.peak_rate)
        self._sent, self._done = np.full(count, nan), np.full(count, nan)
        self._status = np.full(count, CENSORED, np.int16)
        self._ended: list[int] = []
        self._start = self._end = nan
        self._waiting: list[gevent.Greenlet] = []  # senders with nothing to do
        self._over = False
        self.idle: list[Connection] = []
        self.reasons: dict[int, str] = {}

    def run(self, start: float, stopped: Any) -> None:
        """Send this share of the schedule; wait for late replies up to the drain limit."""
        self._start = start
        senders, pacer = Group(), Pacer()
        dispatcher = gevent.spawn(self._dispatch, senders, pacer)
        gevent.wait([dispatcher, stopped], count=1)
        if not dispatcher.ready():
            dispatcher.kill()
        elif dispatcher.exception:
            raise dispatcher.exception
        self._over = True
        gevent.killall(self._waiting)
        drained = gevent.spawn(senders.join, timeout=self._drain)
        gevent.wait([drained, stopped], count=1)
        if stopped.is_set():
            drained.join(timeout=min(STOPPED_DRAIN, self._drain))
        drained.kill()
        self._end = now()
        senders.kill(block=True, timeout=5)
        pacer.close()
        for connection in self.idle:
            connection.close()

    def _dispatch(self, senders: Group, pacer: Pacer) -> None:
        send, waiting, resume = self._sender(), self._waiting, gevent.get_hub().loop.run_callback
        pacer.until(self._start - 1e-3)
        for index, wake in enumerate((self._intended + (self._start - self._lead)).tolist()):
            pacer.until(wake)
            if waiting:
                resume(waiting.pop().switch, index)
            elif len(senders) < self._in_flight:
                senders.spawn(send, index)
        pacer.until(self._start + self._schedule.seconds)

    def _sender(self) -> Callable[[int], None]:
        sent, done, status, requests = self._sent, self._done, self._status, self._requests
        ended, reasons, waiting, hub = self._ended.append, self.reasons, self._waiting, gevent.get_hub()
        deadlines = (self._intended + self._start).tolist()

        def send(index: int) -> None:
            connection = self.idle.pop() if self.idle else self._connect()
            try:
                exchange(connection, index)
                while not self._over:
                    waiting.append(gevent.getcurrent())
                    exchange(connection, hub.switch())  # back when the dispatcher has the next arrival
            finally:
                connection.close()

        def exchange(connection: Connection, index: int) -> None:
            due, begun = deadlines[index], 0.0
            try:
                connection.open()
                while now() < due:
                    pass
                sent[index] = begun = now()
                code, text = connection.exchange(requests[index])
                done[index] = now()
            except OSError as error:
                done[index] = now()
                connection.close()
                code, text = TRANSPORT, f"{type(error).__name__}: {error}"
                sent[index] = begun or done[index]
            status[index] = code
            if code != OK:
                reasons.setdefault(code, text)
            ended(index)

        return send

    def fresh(self) -> tuple[Floats, list[int]]:
        """As `Loop.fresh`: seconds from the intended send, [requests]."""
        ended = self._ended.copy()
        self._ended.clear()
        return self._done[ended] - self._intended[ended] - self._start, self._status[ended].tolist()

    def recent(self, window: float) -> tuple[Floats, int]:
        """As `Loop.recent`: seconds of the arrivals that were due in the window, [arrivals]."""
        at = now() - self._start
        first, last = np.searchsorted(self._intended, (at - window, at))
        done = self._done[first:last] - self._start
        ended = ~np.isnan(done)
        failed = np.count_nonzero(ended & (self._status[first:last] != OK))
        return np.where(ended, done, at) - self._intended[first:last], int(failed)

    def arrays(self) -> dict[str, Any]:
        """As `Loop.arrays`; unanswered arrivals end with the run, which bounds their latency from below."""
        end = self._end - self._start
        done, status = self._done - self._start, self._status.copy()
        waiting = np.isnan(done)
        done[waiting] = end
        unborn = waiting & (self._intended > end)
        done[unborn], status[unborn] = nan, UNRECORDED
        return {"intended": self._intended, "sent": self._sent - self._start, "done": done, "status": status}


class ClosedLoop:
    """So many connections, each sending the next request as soon as the last is answered."""

    def __init__(
        self, requests: Sequence[bytes], connections: Sequence[Connection], *, seconds: float, start_at: int = 0
    ) -> None:
        self._requests, self._connections, self._seconds, self._first = requests, connections, seconds, start_at
        self._sent: list[float] = []
        self._done: list[float] = []
        self._status: list[int] = []
        self._told = 0
        self._start = nan
        self.reasons: dict[int, str] = {}

    def run(self, start: float, stopped: Any) -> None:
        """Keep every connection busy for the agreed seconds; what is unanswered then does not count."""
        self._start = start
        gevent.sleep(max(0.0, start - now()))
        users = Group()
        for number, connection in enumerate(self._connections):
            users.spawn(self._back_to_back, connection, number)
        stopped.wait(timeout=max(0.0, start + self._seconds - now()))
        users.kill(block=True, timeout=5)
        for connection in self._connections:
            connection.close()

    def _back_to_back(self, connection: Connection, number: int) -> None:
        sent, done, status = self._sent.append, self._done.append, self._status.append
        exchange = connection.exchange
        for request in self._turn(number):
            begun = now()
            try:
                code, text = exchange(request)
                ended = now()
            except OSError as error:
                ended = now()
                connection.close()
                code, text = TRANSPORT, f"{type(error).__name__}: {error}"
            sent(begun)
            done(ended)
            status(code)
            if code != OK:
                self.reasons.setdefault(code, text)
            if code == TRANSPORT:
                gevent.sleep(_PAUSE)  # a dead server refuses at once; do not spin on it

    def _turn(self, number: int) -> Iterator[bytes]:
        """The requests of one of several connections, which together walk through all of them, without end."""
        requests, step = self._requests, len(self._connections)
        index = self._first + number
        while True:
            yield requests[index % len(requests)]
            index += step

    def fresh(self) -> tuple[Floats, list[int]]:
        """As `Loop.fresh`: seconds from the actual send, [requests]; there is no other."""
        first, self._told = self._told, len(self._status)
        part = slice(first, self._told)
        return np.array(self._done[part]) - np.array(self._sent[part]), self._status[part]

    def recent(self, window: float) -> tuple[Floats, int]:
        """As `Loop.recent`: seconds of the requests that ended in the window, [requests]."""
        part = slice(bisect_left(self._done, now() - window), None)
        waits = np.array(self._done[part]) - np.array(self._sent[part])
        return waits, sum(code != OK for code in self._status[part])

    def arrays(self) -> dict[str, Any]:
        """As `Loop.arrays`, in the order of the replies."""
        sent, done = np.array(self._sent, np.float64), np.array(self._done, np.float64)
        return {"sent": sent - self._start, "done": done - self._start, "status": np.array(self._status, np.int16)}
