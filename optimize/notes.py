"""Small JSON notes under a digest key: the build's cache, which may be lost at any time and is validated on reading.

A note names its room and key and carries the digest of its value, so that one that was changed, or that stands in the
place of another, counts as absent: what it noted is made anew, and written over it.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from .artifact import canonical, checked_digest, digest_bytes, is_digest
from .errors import SeatrialError
from .plain import STAGED, parse_json, read_plain

LIMIT = 256 << 20  # largest note in bytes; statistics of a large model have some megabytes
ROOMS = (
    "candidates",
    "coverage",
    "figures",
    "ingredients",
    "memory",
    "pace",
    "recipes",
    "samples",
    "searches",
    "statistics",
    "steps",
)
Note = dict[str, Any]
T = TypeVar("T")


def note_path(cache: Path, room: str, key: str) -> Path:
    """Return where the note under that digest lies.

    Raises:
        ValueError: the key is not a digest, and would not stay in the room.
    """
    if not is_digest(key):
        raise ValueError(f"{key[:80]!r} is not a digest")
    return cache / room / f"{key.removeprefix('sha256:')}.json"


def note_bytes(room: str, key: str, value: Mapping[str, Any]) -> bytes:
    """The note as a file."""
    plain = dict(value)
    return canonical({"room": room, "key": key, "digest": digest_bytes(canonical(plain)), "value": plain})


def read_note(path: Path, room: str, key: str) -> Note:
    """The value of a note; one of an earlier version is the value alone, which cannot be checked.

    Raises:
        OSError: it is missing or no plain file.
        ValueError: it was changed, or belongs elsewhere.
    """
    found = parse_json(read_plain(path, LIMIT))
    if not isinstance(found, dict):
        raise ValueError("not a note")  # noqa: TRY004  every reason is a ValueError here
    if found.keys() != {"room", "key", "digest", "value"}:
        return found
    value = found["value"]
    if (found["room"], found["key"]) != (room, key):
        raise ValueError("the file holds the note of another key")
    if not isinstance(value, dict) or digest_bytes(canonical(value)) != found["digest"]:
        raise ValueError("its value does not match its digest")
    return value


def recalled(cache: Path, room: str, key: str, read: Callable[[Note], T]) -> T | None:
    """Return what `read` makes of the note; None where there is none, or none that it can read."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, SeatrialError):
        return read(read_note(note_path(cache, room, key), room, key))
    return None


def recipe_path(cache: Path, name: str, recipe: str = "") -> Path | None:
    """The recipe, by digest, else by an artifact's name or tag, that a build noted and whose file is still there."""
    if is_digest(recipe) and (known := recalled(cache, "recipes", recipe, lambda note: Path(note["path"]))):
        return known if known.is_file() else None
    wanted = name.partition("@")[0].removesuffix(".fp32")
    for path in sorted((cache / "recipes").glob("*.json")):
        known = recalled(cache, "recipes", f"sha256:{path.stem}", lambda note: _named(note, wanted))
        if known is not None and known.is_file():
            return known
    return None


def _named(note: Note, name: str) -> Path | None:
    return Path(note["path"]) if tomllib.loads(note["text"]).get("name") == name else None


def noted_artifacts(cache: Path) -> Iterator[tuple[Path, str]]:
    """Every note of a build's step, with the digest of the artifact that it points to."""
    for path in sorted((cache / "steps").glob("*.json")):
        digest = recalled(cache, "steps", f"sha256:{path.stem}", lambda note: checked_digest(note["digest"]))
        if digest is not None:
            yield path, digest


def damaged_notes(cache: Path) -> Iterator[tuple[Path, str]]:
    """Every note that cannot be read, with the reason."""
    for room in ROOMS:
        folder = cache / room
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.startswith(STAGED):
                continue
            try:
                read_note(path, room, f"sha256:{path.stem}")
            except (OSError, ValueError) as error:
                yield path, (error.strerror if isinstance(error, OSError) else None) or str(error)
