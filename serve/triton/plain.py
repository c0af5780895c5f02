"""Files of possibly foreign origin: read without following links, waiting for pipes, filling memory.

Reads only. A named pipe, a socket, a device or a directory in place of a file is an `OSError`, and so is a link.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .pbtxt import decoded

CONFIG_BYTES = 4 << 20
RECORD_BYTES = 4 << 20
_SETTLED_NS = 2_000_000_000
_Identity = tuple[int, int, int, int, int]
_digests: dict[_Identity, str] = {}


def read(path: Path, limit: int) -> bytes:
    """Return the bytes of a plain file of at most `limit` bytes.

    Raises:
        OSError: it is not there, no plain file, larger, or may not be read.
    """
    with _opened(path) as handle:
        if os.fstat(handle).st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        data = bytearray()
        while len(data) <= limit and (part := os.read(handle, 1 << 20)):
            data += part
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return bytes(data)


def config_text(path: Path) -> str:
    """Return the text of a config.pbtxt, in whatever encoding its comments are.

    Raises:
        OSError: as `read`.
    """
    return decoded(read(path, CONFIG_BYTES))


def digest(path: Path) -> str:
    """Return the SHA-256 of a plain file, hashed once in this process while its inode, size and times stay.

    A file changed in the last two seconds is hashed each time: within the resolution of its times it could change again
    unseen.

    Raises:
        OSError: as `read`.
    """
    with _opened(path) as handle:
        before = time.time_ns()
        identity = _identity(os.fstat(handle))
        known = _digests.get(identity)
        if known is not None:
            return known
        with os.fdopen(os.dup(handle), "rb") as stream:
            found = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        if _identity(os.fstat(handle)) == identity and before - max(identity[3:]) > _SETTLED_NS:
            _digests[identity] = found
        return found


def ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first two bytes and the last one.

    Raises:
        OSError: as `read`.
    """
    with _opened(path) as handle:
        size = os.fstat(handle).st_size
        return os.pread(handle, 2, 0), os.pread(handle, 1, max(size - 1, 0))


def is_plain(path: Path) -> bool:
    """Return whether a plain file lies there, no link followed."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def close_to_others(path: Path) -> None:
    """Take from other users the right to write a file or folder, whatever this process's umask gave them."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        path.chmod(mode & ~stat.S_IWOTH)


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a plain file; anything else is not even opened, since that alone may wait or act."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield handle
    finally:
        os.close(handle)
