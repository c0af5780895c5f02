"""Scratch folders: made for one piece of work, gone after it, and swept where their process was killed before that.

A folder's name carries the process that owns it, which holds a lock on it too. Only a folder whose owner has ended and
whose lock is free is swept: by the first a process of this machine is known, by the second one in another container.
"""

import ctypes
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .interrupts import held
from .processes import dead, own

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: see renameat2(2)
_OWNED = re.compile(r"(?P<kind>\.?[a-z]+(?:-[a-z]+)*-)?(?P<pid>\d+)-(?P<ticks>\d+)-[0-9a-f]{12}")


def name(kind: str) -> str:
    """Return a new name of that kind, which says whose it is: ``KIND-PID-TICKS-TOKEN``."""
    return f"{kind}-{own()}-{uuid4().hex[:12]}"


@contextmanager
def folder(kind: str, root: Path) -> Iterator[Path]:
    """Make an empty folder under `root` for the length of a block; it is removed afterwards, however the block ends."""
    path, lock = root / name(kind), -1
    try:
        with held():
            path.mkdir(parents=True)
            lock = _locked(path)
        yield path
    finally:
        with held():
            shutil.rmtree(path, ignore_errors=True)
            if lock >= 0:
                os.close(lock)


def take_over(staged: Path, folder: Path) -> None:
    """Let `folder` be what was staged, in one step: a reader sees the old content or the new one.

    What stood there before stands under `staged` then. Two steps where the system cannot exchange two names.
    """
    if not folder.exists():
        os.rename(staged, folder)
    elif ctypes.CDLL(None, use_errno=True).renameat2(_HERE, bytes(staged), _HERE, bytes(folder), _EXCHANGE):
        aside = staged.with_name(name(".seatrial-aside"))
        with held():
            os.rename(folder, aside)
            os.rename(staged, folder)
            os.rename(aside, staged)


def sweep(root: Path, kind: str = "") -> tuple[Path, ...]:
    """Remove what dead processes left under `root`, folders and files of names that `name` made; returns what it was.

    Only kinds that begin with `kind`, which a folder shared with other programs needs.
    """
    return tuple(path for path in abandoned(root, kind) if remove(path))


def remove(path: Path) -> bool:
    """Remove a file or folder unless a process holds a lock on it; whether it was removed."""
    lock = _locked(path)
    if lock == _TAKEN:
        return False
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if lock >= 0:
        os.close(lock)
    return True


def abandoned(root: Path, kind: str = "") -> Iterator[Path]:
    """Yield what stands directly under `root` under the name of a process that has ended."""
    with suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            found = _OWNED.fullmatch(entry.name) if entry.name.startswith(kind) else None
            if found and dead(int(found["pid"]), int(found["ticks"])):
                yield Path(entry.path)


_UNKNOWN, _TAKEN = -1, -2


def _locked(path: Path) -> int:
    """Lock a folder or file: a descriptor, `_TAKEN` where another process has it, `_UNKNOWN` without one."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return _UNKNOWN
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        return _TAKEN if isinstance(error, BlockingIOError) else _UNKNOWN
    return handle
