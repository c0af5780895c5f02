"""Timing of a session's bound buffers: device time beside wall time, transfers apart, inputs that leave the cache.

Takes raw times and computes no statistic. The engine's buffers and the device's events are handed in, so that the same
code runs where there is no GPU.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from seatrial.optimize.samples import Array

from . import rotation

STEADY = 0.01  # relative range of the clock within the window
WINDOW, LONGEST = 0.5, 5.0  # seconds: of the clock's window, and of warming up altogether
LEAST, MOST = 10, 200_000  # timed runs


class Buffers(Protocol):
    """Inputs and outputs in memory of the device."""

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Copy arrays into the input buffers."""
        ...

    def run(self) -> None:
        """Infer once; returns when the outputs are there."""
        ...

    def read(self) -> dict[str, Array]:
        """Copy the outputs to the host."""
        ...


Bind = Callable[[Mapping[str, Array]], Buffers]


class Events(Protocol):
    """Events of a device around a block of its work."""

    def start(self) -> None:
        """Record the first event."""
        ...

    def stop(self) -> float:
        """Record the second one, wait for it, and return the seconds between the two on the device's clock."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundTimes:
    """Seconds of each run and of each transfer. `device` is empty where the device has no events.

    `copies` batches of `batch` samples were asked for in turn, together `rotated` bytes, for a cache of `cache` bytes.
    `steady` is False where the clock still moved when the first figure was taken, None where no clock can be read.
    """

    batch: int
    copies: int
    rotated: int
    cache: int
    steady: bool | None
    wall: tuple[float, ...]
    device: tuple[float, ...]
    write: tuple[float, ...]
    read: tuple[float, ...]


def bound_times(
    bind: Bind,
    samples: Mapping[str, Array],
    *,
    batch: int,
    seconds: float,
    cache: int,
    events: Events | None = None,
    clock: Callable[[], float | None] = lambda: None,
) -> BoundTimes:
    """Time bound runs for `seconds`, back to back, after the `clock` (hertz) is steady; then the transfers.

    `cache` are the bytes of the cache that inputs should not be found in: a GPU's L2, or the processor's last level.

    Raises:
        StageError: the engine refuses the samples.
    """
    size = rotation.bytes_of(next(rotation.batches(samples, batch, 1)))
    count = rotation.copies(size, cache)
    inputs = list(rotation.batches(samples, batch, count))
    buffers = [bind(each) for each in inputs]
    steady = settle(buffers[0].run, clock)
    wall, device = _runs(buffers, seconds, events)
    turns = range(max(LEAST, count))
    write = [_timed(lambda turn=turn: buffers[turn % count].write(inputs[turn % count])) for turn in turns]  # type: ignore[misc]
    read = [_timed(buffers[turn % count].read) for turn in turns]
    return BoundTimes(
        batch=batch,
        copies=count,
        rotated=count * size,
        cache=cache,
        steady=steady,
        wall=tuple(wall),
        device=tuple(device),
        write=tuple(write),
        read=tuple(read),
    )


def settle(run: Callable[[], object], clock: Callable[[], float | None], *, least: float = WINDOW) -> bool | None:
    """Run until the clock varied by less than `STEADY` within `WINDOW`, at least for `least` seconds, not for ever.

    Returns True where it did, False where it still moved after `LONGEST`, None where there is no clock to read.
    """
    began = time.perf_counter()
    looks: list[tuple[float, float]] = []
    while (ran := time.perf_counter() - began) < LONGEST:
        run()
        now = clock()
        if now is None:
            if ran >= least:
                return None
            continue
        looks.append((ran, now))
        window = [hertz for at, hertz in looks if at >= ran - WINDOW]
        whole = ran - looks[0][0] >= WINDOW and ran >= least
        if whole and max(window) - min(window) <= STEADY * max(window):
            return True
    return False if looks else None


def _runs(buffers: list[Buffers], seconds: float, events: Events | None) -> tuple[list[float], list[float]]:
    wall: list[float] = []
    device: list[float] = []
    until = time.perf_counter() + seconds
    while (time.perf_counter() < until or len(wall) < LEAST) and len(wall) < MOST:
        turn = buffers[len(wall) % len(buffers)]
        if events is not None:
            events.start()
        wall.append(_timed(turn.run))
        if events is not None:
            device.append(events.stop())
    return wall, device


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
