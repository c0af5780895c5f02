"""The files of a placed version: nothing but plain files inside the directory, and their digest.

Reads only. What it refuses never reaches the server: a link or a path that leads out of the model's directory would let
whoever can write a name there choose the bytes that are run.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.plain import digest_settled

from .placement import RECORD, PlacementRecord, stored

_IGNORED = "__pycache__"  # Python writes there when it loads the version


def digest_of(version: Path) -> str:
    """One digest of names and bytes of everything in a version's directory but the placement's record, which names
    the version: the same bytes under another number have the same digest.

    Raises:
        IntegrityError: a link, or something else that is no plain file.
    """
    return digest_bytes(canonical(_held(digests(version))))


def _held(found: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in found.items() if name != RECORD}


def digests(version: Path) -> dict[str, str]:
    """The digest of each file by its path inside the version's directory.

    Raises:
        IntegrityError: as `digest_of`.
    """
    for folder in (version.parent, version):
        if folder.is_symlink() or not folder.is_dir():
            raise _refused(folder, "is not a directory of its own" if folder.exists() else "does not exist")
    try:
        return {str(path.relative_to(version)): digest_settled(path) for path in sorted(_files(version))}
    except OSError as error:
        raise _refused(Path(error.filename or version), f"cannot be read: {error.strerror or error}") from error


def recorded(version: Path) -> dict[str, str] | None:
    """The digest of each file when the version was placed; None where that was not recorded yet.

    Raises:
        IntegrityError: the record cannot be read.
    """
    try:
        found = stored(PlacementRecord, version / RECORD).files
    except FileNotFoundError as error:
        raise _refused(version / RECORD, f"cannot be read: {error.strerror}") from error
    return None if found is None else dict(found)


def check(version: Path) -> str:
    """Check the version's files against its placement record, if it has one; return their digest.

    Raises:
        IntegrityError: a file is missing, added or changed since it was placed, or as `digest_of`.
    """
    found, placed = digests(version), recorded(version)
    if placed is not None:
        held = _held(found)
        for name in sorted(set(placed) | set(held)):
            if placed.get(name) != held.get(name):
                what = "is missing" if name not in held else "was added" if name not in placed else "was changed"
                raise _refused(version / name, f"{what} since the version was placed")
    return digest_bytes(canonical(_held(found)))


def _files(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.is_symlink():
            raise _refused(path, f"is a link to {path.readlink()}, but versions must contain regular files")
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.name == _IGNORED:
            continue
        if stat.S_ISDIR(mode):
            yield from _files(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise _refused(path, "is not a regular file")


def _refused(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{path.name} {why}",
        where=str(path),
        next_step="place the artifact again: it gets a new version number",
    )
