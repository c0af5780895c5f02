"""Processes by identity: only the very process that was noted is ever signalled."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seatrial.optimize.errors import IntegrityError
from seatrial.serve.processes import alive, end, free_ports, holder, is_taken, listening, mentioning, start_ticks
from seatrial.serve.triton.server import Server, log_errors

SLEEP = [sys.executable, "-c", "import time; time.sleep(30)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)']); print(child.pid, flush=True); "
    "time.sleep(30)",
]


def test_a_process_ends_and_its_number_alone_means_nothing() -> None:
    with subprocess.Popen(SLEEP) as process:
        ticks = start_ticks(process.pid)
        assert ticks is not None
        assert alive(process.pid, ticks)
        end(process.pid, ticks + 1, timeout=0.2)
        assert alive(process.pid, ticks), "a stranger with the same number was signalled"
        assert end(process.pid, ticks, timeout=10.0)
        assert not alive(process.pid, ticks)


def test_one_that_ignores_the_request_is_killed_with_its_children() -> None:
    with subprocess.Popen(STUBBORN, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        ticks, child_ticks = start_ticks(process.pid), start_ticks(child)
        assert ticks is not None
        assert child_ticks is not None
        assert not end(process.pid, ticks, timeout=0.3)
        assert not alive(process.pid, ticks)
        assert not alive(child, child_ticks)


def test_a_zombie_is_not_alive() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    deadline = time.monotonic() + 10
    while start_ticks(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert start_ticks(pid) is None
    assert Path(f"/proc/{pid}").exists()
    os.waitpid(pid, 0)


def test_a_port_is_free_or_taken_and_its_holder_known() -> None:
    (port,) = free_ports(1)
    assert not is_taken(port)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert is_taken(port)
        assert str(os.getpid()) in holder(port)
        assert port in listening(os.getpid())
    assert port not in listening(os.getpid())
    assert len(set(free_ports(3))) == 3


def test_processes_are_found_by_a_word_of_their_command_line() -> None:
    with subprocess.Popen([*SLEEP, "a-word-of-its-own"]) as process:
        assert [pid for pid, _ in mentioning("a-word-of-its-own")] == [process.pid]
        process.send_signal(signal.SIGKILL)


def test_a_log_gives_its_errors_without_times(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('I1122 19:58:25.6 1 a.cc:1] "fine"\nE1122 19:58:25.6 1 b.cc:2] "first"\n')
    before = log.stat().st_size
    with log.open("a") as stream:
        stream.write('E1122 19:58:26.6 1 c.cc:3] "second"\nerror: third\nEverything else\n')
    assert log_errors(log) == "first; second; error: third"
    assert log_errors(log, before) == "second; error: third"


def test_a_record_that_was_changed_is_not_followed(tmp_path: Path) -> None:
    assert Server.find(tmp_path / "none") is None
    for content in ("{", '{"schema": 2}', '{"schema": 1, "pid": 3}', "[]"):
        (tmp_path / "server.json").write_text(content)
        with pytest.raises(IntegrityError):
            Server.find(tmp_path / "server.json")
