"""Plain files in folders that others may have damaged: read only what is a file, written whole or not at all.

A pipe, a device or a link in the place of a file is refused before a byte of it is read, so that nothing hangs and
nothing outside the folder is taken for its content. What a killed writer left staged is swept by the next one.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

STAGED = ".staged-"
_CHUNK = 1 << 20
_HOLES = 1 << 30  # bytes above which a file that takes hardly any space is not read through
DEEPEST = 64  # levels of nesting; our own records have fewer than ten
_DIGITS = 300  # of a whole number: any float can still hold it
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)
_SETTLED_NS = 2_000_000_000
_swept: set[Path] = set()
_digests: dict[tuple[int, ...], str] = {}


def parse_json(data: bytes, *, constants: bool = False) -> Any:
    """The JSON value of UTF-8 bytes; with `constants`, NaN and Infinity are taken, as other programs write them.

    Raises:
        ValueError: not UTF-8, not JSON, a number that JSON does not have or beyond all bounds, or nested too deeply.
    """
    try:
        value = json.loads(
            data.decode(), parse_constant=float if constants else _no_constant, parse_float=_float, parse_int=_int
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        if (depth := depth + 1) > DEEPEST:
            raise ValueError("nested too deeply")
        level = [child for each in level for child in (each.values() if isinstance(each, dict) else each)]
    return value


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"the number {text[:40]}... is too large")
    return int(text)


@contextmanager
def opened(path: Path, *, links: bool = False) -> Iterator[BufferedReader]:
    """The plain file, open for reading; a link to one is followed only with `links`.

    Nothing else is opened, since that alone may wait or act.

    Raises:
        OSError: it is missing, cannot be opened, or is no plain file; `strerror` says which.
    """
    _check_kind(path, os.stat(path, follow_symlinks=links).st_mode)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as stream:
        _check_kind(path, os.fstat(descriptor).st_mode)
        yield stream


def _check_kind(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for fits, name in _KINDS if fits(mode)), "of unknown kind")
        raise OSError(errno.EINVAL, f"{kind} is in the place of a file", str(path))


def read_plain(path: Path, limit: int, *, links: bool = False) -> bytes:
    """The bytes of a plain file of at most `limit` bytes.

    Raises:
        OSError: as `opened`, or it is larger.
    """
    with opened(path, links=links) as stream:
        data = stream.read(limit + 1) if os.fstat(stream.fileno()).st_size <= limit else b""
        if len(data) > limit or os.fstat(stream.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than the {limit} bytes allowed", str(path))
        return data


def digest_plain(path: Path, size: int | None = None) -> str:
    """``sha256:<64 hex>`` of a plain file, in chunks; one of another size than `size`, or of holes, is not read.

    Raises:
        OSError: as `opened`, or the size is not what it should be.
    """
    state = hashlib.sha256()
    with opened(path) as stream:
        status = os.fstat(stream.fileno())
        held = status.st_size
        if size is not None and held != size:
            raise OSError(errno.EINVAL, f"it has {held} bytes instead of {size}", str(path))
        if size is None and held > _HOLES and status.st_blocks * 512 < held // 16:
            raise OSError(errno.EINVAL, f"it has {held} bytes, nearly all of them unallocated", str(path))
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return "sha256:" + state.hexdigest()


def digest_settled(path: Path) -> str:
    """``sha256:<64 hex>`` of a plain file, hashed once in this process while its inode, size and times stay.

    A file changed in the last two seconds is hashed each time: within the resolution of its times it could change again
    unseen.

    Raises:
        OSError: as `opened`.
    """
    with opened(path) as stream:
        before = time.time_ns()
        identity = _identity(stream)
        if (known := _digests.get(identity)) is not None:
            return known
        found = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        if _identity(stream) == identity and before - max(identity[3:]) > _SETTLED_NS:
            _digests[identity] = found
        return found


def _identity(stream: BinaryIO) -> tuple[int, ...]:
    status = os.fstat(stream.fileno())
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_plain(path: Path) -> bool:
    """Return whether a plain file is there."""
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def write_atomically(path: Path, data: bytes) -> None:
    """Stage beside `path`, fsync, rename: a reader sees the old bytes or the new ones, never a part."""
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep(path.parent)
    with staging(path) as staged:
        staged.write_bytes(data)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A new file beside `target`: renamed over it at the end of the block, removed where the block raises.

    It is locked (flock) while its writer lives, by which `sweep` tells it from a dead writer's.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, staged = _held(target.parent)
    try:
        yield staged
        os.fsync(descriptor)
        staged.chmod(0o644)
        staged.replace(target)
        fsync_folder(target.parent)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_once(target: Path, data: bytes, *, mode: int = 0o444) -> None:
    """Stage, fsync, link: the file appears whole, with that mode, and never over another one; read-only by default.

    Raises:
        FileExistsError: something is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, staged = _held(target.parent)
    try:
        staged.write_bytes(data)
        os.fsync(descriptor)
        staged.chmod(mode)
        os.link(staged, target)
    finally:
        staged.unlink(missing_ok=True)
        os.close(descriptor)
    fsync_folder(target.parent)


def fsync_folder(folder: Path) -> None:
    """Make names that were added or removed in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _held(folder: Path) -> tuple[int, Path]:
    """A fresh staged file that this process holds locked; another one where a sweeper came first."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=STAGED, dir=folder)
        if _locked(descriptor) is not False and os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Lock a file: False where another process holds it, None where the filesystem has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def leftovers(folder: Path) -> list[Path]:
    """Return what was staged in a folder, by any process; empty where that is not a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.name.startswith(STAGED)]
    return []


def sweep(folder: Path) -> int:
    """Remove what writers that died left staged in a folder, and return how many; a live writer's file stays."""
    return sum(_removed(path) for path in leftovers(folder))


def _removed(path: Path) -> bool:
    with suppress(OSError), opened(path) as stream:
        if _locked(stream.fileno()):
            path.unlink()
            return True
    return False
