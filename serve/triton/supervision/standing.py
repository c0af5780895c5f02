"""The supervisor's files: a log of events that stays small, and how things stand, which rollouts read.

A disk that is full, a file that is damaged or is no file at all never stops a reader or a writer here: each says what
went wrong, or goes on without.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from seatrial.optimize.artifact import canonical
from seatrial.optimize.environment import home
from seatrial.optimize.plain import read_plain
from seatrial.optimize.store import write_atomically

from ...errors import ExhaustedError
from ...exhaustion import lacking
from .healing import Watch

LOG_BYTES = 4 << 20
_READ_BYTES = 16 << 20


def supervision() -> Path:
    """Return where the supervisor of this SEATRIAL_HOME writes."""
    return home() / "triton" / "supervision"


def standing() -> dict[str, Watch]:
    """Return the state last written by the supervisor, by name; empty if there is none or the file is damaged.

    Reads what other releases wrote: fields that are missing have their defaults, and unknown ones are left out.

    Raises:
        ExhaustedError: this process cannot open it; a count of restarts that seems to begin at 0 would mislead.
    """
    try:
        watches = json.loads(read_plain(supervision() / "health.json", _READ_BYTES, links=True))["watches"]
        found = {str(name): _watch(watch) for name, watch in watches.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if what := lacking(error):
            raise ExhaustedError(
                f"this process cannot read the supervisor's state: {what}",
                where=str(supervision()),
                next_step=(
                    "close programs that hold descriptors or memory on this machine, or raise the limit (ulimit -n)"
                ),
            ) from error
        return {}
    return {name: watch for name, watch in found.items() if watch is not None}


def write_standing(url: str, at: str, watches: Mapping[str, Watch]) -> None:
    """Write how things stand.

    Raises:
        OSError: the disk refused.
    """
    content = {
        "schema": 1,
        "at": at,
        "url": url,
        "watches": {name: asdict(watch) for name, watch in watches.items()},
    }
    write_atomically(supervision() / "health.json", canonical(content))


class EventLog:
    """JSON lines in a file that is kept open, so that running out of descriptors can be written down as well.

    Past `most` bytes it is moved to a second file, in place of the one before, and begun anew.
    """

    def __init__(self, path: Path, *, most: int = LOG_BYTES) -> None:
        self.path, self._most = path, most
        self._handle: int | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line, whole or not at all.

        Raises:
            OSError: the disk refused, or there is no regular file.
        """
        data = json.dumps(line).encode() + b"\n"
        handle = self._opened()
        size = os.fstat(handle).st_size
        if size and size + len(data) > self._most:
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
            handle, size = self._opened(), 0
        written = os.write(handle, data)
        if written < len(data):
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise OSError(f"only {written} of {len(data)} bytes could be written: {self.path}")

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _opened(self) -> int:
        """Return the open file, reopened if it was moved away."""
        if self._handle is not None and not self._is_there(self._handle):
            self.close()
        if self._handle is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(self.path, how, 0o644)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                os.close(handle)
                raise OSError(f"not a regular file: {self.path}")
            self._handle = handle
        return self._handle

    def _is_there(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(handle))
        except FileNotFoundError:
            return False


def _watch(content: Any) -> Watch | None:
    """A watch as any release wrote it; None where it is none."""
    known = {each.name for each in fields(Watch)}
    try:
        values = {name: value for name, value in content.items() if name in known}
        values["attempts"] = tuple(float(each) for each in values.get("attempts", ()))
        watch = Watch(**values)
        text = isinstance(watch.state, str) and isinstance(watch.reason, str)
        whole = isinstance(watch.restarts, int) and watch.restarts >= 0
    except (TypeError, ValueError, AttributeError):
        return None
    return watch if text and whole else None
