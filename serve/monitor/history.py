"""The history of a monitor: every window that was judged, and every interval that was silent, a line for each look.

Lines are written before the state, so a look that was killed in between is found twice: windows and intervals are known
by their beginning, and the last one counts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.bench.records import journal
from seatrial.optimize.reading import decode
from seatrial.optimize.record import as_json

from .watching import Judged, Look

SCHEMA = 1
_FILE = "windows.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Windows that were judged and silent intervals (start, end), both in order of time."""

    judged: tuple[Judged, ...]
    silent: tuple[tuple[float, float], ...]

    def between(self, start: float, end: float) -> "History":
        """Return what ended after `start` and at `end` at the latest, in seconds of the Unix epoch."""
        return History(
            judged=tuple(each for each in self.judged if start < each.end <= end),
            silent=tuple(each for each in self.silent if start < each[1] <= end),
        )


def append(folder: Path, look: Look) -> None:
    """Add what a look found, where it found anything.

    Raises:
        MachineError: the disk refused.
    """
    if look.judged or look.silent:
        line = {"schema": SCHEMA, "judged": as_json(look.judged), "silent": as_json(look.silent)}
        journal.append(folder / _FILE, line)


def read(folder: Path) -> History:
    """Return the history; empty where nothing was judged yet.

    Raises:
        IntegrityError: a line that is damaged.
    """
    judged, silent = dict[float, Judged](), dict[float, float]()

    def line(value: dict[str, Any]) -> None:
        for each in value["judged"]:
            one = decode(Judged, each, where="")
            judged[one.start] = one
        silent.update((float(start), float(end)) for start, end in value["silent"])

    journal.records(folder / _FILE, SCHEMA, line)
    return History(
        judged=tuple(judged[start] for start in sorted(judged)),
        silent=tuple((start, silent[start]) for start in sorted(silent)),
    )
