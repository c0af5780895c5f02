"""Locks between processes: `flock` on a file, which the kernel releases when the process that holds it dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import SeatrialError


@contextmanager
def locked(path: Path, *, seconds: float = -1.0, busy: SeatrialError | None = None) -> Iterator[None]:
    """Hold the lock file of that path, in a folder that is made where it is missing.

    Waits without end where `seconds` is negative; otherwise raises `busy` where another process holds it for longer.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise (busy or error) from error
    try:
        yield
    finally:
        lock.release()
