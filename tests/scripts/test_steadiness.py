"""The slope of what a process holds: a leak is found, and noise that remembers or a slow start is not taken for one."""

import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.signal import lfilter

from scripts.benchmarks.attack_soak import Sample, sample
from scripts.benchmarks.steadiness import _left_out, slope

SECONDS = [float(second) for second in range(1800)]
MEGABYTE = 1 << 20


def held(seed: int, *, memory: float = 0.9, leak: float = 0.0, jump: float = 20.0) -> list[float]:
    """Resident bytes: a slow start, then noise of 0.1 MB that remembers, and a leak in bytes a second."""
    random = np.random.default_rng(seed)
    noise = lfilter([1.0], [1.0, -memory], random.normal(0, 0.1 * np.sqrt(1 - memory**2), len(SECONDS)))
    return list((80 + noise + jump * (1 - np.exp(-np.array(SECONDS) / 15))) * MEGABYTE + leak * np.array(SECONDS))


def test_noise_that_remembers_and_a_slow_start_are_no_leak() -> None:
    alarms = sum(not slope(SECONDS, held(seed)).flat for seed in range(200))
    assert alarms <= 6, f"{alarms} of 200 at 99 %"


def test_a_walk_of_steps_that_stay_is_no_leak() -> None:
    """As an allocator makes them: few, of any size, some given back."""
    random, alarms = np.random.default_rng(5), 0
    for _ in range(200):
        jumps = (random.random(len(SECONDS)) < 0.02) * random.normal(0, 100_000, len(SECONDS))
        alarms += not slope(SECONDS, list(80 * MEGABYTE + np.cumsum(jumps))).flat
    assert alarms <= 6, f"{alarms} of 200 at 99 %"
    once = [80.0 * MEGABYTE + 4096 * (second > 400) for second in SECONDS]
    assert slope(SECONDS, once).flat, "one page, once"


@pytest.mark.parametrize("leak", [20 * 70_000, 20 * 100])
def test_a_leak_of_70_kb_or_of_100_bytes_a_probe_is_found(leak: float) -> None:
    """At 20 probes a second."""
    found = [slope(SECONDS, held(seed, leak=leak)) for seed in range(50)]
    assert all(not each.flat and each.low > 0 for each in found)
    assert np.mean([each.slope for each in found]) == pytest.approx(leak, rel=0.2)


def test_a_table_that_doubles_once_does_not_hide_what_fills_it() -> None:
    held_ = [88.0 * MEGABYTE + 9_000 * second + 2 * MEGABYTE * (second > 1000) for second in SECONDS]
    assert slope(SECONDS, held_).low > 0


def test_the_interval_is_that_of_the_signed_rank_test() -> None:
    """Of 11 differences: critical values 10 at 95 % and 5 at 99 % (two-sided, of any table)."""
    assert (_left_out(11, 0.95), _left_out(11, 0.99)) == (10, 5)


def test_one_descriptor_a_minute_is_found_and_probes_under_way_are_not() -> None:
    random = np.random.default_rng(1)
    waves = 20 + random.integers(0, 4, len(SECONDS))
    assert slope(SECONDS, list(waves)).flat
    assert not slope(SECONDS, list(waves + np.array(SECONDS) // 60)).flat


def test_what_never_changes_is_flat_and_a_short_run_says_nothing() -> None:
    assert slope(SECONDS, [7.0] * len(SECONDS)).flat
    with pytest.raises(ValueError, match="too few"):
        slope(SECONDS[:20], [7.0] * 20)


LEAKS = """
import os, sys, time
held = []
print("started", flush=True)
while True:
    if sys.argv[1] == "leaks":
        held.append((os.open("/dev/null", os.O_RDONLY), bytearray(os.urandom(70_000))))
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_process_that_leaks_is_told_from_one_that_does_not() -> None:
    """Two descriptors and 70 kB a probe are what a client made that keeps an event loop for each thread."""
    held: dict[str, list[Sample]] = {"leaks": [], "holds": []}
    pipe = subprocess.PIPE
    started = {name: subprocess.Popen([sys.executable, "-c", LEAKS, name], stdout=pipe) for name in held}
    try:
        for process in started.values():
            assert process.stdout is not None
            assert process.stdout.readline()
        for _ in range(80):
            for name, process in started.items():
                held[name].append(sample(process.pid))
            time.sleep(0.05)
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    for name, samples in held.items():
        at = [each.at for each in samples]
        for values in ([each.descriptors for each in samples], [each.memory for each in samples]):
            assert slope(at, values).flat == (name == "holds"), (name, values)
