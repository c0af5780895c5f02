"""Files of outcomes: CSV, JSON lines, Parquet, and what Label Studio exports as JSON. Each row with its place."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import ConfigError, MissingError, SeatrialError
from seatrial.optimize.reading import read_bytes

Rows = list[tuple[str, Mapping[str, Any]]]
_FIX = "correct it there, then add the file again: what is known already changes nothing"


def rows_of(path: Path) -> Rows:
    """Return the rows of a file, each with its place for messages.

    Raises:
        MissingError: no such file.
        ConfigError: another kind of file, or one that cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path.suffix or 'no ending'} is not a kind of file that is read",
            where=str(path),
            next_step=f"write it as one of {', '.join(_READERS)}",
        )
    if not path.is_file():
        raise MissingError("no such file", where=str(path), next_step="check the path")
    return reader(path)


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("it is not UTF-8", where=str(path), next_step="save it as UTF-8") from error
    except SeatrialError as error:
        raise ConfigError(f"it cannot be read: {error.what}", where=str(path), next_step="check the file") from error


def _csv(path: Path) -> Rows:
    found: Rows = []
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row or None in row.values():
                raise ConfigError(
                    "it has another number of cells than the header", where=f"{path}: {place}", next_step=_FIX
                )
            found.append((place, row))
    except csv.Error as error:
        raise ConfigError(f"it is not CSV: {error}", where=f"{path}: line {reader.line_num}", next_step=_FIX) from error
    return found


def _json_lines(path: Path) -> Rows:
    found: Rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            value = _parsed(line, f"{path}: line {number}")
            if not isinstance(value, dict):
                raise ConfigError("it is not a JSON object", where=f"{path}: line {number}", next_step=_FIX)
            found.append((f"line {number}", value))
    return found


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not JSON: {error}", where=where, next_step=_FIX) from error


def _parquet(path: Path) -> Rows:
    from .on_duckdb_outcomes import parquet_rows

    return [(f"row {number}", row) for number, row in enumerate(parquet_rows(path), start=1)]


def _label_studio(path: Path) -> Rows:
    """Return a row for each annotation that somebody finished; tasks without one are not labelled yet."""
    tasks = _parsed(_text(path), str(path))
    if not isinstance(tasks, list):
        raise ConfigError(
            "it is not a list of tasks, as Label Studio exports them",
            where=str(path),
            next_step="export as JSON from Label Studio, or write JSON lines (.jsonl)",
        )
    return [row for number, task in enumerate(tasks, start=1) for row in _task(path, number, task)]


def _task(path: Path, number: int, task: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    place = f"task {task.get('id', number) if isinstance(task, dict) else number}"
    data = task.get("data") if isinstance(task, dict) else None
    annotations = task.get("annotations", []) if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise ConfigError("it is not a task with data and annotations", where=f"{path}: {place}", next_step=_FIX)
    named = {name: data[name] for name in ("request", "request_id", "chosen_by", "kind") if name in data}
    for each in annotations:
        if not isinstance(each, dict) or not isinstance(each.get("result"), list):
            raise ConfigError("an annotation has no result", where=f"{path}: {place}", next_step=_FIX)
        if each.get("was_cancelled") or not each["result"]:
            continue
        values = [_value(part) for part in each["result"]]
        given = [value for value in values if value is not None]
        if len(given) != 1:
            raise ConfigError(
                f"an annotation has {len(given)} values, one is needed", where=f"{path}: {place}", next_step=_FIX
            )
        yield place, {**named, "value": given[0], "at": each.get("created_at"), "by": _annotator(each)}


def _value(part: Any) -> Any:
    """Return the choice, rating, number or text of a part of an annotation; None where it has none of them."""
    value = part.get("value") if isinstance(part, dict) else None
    for name in ("choices", "rating", "number", "text"):
        if isinstance(value, dict) and name in value:
            found = value[name]
            return (found[0] if len(found) == 1 else None) if isinstance(found, list) else found
    return None


def _annotator(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    return str(by.get("email", by.get("id", ""))) if isinstance(by, dict) else "" if by is None else str(by)


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".json": _label_studio,
}
KINDS_OF_FILE: Sequence[str] = tuple(_READERS)
