"""Probes that look at a server while it works: the memory of its process tree, and a control workload for the machine.

Only looks, from outside, through ``/proc`` and psutil; asks the server nothing and judges nothing.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from optimize.errors import MachineError

INTERVAL = 0.02  # seconds between looks
_TREE_EVERY = 10  # looks between two searches for new children
_PSS_EVERY = 1.0  # seconds; the kernel walks every page of the process for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Host memory of a process tree in bytes.

    `peak` is the highest sum of resident memory, with each process counted at its own kernel high-water mark
    (``VmHWM``) in the interval in which that mark rose, so that spikes between two looks are not missed. Shared pages
    count once per process; `peak_pss` shares them out, but is only looked at once a second. `last` is the sum at the
    end: what stays. `high_water` is ``VmHWM`` by process id. GPU memory is not in it.
    """

    peak: int
    last: int
    peak_pss: int
    high_water: dict[int, int]
    processes: int
    looks: int

    def to_json(self) -> dict[str, Any]:
        """JSON values; process ids become text."""
        return {
            "peak": self.peak,
            "last": self.last,
            "peak_pss": self.peak_pss,
            "high_water": {str(pid): value for pid, value in self.high_water.items()},
            "processes": self.processes,
            "looks": self.looks,
        }


@dataclass(slots=True)
class MemoryProbe:
    """Watches the tree below some root processes from entering the context to leaving it; `result` tells.

    The high-water marks reach back to the start of each process, so loading the model counts too.

    Raises:
        MachineError: a root process is not there (on leaving, where none was ever seen).
    """

    pids: tuple[int, ...]
    interval: float = INTERVAL
    _peak: int = 0
    _last: int = 0
    _peak_pss: int = 0
    _looks: int = 0
    _tree: list[int] = field(default_factory=list)
    _marks: dict[int, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "MemoryProbe":
        self._thread = threading.Thread(target=self._watch, name="memory probe", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._look()

    @property
    def result(self) -> Memory:
        """What was seen so far.

        Raises:
            MachineError: no process was ever seen.
        """
        if not self._marks:
            raise MachineError(
                "no process to measure memory of",
                where=f"process ids {list(self.pids)}",
                next_step="the server must run on this machine, as this user",
            )
        return Memory(
            peak=self._peak,
            last=self._last,
            peak_pss=self._peak_pss,
            high_water=dict(self._marks),
            processes=len(self._marks),
            looks=self._looks,
        )

    def _watch(self) -> None:
        next_pss = 0.0
        while not self._stop.is_set():
            if self._looks % _TREE_EVERY == 0:
                self._tree = tree(self.pids)
            if time.monotonic() >= next_pss:
                self._peak_pss = max(self._peak_pss, sum(map(proportional, self._tree)))
                next_pss = time.monotonic() + _PSS_EVERY
            self._look()
            self._stop.wait(self.interval)

    def _look(self) -> None:
        total = spike = 0
        for pid in self._tree or tree(self.pids):
            seen = resident(pid)
            if seen is None:
                continue
            now, mark = seen
            spike += max(now, mark if mark > self._marks.get(pid, 0) else 0)
            total += now
            self._marks[pid] = max(mark, self._marks.get(pid, 0))
        self._looks += 1
        self._peak = max(self._peak, spike)
        self._last = total or self._last


def tree(pids: tuple[int, ...]) -> list[int]:
    """The processes and all their living descendants."""
    found: dict[int, None] = {}
    for pid in pids:
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = None
        except psutil.Error:
            continue
    return list(found)


def alive(pids: tuple[int, ...]) -> bool:
    """Whether every one of these processes still runs (a zombie does not)."""
    try:
        return all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)
    except psutil.Error:
        return False


def resident(pid: int) -> tuple[int, int] | None:
    """Resident bytes now and at most (``VmRSS``, ``VmHWM``); None where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    values = {}
    for line in text.splitlines():
        if line.startswith(("VmRSS:", "VmHWM:")):
            values[line[:5]] = int(line.split()[1]) * 1024
    if "VmRSS" not in values:
        return None
    return values["VmRSS"], max(values.get("VmHWM", 0), values["VmRSS"])


def proportional(pid: int) -> int:
    """Proportional set size in bytes: shared pages divided among their users; 0 where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def control_seconds(repeats: int = 60, size: int = 256) -> float:
    """Median time of a fixed matrix product: what the machine itself can do now, whatever model is served.

    On one core where the caller pinned one; 256 x 256 in float32 takes well under a millisecond a time. On two busy
    virtual cores the log ratio of two such medians has a standard deviation of 16 % at 15 repeats, 3 to 6 % from 60 on.
    """
    import numpy as np

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
