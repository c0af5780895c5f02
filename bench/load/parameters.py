"""Parameters of a load process: plain JSON values, identical for `on_locust` and manual starts.

Pure; the other side is `locustfile`.
"""

import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize.errors import ConfigError

from ..schedule import Schedule
from ..targets import Endpoint
from .guard import MAX_RATE, AbortRules, address
from .wire import Wire

CHANCE = 1.2  # the busiest second of a Poisson process may lie so far above its mean


def open_loop(
    schedule: Schedule, *, in_flight: int, workers: int, warmup: int, drain: float, real_time: bool
) -> dict[str, Any]:
    """Of the loop that sends a schedule.

    Raises:
        ConfigError: a schedule without arrivals, or with more per second than the hard cap.
    """
    if not len(schedule):
        raise ConfigError("the schedule has no arrivals", next_step="raise the rate or lengthen the run")
    rate = len(schedule) / max(schedule.seconds, 1.0)
    if rate > MAX_RATE or peak(schedule) > MAX_RATE * CHANCE:
        raise ConfigError(
            f"{max(rate, peak(schedule)):.0f}/s is above the hard cap of {MAX_RATE:.0f}/s",
            next_step="lower the rate",
        )
    return {
        "loop": "open",
        "in_flight": in_flight,
        "connections": min(in_flight, max(8, min(64, ceil(schedule.peak_rate / workers / 4)))),
        "warmup": warmup,
        "drain": drain,
        "real_time": real_time,
    }


def peak(schedule: Schedule) -> int:
    """The most arrivals within any second: a law whose rate changes may have a tame mean."""
    offsets = schedule.offsets
    return int(np.max(np.searchsorted(offsets, offsets + 1.0) - np.arange(len(offsets)), initial=0))


def closed_loop(concurrency: int, seconds: float, *, warmup: int) -> dict[str, Any]:
    """Of the loop that keeps `concurrency` connections busy."""
    return {"loop": "closed", "connections": concurrency, "seconds": seconds, "warmup": warmup}


def load_process(
    endpoint: Endpoint,
    protocol: Wire,
    folder: Path,
    *,
    worker: int,
    workers: int,
    cores: Sequence[int] = (),
    abort: AbortRules | None = None,
) -> dict[str, Any]:
    """Of any load process: where to send, who it is, when to stop."""
    host, port = address(endpoint, protocol)
    return {
        "folder": str(folder),
        "host": host,
        "port": port,
        "name": endpoint.model,
        "worker": worker,
        "workers": workers,
        "cores": list(cores),
        "abort": (abort or AbortRules()).to_json(),
        "parent": os.getpid(),
    }
