"""Calls in processes of their own: results, errors with their text, limits, and nothing left behind."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from seatrial.bench.errors import CallError
from seatrial.bench.measuring.isolate import isolated
from seatrial.bench.measuring.probes import MemoryProbe
from seatrial.optimize.errors import ConfigError, MachineError

MIB = 1 << 20
CORE = min(os.sched_getaffinity(0))


def where_it_runs(text: str) -> tuple[int, set[int], str]:
    print(text)
    return os.getpid(), os.sched_getaffinity(0), text


def refuse() -> None:
    raise ConfigError("no", where="here", next_step="yes")


def divide() -> float:
    return 1 / 0


def die() -> None:
    os.kill(os.getpid(), 9)


def leave_a_child(path: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(path).write_text(str(child.pid))
    time.sleep(60)


def hold(mib: int) -> int:
    block = bytearray(mib * MIB)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(0.8)
    return len(block)


def gone(pid: int) -> bool:
    """Whether the process has ended within half a minute: a signal takes its time on a busy core."""
    with suppress(psutil.NoSuchProcess):
        process, until = psutil.Process(pid), time.monotonic() + 30.0
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
    return True


def test_a_call_runs_elsewhere_on_the_core_it_was_given_and_its_result_comes_back(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pid, cores, text = isolated(where_it_runs, "hello", cores=(CORE,))
    assert pid != os.getpid()
    assert cores == {CORE}
    assert text == "hello"
    assert gone(pid)
    assert capfd.readouterr().out == ""


def same(array: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    time.sleep(0.3)  # longer than a tick, so that the call is asked for more than once
    return array


@pytest.mark.slow
def test_large_arguments_and_results_travel_whole() -> None:
    array = np.arange(1e6)
    np.testing.assert_array_equal(isolated(same, array, timeout=30.0), array)


def test_our_own_errors_come_back_as_they_are() -> None:
    with pytest.raises(ConfigError) as caught:
        isolated(refuse)
    assert (caught.value.what, caught.value.where, caught.value.next_step) == ("no", "here", "yes")


def test_other_errors_are_quoted() -> None:
    with pytest.raises(CallError, match="ZeroDivisionError: division by zero") as caught:
        isolated(divide)
    assert caught.value.where == "divide"
    assert caught.value.exit_code == 4


def test_a_process_that_is_killed_is_named_so() -> None:
    with pytest.raises(CallError, match="killed by SIGKILL"):
        isolated(die)


@pytest.mark.slow
def test_a_call_that_overruns_is_ended_with_its_children(tmp_path: Path) -> None:
    told: list[float] = []
    for seconds in (1.0, 5.0, 25.0):  # a busy machine may take longer to start a process than it is given
        told.clear()
        with pytest.raises(CallError, match=f"did not end within {seconds:.0f}"):
            isolated(leave_a_child, str(tmp_path / "pid"), timeout=seconds, tick=told.append)
        if (tmp_path / "pid").exists():
            break
    assert gone(int((tmp_path / "pid").read_text()))
    assert told == sorted(told)
    assert len(told) > 3


def test_cores_that_are_not_there_are_refused_before_anything_starts() -> None:
    with pytest.raises(MachineError, match="cores \\[4096\\] do not exist"):
        isolated(refuse, cores=(4096,))


@pytest.mark.slow
def test_it_can_be_watched_from_outside_while_it_runs() -> None:
    probes: list[MemoryProbe] = []

    def watch(pid: int) -> MemoryProbe:
        probes.append(MemoryProbe((pid,)))
        return probes[0]

    assert isolated(hold, 64, watch=watch) == 64 * MIB
    assert probes[0].result.peak > 64 * MIB


@pytest.mark.slow
def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from seatrial.bench.measuring.isolate import isolated; "
        "from tests.bench.measuring.test_isolate import leave_a_child; "
        f"isolated(leave_a_child, {str(tmp_path / 'pid')!r})"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()})
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < until:
        time.sleep(0.05)
    [child] = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    assert child.wait(timeout=30) is None
    for left in (int((tmp_path / "pid").read_text()),):
        os.kill(left, 9)
