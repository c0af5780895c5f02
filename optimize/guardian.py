"""Guardian process: waits until its owner has ended, then ends the owner's processes and removes its leftovers.

Run by `guarding` as a script of its own, in a session of its own, without any module of ours:
``python -I -S guardian.py PID``. Standard input carries one JSON line per process to watch or to let go. The owner's
end is seen by its process descriptor, or by the end of standard input, whichever comes first.

A process counts as the one that was named by its number and its start; with it end its descendants and its session,
which outlive a server that was killed.
"""

import json
import os
import select
import shutil
import signal
import sys
import time

TYPE_CHECKING = False  # as in typing, whose import would be most of the start
if TYPE_CHECKING:
    import typing

PATIENCE = 5.0  # seconds that killed processes may take to end


def table() -> "dict[int, tuple[int, int, int]]":
    """Parent, session and start (clock ticks since boot) of every process that runs."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", errors="replace") as stream:
                    text = stream.read()
            except OSError:
                continue
            fields = text[text.rindex(")") + 2 :].split()
            if fields[0] not in "ZX":
                found[int(entry)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return found


def members(pid: int, started: int) -> "set[int]":
    """The process, its descendants and its session; nothing where the number belongs to another one by now."""
    processes = table()
    if pid in processes and processes[pid][2] != started:
        return set()
    found = {each for each, (_, session, _) in processes.items() if session == pid} | ({pid} & set(processes))
    grown = True
    while grown:
        more = {each for each, (parent, _, _) in processes.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {os.getpid()}


def end(pid: int, started: int) -> None:
    """SIGKILL to the process and its members until none is left."""
    until = time.monotonic() + PATIENCE
    while left := members(pid, started):
        for each in left:
            try:
                os.kill(each, signal.SIGKILL)
            except OSError:
                continue
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def clear(watched: "dict[str, typing.Any]") -> None:
    """Remove the folders of a process that was ended, and its regions of shared memory."""
    prefix = str(watched.get("shm") or "")
    if prefix:
        for each in os.listdir("/dev/shm"):
            if each.startswith(prefix):
                try:
                    os.unlink(f"/dev/shm/{each}")
                except OSError:
                    continue
    for folder in watched.get("folders", ()):
        shutil.rmtree(str(folder), ignore_errors=True)


def watch(owner: int) -> "dict[int, dict[str, typing.Any]]":
    """Take down what is to be watched until the owner has ended."""
    watched = {}
    poll = select.poll()
    poll.register(0, select.POLLIN)
    try:
        descriptor = os.pidfd_open(owner)
        poll.register(descriptor, select.POLLIN)
    except (OSError, AttributeError):  # ended already, or a kernel before 5.3: standard input then shows the end
        descriptor = -1
    rest = b""
    while True:
        ready = [number for number, _ in poll.poll()]
        data = os.read(0, 65536) if 0 in ready else b""
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if told.get("watch", True):
                watched[told["pid"]] = told
            else:
                watched.pop(told["pid"], None)
        if not data:
            return watched


def main() -> None:
    """Outlive the signals that end the owner: it cleans up itself if it can."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched = watch(int(sys.argv[1]))
    for pid, told in watched.items():
        end(pid, told["started"])
    for told in watched.values():
        clear(told)


if __name__ == "__main__":
    main()
