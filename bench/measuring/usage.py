"""Usage of a subject while it was measured, as stored: host memory, GPU memory, energy. Measures and judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from seatrial.optimize.record import Record

from ..measurement import NOTHING, Unavailable
from ..processes import Resident
from .growth import Growth, Part, growth

State = tuple[float, float | None, float | None, int | None, float | None, tuple[str, ...] | None]
"""Seconds on the monotonic clock, SM hertz, memory hertz, degrees Celsius, watts, throttle reasons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the whole tree, sums in bytes, `at` seconds after the probe began; `pss` is the last one known."""

    at: float
    resident: int
    anonymous: int
    file: int
    pss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySeries(Record, sparse=("requests",)):
    """Looks in order of time, thinned to a few hundred; `requests` were served until then, None where unknown."""

    at: tuple[float, ...]
    resident: tuple[int, ...]
    anonymous: tuple[int, ...]
    file: tuple[int, ...]
    pss: tuple[int, ...]
    requests: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Record, sparse=("series", "of", "allocators")):
    """Host memory of a process tree in bytes. GPU memory is not in it. What earlier versions did not record is None.

    `peak` is the higher of two high waters: `loading`, the sum of all processes' kernel high-water marks (``VmHWM``)
    when the probe began, and `running`, the highest sum of resident memory since, with each process counted at its mark
    in the interval in which that mark rose: spikes between two looks are not missed, but spikes of two processes in one
    interval count as one. `marks_reset` says that the kernel let the marks start anew; otherwise a spike below an older
    one stays unseen. Shared pages count once per process; `peak_pss` shares them out, but is looked at once a second.
    `last` is the sum at the end, what stays, and `last_file` the page cache of mapped files (weights, libraries) in it;
    `peak_anonymous` is the highest sum without that cache. `high_water` is each process's mark by process id.
    `phases` are looks at named moments; the series begins at `start` on this machine's monotonic clock. `of` names the
    processes where a port led to them, `allocators` the peaks that engines themselves report.
    """

    peak: int
    last: int
    high_water: Mapping[int, int] = field(default_factory=dict)
    loading: int | None = None
    running: int | None = None
    last_file: int | None = None
    peak_anonymous: int | None = None
    peak_pss: int | None = None
    processes: int | None = None
    looks: int | None = None
    marks_reset: bool | None = None
    group_peak: int | None = None
    start: float | None = None
    phases: Mapping[str, Look | Resident] = field(default_factory=dict)
    series: MemorySeries | None = None
    growth: Growth | Unavailable = NOTHING
    of: str = ""
    allocators: Mapping[str, str | Mapping[str, int]] = field(default_factory=dict)


def parts_of(memory: Memory | Unavailable) -> tuple[Part, ...]:
    """Return the later parts of recorded growth, recomputed from the series where they were not kept; else none."""
    if isinstance(memory, Unavailable):
        return ()
    if isinstance(memory.growth, Growth) and memory.growth.parts:
        return memory.growth.parts
    if memory.series is None or not memory.series.requests:
        return ()
    served, held = np.array(memory.series.requests, np.float64), np.array(memory.series.anonymous, np.float64)
    if served.shape != held.shape:
        return ()
    during = (served > 0) & (np.append(served[1:], served[-1]) > served[0]) & (np.append(0.0, served[:-1]) < served[-1])
    found = growth(served[during], held[during])
    return found.parts if found else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """Bytes of one GPU: taken `before`, and `peak` and `last` above that.

    `by_process` are the subject's own at the end, `others` process ids of others on it.
    """

    name: str
    before: int
    peak: int
    last: int
    by_process: Mapping[int, int] | Literal["unavailable"]
    others: tuple[int, ...]
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse(Record):
    """Bytes above the `baseline` over all GPUs, and what was seen of each by UUID."""

    peak: int
    last: int
    baseline: Literal["empty server", "start of the measurement"]
    gpus: Mapping[str, GpuMemory]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUse(Record):
    """Joules gross and net of idling over `seconds`, and net per inference."""

    joules: float
    idle_watts: float
    seconds: float
    net_joules: float
    per_inference: float
    note: str = ""
