"""Probes that look at a server while it works: the memory of its process tree, and a control workload for the machine.

Only looks, from outside, through `bench.processes`; asks the server nothing and judges nothing.
"""

import os
import threading
import time
from dataclasses import dataclass, field, replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from seatrial.optimize.errors import MachineError

from ..measurement import NOTHING, Unavailable
from ..processes import alive as alive
from ..processes import forget_high_water, group_peak, proportional, resident, tree
from .growth import Growth, growth
from .usage import Look, Memory, MemorySeries

INTERVAL = 0.02  # seconds between looks
POINTS = 300  # of the series that is kept, at most twice as many
_TREE_EVERY = 10  # looks between two searches for new children
_PSS_EVERY = 1.0  # seconds; the kernel walks every page of the process for it


@dataclass(slots=True)
class MemoryProbe:
    """Watches the tree below some root processes from entering the context to leaving it; `result` tells.

    Without root processes it does nothing, and `usage` is unavailable.

    Raises:
        MachineError: a root process is not there (when asked for the result, where none was ever seen).
    """

    pids: tuple[int, ...]
    interval: float = INTERVAL
    start: float = 0.0
    _peak: int = 0
    _loading: int = 0
    _reset: bool = False
    _anonymous: int = 0
    _peak_pss: int = 0
    _next_pss: float = 0.0
    _looks: int = 0
    _tree: list[int] = field(default_factory=list)
    _marks: dict[int, int] = field(default_factory=dict)  # at the last look, since the reset
    _high: dict[int, int] = field(default_factory=dict)  # ever
    _group: int | None = None
    _last: Look | None = None
    _series: list[Look] = field(default_factory=list)
    _stride: int = 1  # looks per point of the series
    _gathered: int = 0  # looks in the last point
    _phases: dict[str, Look] = field(default_factory=dict)
    _answered: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "MemoryProbe":
        self.start = time.monotonic()
        if not self.pids:
            return self
        self._look(pss=True)
        self._loading, self._peak = sum(self._high.values()), 0
        anew = [pid for pid in self._tree if forget_high_water(pid)]
        self._reset = bool(anew) and len(anew) == len(self._tree)
        self._marks = {pid: mark for pid, mark in self._marks.items() if pid not in anew}
        self._look()
        self._thread = threading.Thread(target=self._watch, name="memory probe", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._look(pss=True)

    def mark(self, name: str) -> None:
        """Look now, and remember it as the state at a named moment (``loaded``, ``largest_first``)."""
        if self.pids:
            self._phases[name] = self._look(pss=True)

    def answered(self, times: npt.ArrayLike) -> None:
        """Tell when requests were answered, in seconds of this machine's monotonic clock, so that growth can be told
        per request."""
        self._answered.append(np.asarray(times, np.float64))

    @property
    def usage(self) -> Memory | Unavailable:
        """Return the values seen so far; unavailable without a reason where there is nothing to watch."""
        return self.result if self.pids else NOTHING

    @property
    def result(self) -> Memory:
        """Return the values seen so far.

        Raises:
            MachineError: no process was ever seen.
        """
        if not self._high:
            raise MachineError(
                "there is no process whose memory can be measured",
                where=f"process ids {list(self.pids)}",
                next_step="the server must run on this machine, as this user",
            )
        series, grown = self._told()
        last = self._last or Look(at=0.0, resident=0, anonymous=0, file=0, pss=0)
        return Memory(
            peak=max(self._loading, self._peak),
            loading=self._loading,
            running=self._peak,
            last=last.resident,
            last_file=last.file,
            peak_anonymous=self._anonymous,
            peak_pss=self._peak_pss,
            high_water=dict(self._high),
            processes=len(self._high),
            looks=self._looks,
            marks_reset=self._reset,
            group_peak=self._group,
            start=self.start,
            phases=dict(self._phases),
            series=series,
            growth=grown,
        )

    def _told(self) -> tuple[MemorySeries, Growth | Unavailable]:
        """The series, and the growth over that part of it in which requests were answered."""
        with self._lock:
            looks = list(self._series)
        series = MemorySeries(**{name: tuple(getattr(each, name) for each in looks) for name in _SERIES})
        if not any(times.size for times in self._answered):
            return series, NOTHING
        times = np.sort(np.concatenate(self._answered))
        moments = self.start + np.array(series.at)
        served = np.searchsorted(times, moments, side="right")
        during = (moments >= times[0]) & (moments <= times[-1])
        found = growth(served[during], np.array(series.anonymous)[during])
        return replace(series, requests=tuple(served.tolist())), found or NOTHING

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._look(pss=time.monotonic() >= self._next_pss)

    def _look(self, *, pss: bool = False) -> Look:
        """Sum up the tree; a process that has ended no longer counts."""
        with self._lock:
            if pss or self._looks % _TREE_EVERY == 0:
                self._tree = tree(self.pids)
            spike = now = anonymous = file = 0
            for pid in self._tree:
                seen = resident(pid)
                if seen is None:
                    continue
                spike += max(seen.now, seen.high_water if seen.high_water > self._marks.get(pid, 0) else 0)
                now, anonymous, file = now + seen.now, anonymous + seen.anonymous, file + seen.file
                self._marks[pid] = seen.high_water
                self._high[pid] = max(seen.high_water, self._high.get(pid, 0))
            if pss:
                self._next_pss = time.monotonic() + _PSS_EVERY
            shared_out = sum(map(proportional, self._tree)) if pss else 0
            return self._noted(
                spike,
                Look(at=time.monotonic() - self.start, resident=now, anonymous=anonymous, file=file, pss=shared_out),
            )

    def _noted(self, spike: int, look: Look) -> Look:
        """Keep a look; one at which no process was left (the server died) changes nothing."""
        self._looks += 1
        if not look.resident:
            return self._last or look
        if not look.pss and self._last is not None:
            look = replace(look, pss=self._last.pss)
        self._last = look
        self._peak, self._peak_pss = max(self._peak, spike), max(self._peak_pss, look.pss)
        self._anonymous = max(self._anonymous, look.anonymous)
        self._group = group_peak(self.pids[0]) if self._looks % _TREE_EVERY == 1 else self._group
        if not self._series or self._gathered == self._stride:
            self._series.append(look)
            self._gathered = 0
        self._series[-1] = higher(self._series[-1], look)
        self._gathered += 1
        if len(self._series) == 2 * POINTS:
            self._series = [higher(*pair) for pair in zip(self._series[::2], self._series[1::2], strict=True)]
            self._stride = self._gathered = 2 * self._stride
        return look


_SERIES = ("at", "resident", "anonymous", "file", "pss")


def higher(one: Look, other: Look) -> Look:
    """The look that found more in memory, so that thinning loses no peak; the earlier where they are equal."""
    return other if other.resident > one.resident else one


def control_seconds(repeats: int = 60, size: int = 256) -> float:
    """Median time of a fixed matrix product: what the machine itself can do now, whatever model is served.

    On one core where the caller pinned one; 256 x 256 in float32 takes well under a millisecond a time. On two busy
    virtual cores the log ratio of two such medians has a standard deviation of 16 % at 15 repeats, 3 to 6 % from 60 on.
    """
    matrix = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        matrix = matrix @ matrix
        times.append(time.perf_counter() - start)
        matrix /= np.abs(matrix).max()
    return float(np.median(times))


def load_average() -> float:
    """Runnable processes per core over the last minute: above 1 other work competes with the measurement."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))
