"""Child processes that must not outlive this one, however it ends: a guardian beside it ends them if it is killed.

Clean-up by this process itself stays the rule; the guardian is for SIGKILL, a crash, the kernel's out-of-memory killer.
It runs only while there is something to watch. Best effort: where it cannot be started, the next start sweeps.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import guardian
from .interrupts import held
from .processes import started

_GUARDIAN = Path(__file__).with_name("guardian.py")
_lock = threading.Lock()


class _Guardian:
    """The guardian of this process, and what it watches."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.pid = 0
        self.pipe = -1
        self.watched: dict[int, dict[str, Any]] = {}

    def tell(self, told: dict[str, Any]) -> None:
        """Hand on a line; a guardian that died is replaced, and gets every line again."""
        line = json.dumps(told).encode() + b"\n"
        try:
            if self.pid:
                os.write(self.pipe, line)
                return
        except OSError:
            self.leave()
        self._start()
        if self.pid:
            with suppress(OSError):
                os.write(self.pipe, b"".join(json.dumps(each).encode() + b"\n" for each in self.watched.values()))

    def leave(self) -> None:
        """Let the guardian go, and wait until it has gone."""
        if self.pid:
            os.close(self.pipe)
            with suppress(OSError):
                os.waitpid(self.pid, 0)
            self.pid, self.pipe = 0, -1

    def _start(self) -> None:
        read, write = os.pipe()
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, read, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        command = [sys.executable, "-I", "-S", str(_GUARDIAN), str(os.getpid())]
        libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        try:
            self.pid = os.posix_spawn(sys.executable, command, libraries, file_actions=actions, setsid=True)
            self.pipe = write
        except OSError:
            os.close(write)
        finally:
            os.close(read)


_guardian = _Guardian()


def guard(pid: int, *, folders: Sequence[Path] = (), shm: str = "") -> None:
    """Let that process, its descendants and its session end with this one, however that ends.

    Then `folders` are removed, and regions of shared memory whose names begin with `shm`. The process should lead a
    session of its own, so that what it started is found where it died first.
    """
    with held(), _lock:
        mine = _mine()
        told = {"pid": pid, "started": started(pid) or 0, "folders": [str(each.absolute()) for each in folders]}
        mine.watched[pid] = told | {"shm": shm}
        mine.tell(mine.watched[pid])


def release(pid: int) -> None:
    """Let go of a process that has ended, or that is to stay."""
    with held(), _lock:
        mine = _mine()
        if mine.watched.pop(pid, None) is None:
            return
        mine.tell({"pid": pid, "watch": False})
        if not mine.watched:
            mine.leave()


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a command in a session of its own for the length of a block; it and what it started are gone afterwards.

    `options` are those of `subprocess.Popen`. Ctrl-C at our terminal reaches it through us alone.
    """
    with held():
        process = subprocess.Popen(command, start_new_session=True, **options)
        guard(process.pid)
    try:
        yield process
    finally:
        with held():
            end(process)


def end(process: "subprocess.Popen[Any]") -> None:
    """Kill a child with its descendants and what is left of its session, collect it, and let go of it."""
    guardian.end(process.pid, started(process.pid) or 0)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    release(process.pid)


def run(command: Sequence[str], *, environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run a command as `child` does; its exit code, and what it wrote to standard output.

    Raises:
        subprocess.TimeoutExpired: it took longer than `seconds`; it is gone.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with child(command, env=environment, text=True, **pipes) as process:
        said = process.communicate(timeout=seconds)[0]
        return process.returncode, said


def _mine() -> _Guardian:
    """The guardian of this very process: a fork has one of its own."""
    global _guardian
    if _guardian.owner != os.getpid():
        if _guardian.pipe >= 0:
            with suppress(OSError):
                os.close(_guardian.pipe)
        _guardian = _Guardian()
    return _guardian
