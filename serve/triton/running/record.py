"""The record of the server that is up: where it lies, and the lock under which it is written. Starts no server."""

from contextlib import AbstractContextManager
from pathlib import Path

from seatrial.optimize.environment import home
from seatrial.optimize.locking import locked

from ...errors import ServerError


def path() -> Path:
    """Return the file that names the server which `up` started and which stays when that process has ended."""
    return home() / "triton" / "server.json"


def leaving() -> Path:
    """Return the file that is there while the server is being taken down: nothing is to bring it back meanwhile."""
    return home() / "triton" / "server.leaving"


def lock() -> AbstractContextManager[None]:
    """Start or stop the server alone.

    Raises:
        ServerError: another process has held the lock for too long.
    """
    busy = ServerError(
        "another process has been starting or stopping the server for 90 seconds",
        where=str(path()),
        next_step="wait for that process, or end it",
    )
    return locked(path().with_suffix(".lock"), seconds=90.0, busy=busy)
