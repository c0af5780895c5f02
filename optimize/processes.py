"""Processes by identity: a number alone may belong to another process by now, a number and its start time may not.

Reads /proc; ends nothing. Linux only. What cannot be read counts as alive: nothing is cleared away on a guess.
"""

import os
from pathlib import Path


def started(pid: int) -> int | None:
    """Return when the process began, in clock ticks since boot; None where there is none, or only its zombie.

    Raises:
        OSError: this process cannot look, for instance for want of descriptors; that says nothing of the other one.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ticks_of(text)


def ticks_of(stat: str) -> int | None:
    """Return the start in a process's line of the kernel (``/proc/PID/stat``); None for a zombie."""
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before the bracket may hold blanks
    return None if fields[0] in "ZX" else int(fields[19])


def own() -> str:
    """Return this process's identity as names carry it: ``PID-TICKS``."""
    return f"{os.getpid()}-{started(os.getpid())}"


def dead(pid: int, ticks: int) -> bool:
    """Tell whether that very process has surely ended."""
    try:
        return started(pid) != ticks
    except OSError:
        return False
