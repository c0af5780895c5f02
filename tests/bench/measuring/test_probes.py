"""Probes on real processes: children that take and give back memory, map files, and one that is not there."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from seatrial.bench import processes
from seatrial.bench.measuring import probes
from seatrial.bench.measuring.growth import Growth
from seatrial.bench.measuring.usage import Look
from seatrial.optimize.errors import MachineError

MIB = 1 << 20
SPIKE = """
import sys, time
sys.stdin.readline()
block = bytearray(100 << 20)
block[::4096] = b"x" * len(block[::4096])
del block
print("done", flush=True)
sys.stdin.readline()
"""
MAPPED = """
import mmap, sys
sys.stdin.readline()
print("running", flush=True)
sys.stdin.readline()
with open(sys.argv[1], "rb") as stream:
    view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    total = sum(view[::4096])
print("mapped", flush=True)
sys.stdin.readline()
"""
GROWING = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytes(b"x" * (1 << 20)))
    print("grown", flush=True)
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
sys.stdin.read()
child.kill()
child.wait()
"""
HOLD = "block = bytearray(60 << 20); block[::4096] = b'x' * len(block[::4096]); import time; time.sleep(30)"


@contextmanager
def talking(code: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A child that reads a line before each of its acts; ended with the block."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def told(child: "subprocess.Popen[str]") -> str:
    """Let the child do its next act, and wait for its answer."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def test_a_spike_shorter_than_a_look_is_seen_through_the_kernels_high_water_mark() -> None:
    with talking(SPIKE) as child:
        with probes.MemoryProbe((child.pid,), interval=0.5) as probe:
            assert told(child) == "done"
        memory = probe.result
    assert memory.peak >= memory.last + 80 * MIB
    assert memory.high_water[child.pid] == memory.peak == memory.running
    assert memory.loading is not None
    assert memory.loading < memory.peak - 80 * MIB
    assert memory.peak_pss


def test_a_spike_before_the_probe_is_the_loading_and_not_what_runs_now() -> None:
    with talking(SPIKE + "sys.stdin.readline()") as child:
        assert told(child) == "done"
        with probes.MemoryProbe((child.pid,)) as probe:
            pass
        memory = probe.result
    assert memory.peak == memory.loading
    assert memory.peak >= memory.last + 80 * MIB
    assert memory.running is not None
    assert not memory.marks_reset or memory.running < memory.peak - 80 * MIB


def test_the_page_cache_of_a_mapped_file_is_told_apart(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(MIB) * 48)
    with talking(MAPPED, str(weights)) as child, probes.MemoryProbe((child.pid,)) as probe:
        assert told(child) == "running"
        probe.mark("loaded")
        assert told(child) == "mapped"
        probe.mark("mapped")
    memory = probe.result
    before, after = memory.phases["loaded"], memory.phases["mapped"]
    assert after.file - before.file > 40 * MIB
    assert after.anonymous - before.anonymous < 8 * MIB
    assert memory.peak_anonymous is not None
    assert memory.peak_anonymous < memory.peak - 40 * MIB


@pytest.mark.slow
def test_growth_is_told_per_request_where_the_answers_times_are_known() -> None:
    with talking(GROWING) as child:
        with probes.MemoryProbe((child.pid,)) as probe:
            grown = list[float]()
            for _ in range(20):
                assert told(child) == "grown"
                grown.append(time.monotonic())
                time.sleep(0.03)
            probe.answered(np.repeat(grown, 100))  # a hundred requests each, however long one took
        memory = probe.result
    assert memory.series is not None
    assert memory.series.requests is not None
    assert memory.series.requests[-1] == 2000
    assert isinstance(memory.growth, Growth)
    assert 0.7 * 20 < memory.growth.slope * 2 / MIB < 1.3 * 20
    assert memory.growth.lower > 0


def test_without_processes_on_this_machine_there_is_nothing_to_tell() -> None:
    with probes.MemoryProbe(()) as probe:
        probe.mark("loaded")
    assert probe.usage.to_json() == {}


def test_a_long_series_is_thinned_evenly_and_keeps_its_peak() -> None:
    probe = probes.MemoryProbe((os.getpid(),))
    for index in range(5000):
        size = 900 if index == 1234 else 100 + index % 7
        probe._noted(size, Look(at=float(index), resident=size, anonymous=size, file=0, pss=1))
    at = np.array([look.at for look in probe._series])
    assert len(at) < 2 * probes.POINTS
    assert max(look.resident for look in probe._series) == 900
    assert np.diff(at).max() <= 2 * 5000 / probes.POINTS
    assert probe._last is not None
    assert probe._last.at == 4999


def test_children_of_the_server_count() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, HOLD], stdin=subprocess.PIPE)
    try:
        with probes.MemoryProbe((parent.pid,)) as probe:
            for _ in range(200):
                time.sleep(0.05)
                if len(probe._high) >= 2 and probe.result.last > 60 * MIB:
                    break
        memory = probe.result
    finally:
        parent.communicate(timeout=60)
    assert memory.processes == 2
    assert memory.peak > 60 * MIB
    assert memory.looks
    assert memory.looks > 2
    written = memory.to_json()
    assert written["high_water"] == {str(pid): mark for pid, mark in memory.high_water.items()}
    assert len(written["series"]["at"]) == len(written["series"]["resident"]) == len(written["series"]["pss"]) > 2


def test_a_process_that_is_not_there_is_an_error_not_a_zero() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=60)
    with probes.MemoryProbe((gone.pid,)) as probe:
        pass
    with pytest.raises(MachineError):
        _ = probe.result
    assert not probes.alive((gone.pid,))
    assert processes.resident(gone.pid) is None


def test_the_kernels_own_figures_are_read_right() -> None:
    seen = processes.resident(os.getpid())
    assert seen is not None
    pages = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(seen.now - pages) < 16 * MIB
    assert seen.high_water >= seen.now > processes.proportional(os.getpid()) * 0.5 > 0
    assert abs(seen.anonymous + seen.file - seen.now) < MIB
    assert probes.alive((os.getpid(),))


def test_the_peak_of_the_control_group_is_told_where_the_kernel_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::/")]
    if not groups:
        pytest.skip("this kernel has no cgroups of version 2")
    monkeypatch.setattr(processes, "_CGROUPS", (tmp_path / "gone", tmp_path))
    assert processes.group_peak(os.getpid()) is None
    place = tmp_path / groups[0].removeprefix("0::/")
    place.mkdir(parents=True, exist_ok=True)
    (place / "memory.peak").write_text("123456\n")
    assert processes.group_peak(os.getpid()) == 123456


def test_who_listens_on_a_port_is_found() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert processes.listener(server.getsockname()[1]) == (os.getpid(),)
    assert processes.listener(1) == ()


def test_the_control_workload_takes_time_and_little_of_it() -> None:
    assert 1e-6 < probes.control_seconds() < 5.0
    assert probes.load_average() >= 0
