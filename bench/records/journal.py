"""Journals: JSON lines that are only ever appended, each whole or not there. Knows nothing of what the lines mean.

A line is written by one ``write`` under a lock and synced before the call returns. A kill in between leaves at most a
torn last line, which readers pass over and the next writer closes.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from optimize.errors import IntegrityError, MachineError


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Add one line.

    Raises:
        MachineError: the disk refused; what stood there before still stands.
    """
    line = json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")), path.open("ab+", buffering=0) as stream:
            if (size := stream.seek(0, os.SEEK_END)) and _last_byte(stream, size) != b"\n":
                line = b"\n" + line
            if stream.write(line) != len(line):
                stream.truncate(size)
                raise MachineError("no space left for a line", where=str(path), next_step="free space, run again")
            os.fsync(stream.fileno())
    except OSError as error:
        raise MachineError(
            f"cannot append: {error.strerror or error}", where=str(path), next_step="free space or set SEATRIAL_HOME"
        ) from error


def read(path: Path, schema: int) -> list[dict[str, Any]]:
    """All whole lines, oldest first; none where there is no journal.

    Raises:
        IntegrityError: a line of another schema.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line) if line else None
        except ValueError:
            continue  # torn by a kill: the writer never said that it was done
        if isinstance(value, dict):
            if value.get("schema") != schema:
                raise IntegrityError(
                    f"a line of schema {value.get('schema')!r}; this version reads {schema}",
                    where=f"{path}:{number}",
                    next_step="use the version of seatrial that wrote it, or move the file away",
                )
            found.append(value)
    return found


def _last_byte(stream: Any, size: int) -> bytes:
    stream.seek(size - 1)
    last: bytes = stream.read(1)
    return last
