"""Reads recorded traffic: when requests came, from a CSV or an npz file, so that a load can offer them again.

Only reads and names; `bench.schedule.replay` scales and clips. Knows no log format beyond a column of seconds.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import ConfigError, MissingError

from .schedule import MAX_ARRIVALS, Floats, Schedule, replay

OFFSETS = ("offsets", "intended")
"""Columns of seconds after the start, used unchanged; `Schedule.save` and `LoadRun.save` write these."""
CLOCKS = ("times", "time", "timestamp", "timestamps")
"""Columns of a clock in seconds; the first arrival is moved to 0."""
GAPS = ("gaps", "gap")
"""Columns of seconds since the previous arrival."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """Arrivals at `times` seconds after the recording's start (float64[n]), and the digest of the file."""

    times: Floats
    digest: str

    def schedule(
        self, *, seconds: float | None = None, rate: float | None = None, spread: float = 0.0, seed: int = 0
    ) -> Schedule:
        """The recording as a schedule; with `rate` it is played faster or slower, until its mean rate is that.

        `spread` moves each arrival by up to so many seconds of the recording (seeded): a log of whole seconds has
        bursts that the traffic did not have.

        Raises:
            ConfigError: as `bench.schedule.replay`, or a rate that is not positive.
        """
        speed = 1.0
        if rate is not None:
            length = float(np.max(self.times))
            if not (rate > 0 and length > 0):
                raise ConfigError(
                    f"cannot replay a recording of {length:g} s at {rate}/s",
                    next_step="omit the rate: all its arrivals have the same time",
                )
            speed = rate * length / len(self.times)
        return replay(
            self.times, seconds=seconds, speed=speed, source=self.digest, spread=spread, seed=seed if spread else 0
        )


def read(path: Path) -> Recording:
    """Read arrivals from ``.npz`` or CSV (a header may name the column; without one it is a clock in seconds).

    Raises:
        MissingError: no such file.
        ConfigError: it holds no column that is known, or something that is no number.
    """
    if not path.is_file():
        raise MissingError("no such file", where=str(path))
    content = path.read_bytes()
    name, values = _npz(path) if content[:2] == b"PK" else _csv(path, content)
    if not len(values) or len(values) > MAX_ARRIVALS or values.ndim != 1 or not np.all(np.isfinite(values)):
        raise ConfigError(
            f"a recording needs 1 to {MAX_ARRIVALS} finite arrival times, got {len(values)}",
            where=f"{path}, column {name}",
        )
    if name in GAPS:
        values = np.cumsum(values)
    elif name in CLOCKS:
        values = values - np.min(values)
    return Recording(times=values, digest=digest_bytes(content))


def _npz(path: Path) -> tuple[str, Floats]:
    """Return the clock's name and the times of arrival in an npz file, [arrivals] in its unit."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:  # it leaves a broken file open
            name = _known(tuple(stored.files), path)
            return name, np.asarray(stored[name], dtype=np.float64)
    except (OSError, EOFError, BadZipFile, ValueError) as error:
        raise ConfigError(f"not an npz file of numbers: {error}", where=str(path)) from error


def _csv(path: Path, content: bytes) -> tuple[str, Floats]:
    """Return the clock's name and the times of arrival in a CSV file, [arrivals] in its unit."""
    try:
        rows = [row for row in csv.reader(content.decode("utf-8-sig").splitlines()) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"not a CSV file: {error}", where=str(path)) from error
    if not rows:
        return CLOCKS[0], np.empty(0)
    head = [cell.strip().lower() for cell in rows[0]]
    name, column, first = CLOCKS[0], 0, 0
    if not _is_number(head[0]) or len(head) > 1:
        name = _known(tuple(head), path)
        column, first = head.index(name), 1
    try:
        return name, np.array([float(row[column]) for row in rows[first:]], dtype=np.float64)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"a line has no number of seconds: {error}", where=f"{path}, column {name}") from error


def _known(names: tuple[str, ...], path: Path) -> str:
    for name in (*OFFSETS, *CLOCKS, *GAPS):
        if name in names:
            return name
    raise ConfigError(
        f"no known column of arrivals among {', '.join(names) or 'none'}",
        where=str(path),
        next_step=f"name the column one of {', '.join((*OFFSETS, *CLOCKS, *GAPS))}",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
