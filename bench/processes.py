"""Process information from the kernel: process trees, liveness, current and peak memory.

Reads ``/proc`` and psutil; the one thing it ever writes is the order to forget a high-water mark. Watches nothing over
time: that is `bench.measuring.probes`.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_FORGET_HIGH_WATER = "5"  # what /proc/PID/clear_refs takes for it, see proc_pid_clear_refs(5)

_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))  # alone, or beside version 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Bytes of one process in memory: `now`, and at most since its start or since `forget_high_water` (`high_water`).

    `anonymous` is what it allocated, shared segments included (``RssAnon + RssShmem``); `file` is the page cache of
    mapped files (``RssFile``: libraries and mapped weights), which the kernel can drop and which others may share.
    """

    now: int
    high_water: int
    anonymous: int
    file: int


def resident(pid: int) -> Resident | None:
    """The memory of a process; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    values = {name: int(rest.split()[0]) * 1024 for name, rest in _lines(text) if name.startswith(("Vm", "Rss"))}
    if "VmRSS" not in values:  # a zombie, or a thread of the kernel
        return None
    return Resident(
        now=values["VmRSS"],
        high_water=max(values.get("VmHWM", 0), values["VmRSS"]),
        anonymous=values.get("RssAnon", 0) + values.get("RssShmem", 0),
        file=values.get("RssFile", 0),
    )


def proportional(pid: int) -> int:
    """Proportional set size in bytes: shared pages divided among their users; 0 where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(rest.split()[0]) * 1024 for name, rest in _lines(text) if name == "Pss"), 0)


def forget_high_water(pid: int) -> bool:
    """Let the kernel's high-water mark start anew at what the process holds now; whether that was allowed."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(_FORGET_HIGH_WATER)
    except OSError:
        return False
    return True


def group_peak(pid: int) -> int | None:
    """Bytes that the process's cgroup (v2) held at most, page cache and neighbours in it included; None if unknown."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    for mount in _CGROUPS if group is not None else ():
        with suppress(OSError, ValueError):
            return int((mount / str(group) / "memory.peak").read_text())
    return None


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
    """Return whether each of these processes still runs (a zombie does not)."""
    try:
        return all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)
    except psutil.Error:
        return False


def listener(port: int) -> tuple[int, ...]:
    """The process that listens on a TCP port of this machine; empty where that is not to be known."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            address: Any = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address.port == port and connection.pid:
                return (connection.pid,)
    return ()


def described(pid: int) -> str:
    """A process for people: ``tritonserver (4711)``."""
    try:
        return f"{psutil.Process(pid).name()} ({pid})"
    except psutil.Error:
        return f"process {pid}"


def _lines(text: str) -> list[tuple[str, str]]:
    """``Name:   value`` lines of a file under /proc."""
    parts = (line.partition(":") for line in text.splitlines())
    return [(name, rest) for name, colon, rest in parts if colon and rest.strip()]
