"""Crashes of servers, as their logs tell them: Triton writes the signal that ends it, and its stack, before it goes.

Reads logs only. A server that was killed from outside writes nothing, so no visible fault is attributed to it.
"""

import re
from pathlib import Path

from seatrial.optimize.environment import home

_FAULT = re.compile(rb"Signal \((4|6|7|8|11)\) received")  # illegal instruction, abort, bus, arithmetic, segmentation
_TAIL = 64 << 10
_EARLY = 2.0  # seconds by which a log may have been written before its connections were seen to end


def crashed_since(at: float, logs: Path | None = None) -> bool:
    """Return whether a server log reports a crash and was last written after that moment (Unix seconds)."""
    folder = logs or home() / "triton" / "logs"
    for path in folder.glob("*.log"):
        try:
            if path.stat().st_mtime >= at - _EARLY and _FAULT.search(_tail(path)):
                return True
        except OSError:  # swept meanwhile
            continue
    return False


def _tail(path: Path) -> bytes:
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL))
        return stream.read()
