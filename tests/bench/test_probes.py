"""Probes on real processes: a child that takes and gives back memory, and one that is not there."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import probes
from optimize.errors import MachineError

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
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
sys.stdin.read()
child.kill()
child.wait()
"""
HOLD = "block = bytearray(60 << 20); block[::4096] = b'x' * len(block[::4096]); import time; time.sleep(30)"


def test_a_spike_shorter_than_a_look_is_seen_through_the_kernels_high_water_mark() -> None:
    child = subprocess.Popen([sys.executable, "-c", SPIKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with probes.MemoryProbe((child.pid,), interval=0.5) as probe:
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "done\n"
        memory = probe.result
    finally:
        child.communicate("\n", timeout=10)
    assert memory.peak >= memory.last + 80 * MIB
    assert memory.high_water[child.pid] == memory.peak
    assert memory.peak_pss > 0


def test_children_of_the_server_count() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, HOLD], stdin=subprocess.PIPE)
    try:
        with probes.MemoryProbe((parent.pid,)) as probe:
            for _ in range(200):
                time.sleep(0.05)
                if len(probe._marks) >= 2 and probe._last > 60 * MIB:
                    break
        memory = probe.result
    finally:
        parent.communicate(timeout=10)
    assert memory.processes == 2
    assert memory.peak > 60 * MIB
    assert memory.looks > 2
    assert set(memory.to_json()) == {"peak", "last", "peak_pss", "high_water", "processes", "looks"}


def test_a_process_that_is_not_there_is_an_error_not_a_zero() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=10)
    with probes.MemoryProbe((gone.pid,)) as probe:
        pass
    with pytest.raises(MachineError):
        _ = probe.result
    assert not probes.alive((gone.pid,))
    assert probes.resident(gone.pid) is None


def test_the_kernels_own_figures_are_read_right() -> None:
    import os

    seen = probes.resident(os.getpid())
    assert seen is not None
    now, high = seen
    pages = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(now - pages) < 16 * MIB
    assert high >= now > probes.proportional(os.getpid()) * 0.5 > 0
    assert probes.alive((os.getpid(),))


def test_the_control_workload_takes_time_and_little_of_it() -> None:
    assert 1e-6 < probes.control_seconds() < 0.5
    assert probes.load_average() >= 0
