"""Stored JSON, read so that damage is an error with the file's name and never a traceback, a hang or a wrong value.

Whatever stands in a record's place is expected: a FIFO, a folder, half a file, other JSON, numbers beyond all bounds,
nesting without end. What the values mean is for the caller, by `decode` for whole dataclasses.
"""

import errno
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import field, fields, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from . import plain
from .errors import ConfigError, IntegrityError, MachineError, SeatrialError
from .plain import DEEPEST as DEEPEST
from .plain import read_plain

T = TypeVar("T")
MOST_BYTES = 256 << 20
_NO_FILE = (errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)
RESTORE = "restore it from a copy, or remove it and create it again"
SHAPE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, AssertionError)
"""Exceptions that code raises when it reads values of an unexpected shape."""


def read_bytes(path: Path, *, most: int = MOST_BYTES, next_step: str = RESTORE) -> bytes:
    """Return the content of a regular file, or of one that a link leads to.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: something else stands in its place, or it is larger than any record.
        MachineError: the system refused.
    """
    try:
        return read_plain(path, most, links=True)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except ValueError as error:  # a NUL in the path
        raise FileNotFoundError(errno.ENOENT, str(error), str(path)) from error
    except OSError as error:
        if error.errno in _NO_FILE:
            what = f"{error.strerror}" if error.errno == errno.EFBIG else f"not a regular file: {error.strerror}"
            raise IntegrityError(what, where=str(path), next_step=next_step) from error
        raise MachineError(
            f"cannot be read: {error.strerror or error}", where=str(path), next_step="let this user read it, then retry"
        ) from error


def read_text(path: Path, *, most: int = MOST_BYTES, next_step: str = RESTORE) -> str:
    """Return the UTF-8 text of a regular file; raises as `read_bytes`, and IntegrityError for other bytes."""
    try:
        return read_bytes(path, most=most, next_step=next_step).decode()
    except UnicodeDecodeError as error:
        raise IntegrityError("not UTF-8", where=str(path), next_step=next_step) from error


def read_json(path: Path, *, most: int = MOST_BYTES, next_step: str = RESTORE, constants: bool = False) -> Any:
    """Return the JSON value in a file; raises as `read_bytes` and `parse_json`."""
    content = read_bytes(path, most=most, next_step=next_step)
    return parse_json(content, where=str(path), next_step=next_step, constants=constants)


def read_object(path: Path, *, schema: int | None = None, next_step: str = RESTORE) -> dict[str, Any]:
    """Return the JSON object in a file, of that schema where one is given; raises as `read_json`."""
    value = read_json(path, next_step=next_step)
    if not isinstance(value, dict):
        raise IntegrityError("not a JSON object", where=str(path), next_step=next_step)
    if schema is not None and value.get("schema") != schema:
        raise IntegrityError(
            f"it has schema {value.get('schema')!r}, this version reads {schema}",
            where=str(path),
            next_step="use the version of seatrial that wrote it, or make it again",
        )
    return value


def parse_json(data: bytes, *, where: str, next_step: str = RESTORE, constants: bool = False) -> Any:
    """Return the JSON value of some bytes; with `constants`, NaN and Infinity are taken, as other programs write them.

    Raises:
        IntegrityError: not JSON in UTF-8, or NaN, an infinite or absurdly large number, half a surrogate pair, or
            nesting deeper than any record has.
    """
    try:
        value = plain.parse_json(data, constants=constants)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise IntegrityError("not UTF-8", where=where, next_step=next_step) from error
    except ValueError as error:
        raise IntegrityError(f"not readable as JSON: {error}", where=where, next_step=next_step) from error
    return value


def decode(type_: type[T], value: Any, *, where: str, next_step: str = RESTORE) -> T:
    """Return the JSON value as a dataclass (or another type), each field of its own type and none unknown.

    Raises:
        IntegrityError: a field is missing, unknown, of another type, or refused by the dataclass; names it.
    """
    from pydantic import ValidationError

    try:
        made: T = _adapter(type_).validate_json(json.dumps(value), strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the record"
        what = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"
        raise IntegrityError(what, where=where, next_step=next_step) from error
    except SeatrialError as error:  # the dataclass's own rules
        raise IntegrityError(error.what, where=where, next_step=next_step) from error
    except SHAPE_ERRORS as error:
        raise IntegrityError(f"cannot be read: {error!r}", where=where, next_step=next_step) from error
    return made


def without(type_: type[Any], names: Collection[str]) -> Any:
    """Return a dataclass with the fields of `type_` but those of these names, to `decode` what JSON holds of it."""
    hints = get_type_hints(type_)
    kept = [
        (each.name, hints[each.name], field(default=each.default, default_factory=each.default_factory))
        for each in fields(type_)
        if each.name not in names
    ]
    return make_dataclass(f"{type_.__name__}Json", kept, frozen=True, kw_only=True)


@contextmanager
def damage(where: object, next_step: str = RESTORE) -> Iterator[None]:
    """Turn what code raises on values of another shape into an `IntegrityError` about the record they came from.

    Around the reading of a record and what is computed of it alone, never around work of any other kind.
    """
    try:
        yield
    except IntegrityError as error:
        if not error.where:  # raised by code that does not know which file it reads
            error.where, error.next_step = str(where), next_step
        raise
    except ConfigError as error:  # a rule that the record's own values break
        place = f"{where}: {error.where}" if error.where else str(where)
        raise IntegrityError(error.what, where=place, next_step=next_step) from error
    except SHAPE_ERRORS as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise IntegrityError(
            f"it holds invalid values ({said[:200]})", where=str(where), next_step=next_step
        ) from error


@cache
def _adapter(type_: Any) -> Any:
    from .adapters import strict_adapter

    return strict_adapter(type_)
