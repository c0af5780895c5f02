"""Damage to a file of JSON or JSON lines: types, keys, numbers, nesting, text, bytes, and other things in its place."""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308, 1e30),
    *("", "x", "../../etc/passwd", "\x00", "\x1b[31mred", "[/red]", "a\nb", "é", "\ud800", "<script>", "|", "9" * 400),
    *([], {}, [[]], [None], [1, 2, 3], ["a"], {"a": 1}, {"": {}}, "1979-05-27", "NaN", "nan", [{"schema": 1}]),
)
RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"[" * 100_000, b"{}", b"null", b'"', b"\xff\xfe", b"")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where something can be changed in a JSON value, as paths of keys; of long lists the first elements."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:12]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged(data: bytes, random: Random) -> tuple[str, bytes]:
    """Another content for a file that held `data`, and what was done to it."""
    kinds = ("value",) * 8 + ("drop", "drop", "rename", "add", "raw", "raw", "cut", "flip", "flip", "line", "deep")
    kind = random.choice(kinds)
    if kind == "cut":
        return kind, data[: random.randrange(len(data) + 1)]
    if kind == "flip":
        return kind, _flipped(data, random)
    lines = data.split(b"\n")
    whole = [number for number, line in enumerate(lines) if _parsed(line) is not None]
    if kind == "line" and whole:
        number = random.choice(whole)
        lines[number : number + 1] = random.choice(([], [lines[number]] * 2, [b"garbage"], [b"5"], [b"[]"], [b"{}"]))
        return kind, b"\n".join(lines)
    if isinstance(_parsed(data), dict | list):
        return kind, _changed(data, kind, random)
    if not whole:
        return "flip", _flipped(data, random)
    number = random.choice(whole)
    lines[number] = _changed(lines[number], kind, random)
    return kind, b"\n".join(lines)


def replaced(path: Path, random: Random) -> str:
    """Put something that is no regular file, or nothing, where the file was; return what."""
    kind = random.choice(("gone", "empty", "folder", "fifo", "dangling", "loop", "link", "unreadable"))
    data = path.read_bytes()
    path.unlink()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("/nowhere/at/all")
        case "loop":
            path.symlink_to(path)
        case "link":
            path.symlink_to("/dev/zero")
        case "unreadable":
            path.write_bytes(os.urandom(200) + data[:100])
    return kind


def restore(path: Path, data: bytes) -> None:
    """Put the file back as it was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(random.choice((1, 1, 3))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _changed(data: bytes, kind: str, random: Random) -> bytes:
    """One value, key or type of a JSON document changed."""
    value = _parsed(data)
    known = list(places(value))
    if not known:
        return json.dumps(random.choice(VALUES)).encode()
    path = random.choice(known)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    marker, last = "@@here@@", path[-1]
    match kind:
        case "drop":
            del holder[last]
        case "rename" if isinstance(holder, dict):
            holder[random.choice(("x", "", "schema", "\x1b[2J", "name"))] = holder.pop(last)
        case "add" if isinstance(holder, dict):
            holder[random.choice(("x", "zz", "\x1b[2J"))] = random.choice(VALUES)
        case "raw":
            holder[last] = marker
            return json.dumps(value).encode().replace(f'"{marker}"'.encode(), random.choice(RAW))
        case "deep":
            holder[last] = marker
            depth = random.choice((30, 500, 50_000))
            return json.dumps(value).encode().replace(f'"{marker}"'.encode(), b"[" * depth + b"]" * depth)
        case _:
            holder[last] = random.choice((copy.deepcopy(random.choice(VALUES)), _other(holder[last], random)))
    return json.dumps(value).encode()


def _other(value: Any, random: Random) -> Any:
    """A value of another type or far away, made of this one."""
    if isinstance(value, bool) or value is None:
        return random.choice((1, "true", []))
    if isinstance(value, int | float):
        return random.choice((str(value), [value], -value, value * 10**9, value * 1e-9, value + 1))
    if isinstance(value, str):
        return random.choice((len(value), [value], value[::-1], value * 50, value.encode().hex(), {value: value}))
    return random.choice((str(value), 1, None, list(value) if isinstance(value, dict) else {"0": value}))
