"""Journals: JSON lines that are only ever appended, each whole or not there. Knows nothing of what the lines mean.

A line is written by one ``write`` under a lock and synced before the call returns. A kill in between leaves at most a
torn last line, which readers pass over and the next writer removes. Any other line that cannot be read is damage.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from seatrial.optimize.errors import IntegrityError, MachineError
from seatrial.optimize.locking import locked
from seatrial.optimize.reading import damage, parse_json, read_bytes

T = TypeVar("T")


def append(path: Path, value: Mapping[str, Any]) -> None:
    """Add one line.

    Raises:
        MachineError: the disk refused; what stood there before still stands.
    """
    line = json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
    try:
        with locked(path.with_suffix(".lock")), path.open("ab+", buffering=0) as stream:
            size = _untorn(stream)
            if stream.write(line) != len(line):
                stream.truncate(size)
                raise MachineError(
                    "no space is left to append a line", where=str(path), next_step="free space, then run again"
                )
            os.fsync(stream.fileno())
    except OSError as error:
        raise MachineError(
            f"cannot append a line: {error.strerror or error}",
            where=str(path),
            next_step="free space or set SEATRIAL_HOME",
        ) from error


def read(path: Path, schema: int) -> list[dict[str, Any]]:
    """All whole lines, oldest first; none where there is no journal.

    Raises:
        IntegrityError: a line that is not JSON, or of another schema; names file and line.
    """
    return [value for _, value in _lines(path, schema)]


def records(path: Path, schema: int, decode: Callable[[dict[str, Any]], T]) -> list[T]:
    """All whole lines as what `decode` makes of them.

    Raises:
        IntegrityError: as `read`, or a line that `decode` cannot make anything of.
    """
    found = []
    for number, value in _lines(path, schema):
        with damage(f"{path}:{number}", _step(number)):
            found.append(decode(value))
    return found


def _lines(path: Path, schema: int) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = read_bytes(path).split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, start=1):
        if not line or (line.startswith(b"{") and not line.endswith(b"}")):
            continue  # torn by a kill: the writer never said that it was done
        where = f"{path}:{number}"
        try:
            value = parse_json(line, where=where, next_step=_step(number))
        except IntegrityError:
            if number == len(lines):
                continue  # torn where an inner object ends
            raise
        if not isinstance(value, dict):
            raise IntegrityError("a line is not a valid record", where=where, next_step=_step(number))
        if value.get("schema") != schema:
            raise IntegrityError(
                f"a line has schema {value.get('schema')!r}; this version reads {schema}",
                where=where,
                next_step="use the version of seatrial that wrote it, or move the file away",
            )
        found.append((number, value))
    return found


def _step(number: int) -> str:
    return f"restore the file from a copy, or delete line {number} and lose what it recorded"


def _untorn(stream: Any) -> int:
    """Cut off what a kill left behind the last line end; return the size that is left."""
    size = stream.seek(0, os.SEEK_END)
    kept = size
    while kept:
        start = max(0, kept - (1 << 16))
        stream.seek(start)
        block = stream.read(kept - start)
        if (at := block.rfind(b"\n")) >= 0:
            kept = start + at + 1
            break
        kept = start
    if kept < size:
        stream.truncate(kept)
    return int(kept)
