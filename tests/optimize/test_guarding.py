"""The guardian: what a killed process had started ends with it, what was let go stays, and nothing lingers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from seatrial.optimize import guarding
from seatrial.optimize.processes import dead, started
from tests.support.built import ROOT

# A child that leads a session and has a child of its own, which ignores SIGTERM and outlives its parent.
NEST = (
    "import signal, subprocess, sys, time; "
    "inner = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'; "
    "print(subprocess.Popen([sys.executable, '-c', inner]).pid, flush=True); time.sleep(60)"
)
OWNER = f"""
import subprocess, sys, time
from pathlib import Path
from seatrial.optimize import guarding
child = subprocess.Popen([sys.executable, "-c", {NEST!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)
inner = child.stdout.readline().strip()
guarding.guard(child.pid, folders=[Path(sys.argv[1])], shm=sys.argv[2])
if sys.argv[3] == "release":
    guarding.release(child.pid)
print(child.pid, inner, flush=True)
time.sleep(60)
"""


@contextmanager
def owner(folder: Path, shm: str, what: str) -> Iterator[tuple["subprocess.Popen[str]", list[tuple[int, int]]]]:
    """A process that guards a child with a child; both by number and start."""
    command = [sys.executable, "-c", OWNER, str(folder), shm, what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        family = [(int(pid), started(int(pid)) or 0) for pid in process.stdout.readline().split()]
        try:
            yield process, family
        finally:
            process.kill()
            for pid, ticks in family:
                if not dead(pid, ticks):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def until(done: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("child_first", [False, True], ids=["owner", "child before its owner"])
def test_a_killed_process_takes_its_children_with_it(tmp_path: Path, child_first: bool) -> None:
    region = Path(f"/dev/shm/seatrial_test{os.getpid()}_1")
    region.write_bytes(b"left")
    (tmp_path / "scratch").mkdir()
    with owner(tmp_path / "scratch", f"seatrial_test{os.getpid()}_", "keep") as (process, family):
        if child_first:  # as a server whose stubs stay: they are found by their session
            os.kill(family[0][0], signal.SIGKILL)
            assert until(lambda: dead(*family[0]))
            assert not dead(*family[1])
        process.kill()
        assert until(lambda: all(dead(*each) for each in family))
    assert until(lambda: not region.exists() and not (tmp_path / "scratch").exists())


@pytest.mark.slow
def test_what_was_let_go_outlives_its_owner(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with owner(tmp_path / "scratch", "seatrial_none_", "release") as (process, family):
        process.kill()
        process.wait()
        time.sleep(0.5)
        assert not any(dead(*each) for each in family)
        assert (tmp_path / "scratch").exists()


def test_a_child_is_gone_after_its_block_and_so_is_the_guardian() -> None:
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    with guarding.child([sys.executable, "-c", NEST], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        inner = int(process.stdout.readline())
        ticks = started(inner) or 0
    assert dead(inner, ticks)
    assert {each.pid for each in psutil.Process().children(recursive=True)} == before


def test_a_guardian_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with guarding.child([sys.executable, "-c", "import time; time.sleep(60)"]) as first:
        killed = guarding._guardian.pid, started(guarding._guardian.pid) or 0
        os.kill(killed[0], signal.SIGKILL)
        assert until(lambda: dead(*killed))
        with guarding.child([sys.executable, "-c", "import time; time.sleep(60)"]):
            assert not dead(guarding._guardian.pid, started(guarding._guardian.pid) or 0)
            assert set(guarding._guardian.watched) > {first.pid}


def test_a_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        guarding.run([sys.executable, "-c", "import time; time.sleep(60)"], environment={}, seconds=0.3)
    assert guarding.run([sys.executable, "-c", "print(6 * 7)"], environment={}, seconds=20.0) == (0, "42\n")
