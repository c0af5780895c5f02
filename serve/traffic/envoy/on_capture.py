"""The capture's files: made private, read as they grow, rotated, and forgotten in time.

Knows files and lines, not tensors. The proxy appends to one file per arm and never ends it; this room moves a file that
has grown away, has the proxy open a new one, and deletes the old one when it was read, or is older than users' data may
be. Nobody else needs to read these files; they are made for their owner alone.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from heapq import merge
from pathlib import Path

from seatrial.optimize.errors import ConfigError

from ..shadow.agreement import Agreement, AgreementLimits
from ..shadow.joining import Arm, Shadow
from ..shadow.joining import Recorded as Recorded
from .capture import FILES

PRIVATE = 0o600
_CHUNK = 1 << 20


def make_private(folder: Path) -> None:
    """Make that folder and its capture files before the proxy, which would make them readable for all users."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in FILES.values():
        _private(folder / name)


def expire(folder: Path, keep_seconds: float, *, most_bytes: int = 1 << 30) -> bool:
    """Empty files that were unused for so long, or unread while they grew so large; return whether there was one.

    For the watcher of the proxy: without a controller there is no collector.
    """
    found = False
    for path in folder.glob("*.log*"):
        with suppress(FileNotFoundError):  # a collector may take it away meanwhile
            state = path.stat()
            if state.st_size > most_bytes or (state.st_size and time.time() - state.st_mtime > keep_seconds):
                os.truncate(path, 0)  # the proxy appends, so it goes on at the new end
                found = True
    return found


class Collector:
    """Reads both arms' files as they grow; what was read leaves the disk once `most_bytes` or `ttl` are reached.

    `most_bytes` is the size of one file, `ttl` the seconds for which an answer may be kept. `reopen` makes the proxy
    close its files and open them anew (Envoy: POST /reopen_logs on the admin port).
    """

    def __init__(
        self,
        folder: Path,
        reopen: Callable[[], None],
        *,
        most_bytes: int = 64 * 1024 * 1024,
        ttl: float = 24 * 3600.0,
    ) -> None:
        self.folder = folder
        self.unreadable = 0
        self._reopen, self._most, self._ttl = reopen, most_bytes, ttl
        self._offsets: dict[Path, int] = {}
        self._moved: dict[Path, Arm] = {}
        self._since = time.monotonic()

    def poll(self) -> Iterator[Recorded]:
        """Every line that was written since the last call; then rotate what has grown too large or too old."""
        for path, arm in [*self._moved.items(), *((self.folder / name, arm) for arm, name in FILES.items())]:
            yield from self._read(path, arm)
        self._forget()
        current = [self.folder / name for name in FILES.values()]
        large = any(path.exists() and path.stat().st_size > self._most for path in current)
        if large or time.monotonic() - self._since > self._ttl:
            self._rotate()

    def forget_all(self) -> None:
        """Delete everything that was captured; for the end of a capture."""
        for path in self.folder.glob("*.log*"):
            path.unlink(missing_ok=True)
        self._offsets.clear()
        self._moved.clear()

    def _read(self, path: Path, arm: Arm) -> Iterator[Recorded]:
        """Whole lines only: the proxy may be in the middle of one."""
        if not path.exists():
            return
        with path.open("rb") as file:
            if path.stat().st_size < self._offsets.get(path, 0):
                self._offsets[path] = 0  # it was emptied (`expire`)
            file.seek(self._offsets.get(path, 0))
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[path] = self._offsets.get(path, 0) + len(line)
                try:
                    yield Recorded.parse(line, arm)
                except ValueError:
                    self.unreadable += 1

    def _rotate(self) -> None:
        """Move both files away and have new ones opened; the old ones are read once more before they go."""
        for arm, name in FILES.items():
            path = self.folder / name
            if not path.exists():
                continue
            old = path.with_suffix(f".log.{time.time_ns()}")
            path.rename(old)
            _private(path)
            self._moved[old] = arm
            self._offsets[old] = self._offsets.pop(path, 0)
        self._since = time.monotonic()
        self._reopen()

    def _forget(self) -> None:
        """Delete moved files: ours once the proxy has released them, those of others when they are too old."""
        now = time.time()
        for path in self.folder.glob("*.log.*"):
            age = now - path.stat().st_mtime
            if age > self._ttl or (
                path in self._moved and age > _SETTLED and self._offsets[path] == path.stat().st_size
            ):
                path.unlink(missing_ok=True)
                self._moved.pop(path, None)
                self._offsets.pop(path, None)


_SETTLED = 15.0  # seconds without a write; the proxy flushes what it holds every ten


def look(
    collector: Collector,
    shadow: Shadow,
    limits: Mapping[str, AgreementLimits],
    *,
    compared_at_least: float = 0.9,
    mine: Callable[[Recorded], bool] = lambda record: True,
) -> Agreement:
    """Take in what was captured since the last look, and judge everything so far; as often as one likes.

    `mine` says which records belong to the comparison, where an edge captures for several models.
    """
    now = time.monotonic()
    for record in collector.poll():
        if mine(record):
            shadow.add(record, now)
    shadow.expire(now)
    return shadow.agreement(limits, compared_at_least=compared_at_least)


def read(folder: Path, *, stable: int | None = None, candidate: int | None = None) -> tuple[Shadow, int]:
    """Join everything that lies in a capture's folder, to its end; and how many lines could not be read.

    Raises:
        ConfigError: no capture lies there.
    """
    streams = [_Stream(arm, sorted(folder.glob(f"{name}*"), key=_age)) for arm, name in FILES.items()]
    if not any(stream.paths for stream in streams):
        raise ConfigError(
            "the folder contains no capture",
            where=str(folder),
            next_step=f"name the folder in which the proxy writes {' and '.join(FILES.values())}",
        )
    shadow, now = Shadow(stable=stable, candidate=candidate), 0.0
    for record in merge(*streams, key=lambda each: each.at):
        now = max(now, record.at)
        shadow.add(record, now)
    shadow.close()
    return shadow, sum(stream.unreadable for stream in streams)


class _Stream:
    """One arm's records from its files, oldest file first."""

    def __init__(self, arm: Arm, paths: list[Path]) -> None:
        self.arm, self.paths, self.unreadable = arm, paths, 0

    def __iter__(self) -> Iterator[Recorded]:
        for path in self.paths:
            with path.open("rb") as file:
                for line in file:
                    try:
                        yield Recorded.parse(line, self.arm)
                    except ValueError:
                        self.unreadable += 1


def _age(path: Path) -> tuple[bool, str]:
    return path.suffix == ".log", path.name


def _private(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE))
    path.chmod(PRIVATE)
