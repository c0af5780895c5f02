"""Processes by identity: a number alone may have been reused, a number and its start time may not.

Reads /proc and ends processes; knows nothing of Triton. Linux only, like the server it is for.
"""

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from seatrial.optimize.processes import ticks_of

from .errors import ExhaustedError
from .exhaustion import lacking

_POLL_SECONDS = 0.02


def start_ticks(pid: int) -> int | None:
    """Return the start of the process in clock ticks since boot; None if there is none, or only a zombie.

    Raises:
        ExhaustedError: this process cannot look, which says nothing of the other one.
    """
    text = _stat(pid)
    if text is None:
        return None
    return ticks_of(text)


def alive(pid: int, started: int) -> bool:
    """Return whether that very process still runs."""
    return start_ticks(pid) == started


def halted(pid: int) -> bool:
    """Return whether the process is stopped by a signal or a debugger."""
    text = _stat(pid)
    return text is not None and text[text.rindex(")") + 2] in "Tt"


def _stat(pid: int) -> str | None:
    """The kernel's line on a process; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (OSError, MemoryError) as error:
        if what := lacking(error):
            raise ExhaustedError(
                f"this process cannot inspect process {pid}: {what}",
                where=f"/proc/{pid}/stat",
                next_step=(
                    "close programs that hold descriptors or memory on this machine, or raise the limit (ulimit -n)"
                ),
            ) from error
        return None


def family(pid: int) -> list[tuple[int, int]]:
    """The process's descendants with their start times."""
    import psutil

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return [(child.pid, ticks) for child in children if (ticks := start_ticks(child.pid)) is not None]


def mentioning(word: str) -> list[tuple[int, int]]:
    """Processes whose command line holds that word, with their start times."""
    import psutil

    found = [each.pid for each in psutil.process_iter(["cmdline"]) if word in " ".join(each.info["cmdline"] or ())]
    return [(pid, ticks) for pid in found if (ticks := start_ticks(pid)) is not None and pid != os.getpid()]


def end(pid: int, started: int, *, timeout: float) -> bool:
    """SIGTERM, wait, then SIGKILL to what is left of that process and its descendants; whether SIGTERM sufficed.

    Nothing is signalled whose start time differs from the one that was noted.
    """
    descendants = family(pid) if alive(pid, started) else []
    send(pid, started, signal.SIGTERM)
    in_time = wait(lambda: not alive(pid, started), timeout)
    kill(pid, started, descendants)
    return in_time


def kill(pid: int, started: int, also: Sequence[tuple[int, int]] = ()) -> None:
    """SIGKILL to that process, its descendants and `also`, other processes by number and start time; then wait."""
    members = [*(family(pid) if alive(pid, started) else []), (pid, started), *also]
    for member in members:
        send(*member, signal.SIGKILL)
    wait(lambda: not any(alive(*member) for member in members), 5.0)
    if start_ticks(pid) in (None, started):  # else another process has the number by now
        wait(lambda: _collected(pid), 5.0)


def _collected(pid: int) -> bool:
    """Collect a child of ours that has ended; False while threads of it are still on their way out."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def send(pid: int, started: int, number: signal.Signals) -> None:
    """Signal that very process, if it still runs."""
    if alive(pid, started):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def reap(pid: int) -> int | None:
    """Collect the exit status of a child of ours; None if it still runs or is none."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if done else None


def wait(done: Callable[[], bool], timeout: float) -> bool:
    """Poll until `done`, at most `timeout` seconds."""
    until = time.monotonic() + timeout
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free at this moment; a caller must be ready to find one taken."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_taken(port: int) -> bool:
    """Return whether that loopback port is in use, or cannot be bound for another reason."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections lingering there do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False


def holder(port: int) -> str:
    """Describe the process that listens on a port; empty if unknown (another user's process)."""
    import psutil

    from seatrial.bench.processes import listener

    for pid in listener(port):
        with suppress(psutil.Error):
            return f"process {pid} ({psutil.Process(pid).name()})"
    return ""
    return ""


def listening(pid: int) -> set[int]:
    """TCP ports on which that process listens."""
    import psutil

    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return set()
    return {int(each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}
