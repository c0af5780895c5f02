"""Everything in a model's directory by itself: links, rights, owners, kinds and names of files, without reading one.

Follows no link and opens nothing.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from .doubt import Doubt

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""The legal form of a model's name as a directory."""
CODE = re.compile(r".*\.(py[cdiowxz]?|so(\.\d+)*|dll|dylib|egg|whl|sh)|triton_python_backend_stub", re.I)
"""File names that something in or around Triton runs or imports; a stub in a model's folder replaces Triton's."""
_BESIDE = re.compile(r"config\.pbtxt|[\w.-]*\.(md|txt)|LICENSE|\.gitkeep|\.gitignore|\.DS_Store")
"""Names that may stand beside the versions of a placed model; only config.pbtxt is read."""
_VERSION = re.compile(r"[1-9][0-9]*")
_HIGHEST = 2**63 - 1


def is_version(name: str) -> bool:
    """Return whether Triton takes a directory of that name for a version: ASCII digits without leading zeros."""
    return _VERSION.fullmatch(name) is not None and int(name) <= _HIGHEST


def trusted_owners(repository: Path) -> frozenset[int]:
    """Return who may own files of a repository: this user, root, and the owner of the repository itself."""
    return frozenset({0, os.geteuid(), repository.stat().st_uid})


def doubts(folder: Path, repository: Path) -> Iterator[Doubt]:
    """Yield what is wrong with the folder and with each entry below it, every one by itself."""
    owners = trusted_owners(repository)
    yield from _entry(folder, repository, owners)
    if folder.is_symlink():
        return
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as found:
                inside = sorted(found, key=lambda each: each.name)
        except OSError as error:
            yield Doubt(rule="unreadable", where=shown(here), seen=f"cannot be read: {error.strerror}")
            continue
        for each in inside:
            path = here / each.name
            yield from _entry(path, repository, owners)
            if each.is_dir(follow_symlinks=False):
                waiting.append(path)


def shared(repository: Path) -> Iterator[Doubt]:
    """Yield a repository in which every user may replace a model; one with the sticky bit lets them only add one."""
    mode = repository.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield Doubt(
            rule="world-writable",
            where=shown(repository),
            seen=f"writable by every user (mode {stat.S_IMODE(mode):o})",
        )


def beside(model: Path) -> Iterator[Doubt]:
    """Yield what lies beside the versions of a model and does not belong there: numbers that are none, and code."""
    try:
        names = sorted(os.listdir(model))
    except OSError:
        return
    for name in names:
        path = model / name
        if path.is_dir() and name.isdigit() and not is_version(name):
            seen = f"{shown(name)} looks like a version but is none: Triton ignores it or ends because of it"
            yield Doubt(rule="odd-name", where=shown(path), seen=seen)
    for path in sorted(walk(model)):
        first = path.relative_to(model).parts[0]
        if not is_version(first) and not path.is_symlink() and not path.is_dir() and CODE.fullmatch(path.name):
            yield Doubt(rule="foreign-code", where=shown(path), seen=f"code beside the versions: {shown(path.name)}")


def is_there(path: Path) -> bool:
    """Return whether something has that name, be it a link to nothing."""
    return path.exists() or path.is_symlink()


def strays(model: Path) -> Iterator[Doubt]:
    """Yield what lies beside the versions of a placed model and is neither the configuration nor a text for people.

    No list of names that Triton runs is complete, so what is not known to be harmless is reported.
    """
    for path in sorted(walk(model)):
        parts = path.relative_to(model).parts
        known = is_version(parts[0]) or (len(parts) == 1 and _BESIDE.fullmatch(path.name) and not path.is_dir())
        if not known and not CODE.fullmatch(path.name):  # code is reported as such
            seen = f"{shown(path.relative_to(model))} lies beside the versions, and seatrial did not write it"
            yield Doubt(rule="stray", where=shown(path), seen=seen)


def walk(folder: Path) -> Iterator[Path]:
    """Yield every entry below a folder, no link followed."""
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            yield Path(root) / name


def shown(path: Path | str) -> str:
    """Return a path as text that can be printed: bytes that are no UTF-8 and control characters are escaped."""
    text = str(path).encode(errors="backslashreplace").decode()
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _entry(path: Path, repository: Path, owners: frozenset[int]) -> Iterator[Doubt]:
    where = shown(path)
    try:
        status = path.lstat()
    except OSError as error:
        yield Doubt(rule="unreadable", where=where, seen=f"cannot be read: {error.strerror}")
        return
    if stat.S_ISLNK(status.st_mode):
        yield Doubt(rule="symlink", where=where, seen=f"a link to {shown(os.readlink(path))}")
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(repository)):
            yield Doubt(rule="outside", where=where, seen=f"it points to {shown(target)}")
        return
    mode = stat.S_IMODE(status.st_mode)
    plain = stat.S_ISREG(status.st_mode)
    if not plain and not stat.S_ISDIR(status.st_mode):
        yield Doubt(rule="special-file", where=where, seen=f"{_kind(status.st_mode)}, not a regular file")
    if mode & stat.S_IWOTH:
        yield Doubt(rule="world-writable", where=where, seen=f"writable by every user (mode {mode:o})")
    if plain and mode & (stat.S_ISUID | stat.S_ISGID):
        yield Doubt(rule="set-id", where=where, seen=f"it has the set-id bit (mode {mode:o})")
    if plain and status.st_nlink > 1:
        yield Doubt(rule="hard-link", where=where, seen=f"a file with {status.st_nlink} names (hard links)")
    if status.st_uid not in owners:
        yield Doubt(rule="foreign-owner", where=where, seen=f"owned by user {status.st_uid}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
