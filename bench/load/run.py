"""Results of one load run: raw times of every arrival, stored so that any statistic can be computed later.

Pure values and their files; draws no conclusion. Times are seconds after the start, on one monotonic clock.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import damage, read_object
from seatrial.optimize.record import Record
from seatrial.optimize.store import write_atomically

from ..arrays import read_arrays
from ..schedule import Schedule
from .status import CENSORED, NO_RESULT, OK, TRANSPORT, UNRECORDED

Floats = NDArray[np.float64]
Integers = NDArray[np.int16]

__all__ = [
    "CENSORED",
    "NO_RESULT",
    "OK",
    "TRANSPORT",
    "UNRECORDED",
    "Floats",
    "Integers",
    "LoadRun",
    "Saturation",
]

_AGAIN = "restore the folder from a copy, or run the load again"
_ARRAYS = ("intended", "sent", "done", "status")
_FACTS = (
    *("python", "locust", "gevent", "warmup_errors", "workers", "real_time"),
    *("protocol", "client_wait", "cores", "server_cores"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client(Record, sparse=_FACTS):
    """The load generator of a run: its versions, processes, wire protocol and cores; None where it was not recorded.

    `client_wait` is the busiest process's share of time in which it waited for a core, `real_time` whether all had
    real-time priority. `cores` are those of the load processes, `server_cores` those of the target, as far as known.
    """

    python: str | None = None
    locust: str | None = None
    gevent: str | None = None
    warmup_errors: int | None = None
    workers: int | None = None
    real_time: bool | None = None
    protocol: str | None = None
    client_wait: float | None = None
    cores: tuple[int, ...] | None = None
    server_cores: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadRun(
    Record,
    schema=1,
    what="the load run",
    next_step=_AGAIN,
    computed=("kind",),
    keys={"elapsed": "elapsed_s"},
    beside=(*_ARRAYS, "schedule"),
):
    """An open-loop run: one entry per arrival of the schedule, in its order.

    `intended` when it was due, `sent` when its first byte was handed to the kernel (NaN: never, because the cap on
    requests in flight was reached), `done` when its reply was complete. `status` is the HTTP status, 0 for a broken
    connection, -1 (censored) for an arrival that was never sent or had no reply when the run ended; `done` is then the
    end of the run, so that ``done - intended`` is a lower bound. -2 (unrecorded) is an arrival of which nothing is
    known, because the run was stopped before it was due or its load process was lost; `done` is NaN there. -3 (no
    result) is a reply of status 200 that holds no inference result: it is empty, or reports an error. `faults` says why
    such a run may not be believed. `client_cpu` is the busiest load process's share of one core. `start` is the
    monotonic clock of this machine at second 0, to line other recordings up.
    """

    intended: Floats
    sent: Floats
    done: Floats
    status: Integers
    schedule: Schedule
    batch: int
    client_cpu: float
    elapsed: float
    start: float
    target: str
    reasons: Mapping[int, str] = field(default_factory=dict)
    about: Client = Client()
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.intended)

    @property
    def latency(self) -> Floats:
        """Seconds from the intended send to the reply, of requests answered with 200; shape [answered]."""
        answered = self.status == OK
        latency: Floats = self.done[answered] - self.intended[answered]
        return latency

    @property
    def latency_bounds(self) -> Floats:
        """`latency` in seconds, [answered], with the lower bound of what every censored arrival's would have been.

        Quantiles of `latency` alone flatter a server that was too slow to answer.
        """
        kept = (self.status == OK) | (self.status == CENSORED)
        bounds: Floats = self.done[kept] - self.intended[kept]
        return bounds

    @property
    def service(self) -> Floats:
        """Seconds from the actual send to the reply, of requests answered with 200; blind to waiting at the client."""
        answered = self.status == OK
        service: Floats = self.done[answered] - self.sent[answered]
        return service

    @property
    def lag(self) -> Floats:
        """Seconds by which the client sent late, of everything that it sent."""
        sent = ~np.isnan(self.sent)
        lag: Floats = self.sent[sent] - self.intended[sent]
        return lag

    kind: ClassVar[str] = "open loop"

    def save(self, folder: Path) -> None:
        """Write ``run.npz`` (raw arrays) and ``run.json`` (everything else)."""
        _save(self, folder / "run.json", _ARRAYS)

    @classmethod
    def read(cls, path: Path, *, next_step: str = "", **beside: Any) -> Self:
        """Read what `save` wrote into the folder `path`.

        Raises:
            IntegrityError: missing, of another schema, or not the arrivals whose digest it carries.
        """
        value, arrays = _read(path / "run.json", _ARRAYS)
        with damage(path / "run.json", _AGAIN):
            stored = value.pop("schedule", None)
            schedule = Schedule.from_json(stored, offsets=arrays["intended"])
        run = cls.from_json(value, where=str(path / "run.json"), schedule=schedule, **arrays)
        if schedule.digest != stored.get("digest") or len({len(array) for array in arrays.values()}) != 1:
            raise _broken(path, "its arrivals do not match its schedule")
        return run

    def to_json(self) -> dict[str, Any]:
        """Return everything but the arrays, the schedule by its parameters and digest."""
        return Record.to_json(self) | {"schedule": self.schedule.to_json()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Saturation(
    Record, schema=1, what="the closed loop", next_step=_AGAIN, computed=("kind",), beside=("sent", "done", "status")
):
    """A closed-loop run: every reply that came within `seconds`, with `concurrency` requests always in flight.

    `sent` and `done` in seconds after the start, `status` and `faults` as in `LoadRun`; shape [replies], in order of
    arrival.
    """

    sent: Floats
    done: Floats
    status: Integers
    seconds: float
    concurrency: int
    batch: int
    client_cpu: float
    start: float
    target: str
    reasons: Mapping[int, str] = field(default_factory=dict)
    about: Client = Client()
    faults: tuple[str, ...] = ()

    @property
    def latency(self) -> Floats:
        """Seconds from send to reply, of requests answered with 200."""
        answered = self.status == OK
        latency: Floats = self.done[answered] - self.sent[answered]
        return latency

    @property
    def completed(self) -> int:
        """Requests answered with 200 within the window."""
        return int(np.count_nonzero((self.status == OK) & (self.done <= self.seconds)))

    @property
    def errors(self) -> int:
        """Replies other than 200, and broken connections."""
        return int(np.count_nonzero(self.status != OK))

    @property
    def requests_per_second(self) -> float:
        """Completed requests per second of the window."""
        return self.completed / self.seconds

    @property
    def inferences_per_second(self) -> float:
        """Completed samples per second: requests times batch."""
        return self.requests_per_second * self.batch

    kind: ClassVar[str] = "closed loop"

    def save(self, folder: Path) -> None:
        """Write ``saturation.npz`` and ``saturation.json``."""
        _save(self, folder / "saturation.json", _ARRAYS[1:])

    @classmethod
    def read(cls, path: Path, *, next_step: str = "", **beside: Any) -> Self:
        """Read what `save` wrote into the folder `path`.

        Raises:
            IntegrityError: missing or of another schema.
        """
        value, arrays = _read(path / "saturation.json", _ARRAYS[1:])
        return cls.from_json(value, where=str(path / "saturation.json"), **arrays)

    def check(self) -> None:
        """Check that the arrays belong to a closed loop."""
        if self.seconds <= 0 or len({len(array) for array in (self.sent, self.done, self.status)}) != 1:
            raise ValueError("the values do not belong to a closed loop")


def _save(run: LoadRun | Saturation, path: Path, names: Sequence[str]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(run, name) for name in names})
    write_atomically(path.with_suffix(".npz"), buffer.getvalue())
    run.write(path, indent=1)


def _read(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return (
            read_object(path, schema=1, next_step=_AGAIN),
            read_arrays(path.with_suffix(".npz"), names, next_step=_AGAIN),
        )
    except FileNotFoundError as error:
        raise _broken(path.parent, f"missing file {Path(str(error.filename)).name}") from error


def _broken(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(f"not a load run: {why}", where=str(folder), next_step=_AGAIN)
