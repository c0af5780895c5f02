"""Configuration that someone else wrote, read without trusting it: YAML and JSON files as plain values.

Reads regular files of a bounded size and nothing else. What cannot be read safely (too large, nested too deep, anchors
that expand without end, no UTF-8) is named with its reason, and never ends the audit.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seatrial.optimize.plain import read_plain

MOST_BYTES = 4 << 20
_MOST_VALUES, _DEEPEST, _MOST_FILES = 400_000, 100, 5_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEMPLATE, _MODEL = "{{", "config.pbtxt"


@dataclass(slots=True)
class Documents:
    """Documents of a folder: values with their file, duplicate keys, and files that could not be read."""

    found: list[tuple[str, Any]] = field(default_factory=list)
    doubled: list[tuple[str, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read(folder: Path, suffixes: tuple[str, ...] = (".yaml", ".yml", ".json")) -> Documents:
    """Every document of the folder's files of these kinds, in the order of their names."""
    made = Documents()
    for path in files(folder, suffixes, made.unreadable):
        text = text_of(path, made.unreadable)
        if text is None:
            continue
        try:
            if path.suffix == ".json":
                made.found.append((str(path), _flat_enough(json.loads(text))))
            else:
                made.found += [(str(path), each) for each in values(text, str(path), made.doubled)]
        except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
            made.unreadable.append(f"{path}: {_why(error, text)}")
    return made


def files(folder: Path, suffixes: tuple[str, ...], unreadable: list[str]) -> list[Path]:
    """Files of these kinds below a folder; links to folders are not followed. A model's own files are no configuration.

    (A tokenizer's vocabulary is JSON too, and of any size.)
    """
    found: list[Path] = []
    for at, folders, names in os.walk(folder):
        folders.sort()
        if _MODEL in names and Path(at) != folder:
            folders.clear()
            continue
        found += [Path(at, name) for name in sorted(names) if name.endswith(suffixes)]
        if len(found) > _MOST_FILES:
            unreadable.append(f"{folder}: more than {_MOST_FILES} files; the others were not read")
            break
    return found[:_MOST_FILES]


def text_of(path: Path, unreadable: list[str]) -> str | None:
    """A regular file's text; None, with the reason added, where it has none."""
    try:
        return read_plain(path, MOST_BYTES, links=True).decode("utf-8-sig")
    except OSError as error:
        unreadable.append(f"{path}: {error.strerror}")
    except UnicodeDecodeError:
        unreadable.append(f"{path}: not UTF-8")
    return None


def values(text: str, where: str, doubled: list[tuple[str, str]] | None = None) -> Iterator[Any]:
    """The documents of a YAML text; keys that stand twice in one mapping are added to `doubled`.

    Raises:
        YAMLError, ValueError: it cannot be read, or not safely.
    """
    for key in _measured(text):
        if doubled is not None:
            doubled.append((where, key))
    yield from yaml.load_all(text, Loader=_LOADER)


def told(value: object) -> str:
    """A value as a finding may quote it: one short line, whatever it is."""
    try:
        line = " ".join(str(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__} too large to print"
    return line if len(line) <= 80 else f"{line[:77]}..."


def number(value: object) -> float | None:
    """A number, also one written as text; None where it is none, or no finite one."""
    if isinstance(value, bool):
        return None
    try:
        made = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


def _flat_enough(value: Any) -> Any:
    """The same value.

    Raises:
        ValueError: it is nested too deep to be walked.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        if not level:
            return value
        inside = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inside if isinstance(each, dict | list)]
    raise ValueError(f"nested deeper than {_DEEPEST} levels")


def _measured(text: str) -> list[str]:
    """Keys that stand twice; the text is looked through as events first, since building values recurses.

    Raises:
        ValueError: more levels or values than any configuration has, anchors counted each time they are used.
    """
    sizes: dict[str, int] = {}
    open_: list[_Node] = [_Node()]
    doubled: list[str] = []
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            open_[-1].key(None)
            open_.append(_Node(anchor=event.anchor or "", mapping=isinstance(event, yaml.MappingStartEvent)))
            if len(open_) > _DEEPEST:
                raise ValueError(f"nested deeper than {_DEEPEST} levels")
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            node = open_.pop()
            sizes[node.anchor] = node.size
            open_[-1].size += node.size
        elif isinstance(event, yaml.ScalarEvent):
            if open_[-1].key(event.value):
                doubled.append(event.value[:100])
            open_[-1].size += 1
            sizes[event.anchor or ""] = 1
        elif isinstance(event, yaml.AliasEvent):
            open_[-1].key(None)
            if any(node.anchor == event.anchor for node in open_):
                raise ValueError("an anchor contains itself")
            open_[-1].size += sizes.get(event.anchor or "", 1)
        if open_[-1].size > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values, anchors counted each time they are used")
    return doubled


@dataclass(slots=True)
class _Node:
    """A mapping or sequence whose end is not reached yet."""

    anchor: str = ""
    mapping: bool = False
    size: int = 1
    children: int = 0
    keys: set[str] = field(default_factory=set)

    def key(self, text: str | None) -> bool:
        """Count a child; whether it is a key that stands here already. A merge may stand more than once."""
        self.children += 1
        if not self.mapping or self.children % 2 == 0 or text is None or text == "<<":
            return False
        known = text in self.keys
        self.keys.add(text)
        return known


def _why(error: Exception, text: str) -> str:
    """Return why a text cannot be read, in one line."""
    if isinstance(error, yaml.YAMLError) and _TEMPLATE in text:
        return "a template, not yet YAML; render it first (helm template) and audit the result"
    if isinstance(error, RecursionError):
        return f"nested deeper than {_DEEPEST} levels"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
