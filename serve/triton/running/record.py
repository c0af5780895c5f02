"""The record of the server that is up: where it lies, and the lock under which it is written. Starts no server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seatrial.optimize.environment import home

from ...errors import ServerError


def path() -> Path:
    """Return the file that names the server which `up` started and which stays when that process has ended."""
    return home() / "triton" / "server.json"


def leaving() -> Path:
    """Return the file that is there while the server is being taken down: nothing is to bring it back meanwhile."""
    return home() / "triton" / "server.leaving"


@contextmanager
def lock() -> Iterator[None]:
    """Start or stop the server alone.

    Raises:
        ServerError: another process has held the lock for too long.
    """
    from filelock import FileLock, Timeout

    path().parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path().with_suffix(".lock"), timeout=90.0):
            yield
    except Timeout as error:
        raise ServerError(
            "another process has been starting or stopping the server for 90 seconds",
            where=str(path()),
            next_step="wait for that process, or end it",
        ) from error
