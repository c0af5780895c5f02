"""Results of one load run: raw times of every arrival, stored so that any statistic can be computed later.

Pure values and their files; draws no conclusion. Times are seconds after the start, on one monotonic clock.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import damage, decode, read_object
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
    "SCHEMA",
    "TRANSPORT",
    "UNRECORDED",
    "Floats",
    "Integers",
    "LoadRun",
    "Saturation",
]

SCHEMA = 1
_AGAIN = "restore the folder from a copy, or run the load again"


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadRun:
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
    about: Mapping[str, Any] = field(default_factory=dict)
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

    def save(self, folder: Path) -> None:
        """Write ``run.npz`` (raw arrays) and ``run.json`` (everything else)."""
        _save_arrays(folder / "run.npz", intended=self.intended, sent=self.sent, done=self.done, status=self.status)
        record = {
            "schema": SCHEMA,
            "kind": "open loop",
            "schedule": self.schedule.parameters | {"digest": self.schedule.digest},
            "batch": self.batch,
            "client_cpu": self.client_cpu,
            "elapsed_s": self.elapsed,
            "start": self.start,
            "target": self.target,
            "reasons": {str(status): text for status, text in self.reasons.items()},
            "about": dict(self.about),
            "faults": list(self.faults),
        }
        write_atomically(folder / "run.json", json.dumps(record, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> "LoadRun":
        """Read what `save` wrote.

        Raises:
            IntegrityError: missing, of another schema, or not the arrivals whose digest it carries.
        """
        record, arrays = _read(folder, "open loop")
        with damage(folder / "run.json", _AGAIN):
            parameters = dict(record["schedule"])
            digest = parameters.pop("digest")
            schedule = Schedule(offsets=arrays["intended"], **parameters)
            run = cls(
                **arrays,
                schedule=schedule,
                batch=record["batch"],
                client_cpu=record["client_cpu"],
                elapsed=record["elapsed_s"],
                start=record["start"],
                target=record["target"],
                reasons={int(status): text for status, text in record["reasons"].items()},
                about=record["about"],
                faults=tuple(record.get("faults", ())),
            )
            decode(_About, {each.name: getattr(run, each.name) for each in fields(_About)}, where="")
            known = schedule.digest
        if known != digest or len({len(array) for array in arrays.values()}) != 1:
            raise _broken(folder, "its arrivals do not match its schedule")
        return run


@dataclass(frozen=True, eq=False, kw_only=True)
class Saturation:
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
    about: Mapping[str, Any] = field(default_factory=dict)
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

    def save(self, folder: Path) -> None:
        """Write ``saturation.npz`` and ``saturation.json``."""
        _save_arrays(folder / "saturation.npz", sent=self.sent, done=self.done, status=self.status)
        record = {
            "schema": SCHEMA,
            "kind": "closed loop",
            "seconds": self.seconds,
            "concurrency": self.concurrency,
            "batch": self.batch,
            "client_cpu": self.client_cpu,
            "start": self.start,
            "target": self.target,
            "reasons": {str(status): text for status, text in self.reasons.items()},
            "about": dict(self.about),
            "faults": list(self.faults),
        }
        write_atomically(folder / "saturation.json", json.dumps(record, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> "Saturation":
        """Read what `save` wrote.

        Raises:
            IntegrityError: missing or of another schema.
        """
        record, arrays = _read(folder, "closed loop")
        known = {key: value for key, value in record.items() if key not in ("schema", "kind", "reasons", "faults")}
        with damage(folder / "saturation.json", _AGAIN):
            reasons = {int(status): text for status, text in record["reasons"].items()}
            run = cls(**arrays, **known, reasons=reasons, faults=tuple(record.get("faults", ())))
            decode(_Closed, {each.name: getattr(run, each.name) for each in fields(_Closed)}, where="")
            if run.seconds <= 0 or len({len(array) for array in arrays.values()}) != 1:
                raise ValueError("the values do not belong to a closed loop")
        return run


@dataclass(frozen=True, kw_only=True)
class _About:
    """Typed fields of both kinds of runs besides their arrays."""

    batch: int
    client_cpu: float
    start: float
    target: str
    reasons: Mapping[int, str]
    about: Mapping[str, Any]
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Closed(_About):
    """Further fields of a closed loop."""

    seconds: float
    concurrency: int


def _save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def _read(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    name = "run" if kind == "open loop" else "saturation"
    names = ("intended", "sent", "done", "status") if kind == "open loop" else ("sent", "done", "status")
    try:
        record = read_object(folder / f"{name}.json", schema=SCHEMA, next_step=_AGAIN)
        arrays = read_arrays(folder / f"{name}.npz", names, next_step=_AGAIN)
    except FileNotFoundError as error:
        raise _broken(folder, f"missing file {Path(str(error.filename)).name}") from error
    if record.get("kind") != kind:
        raise _broken(folder, f"kind is {record.get('kind')!r}, expected {kind}")
    return record, arrays


def _broken(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(f"not a load run: {why}", where=str(folder), next_step=_AGAIN)
