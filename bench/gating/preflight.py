"""Checks before the first slot for conditions that would spoil a gate. Refuses nothing and changes nothing."""

import math
import shutil
from pathlib import Path

from ..budget import Budget
from ..measuring.probes import load_average

P99_REQUESTS = 5000
BUSY = 0.5  # runnable processes per core, before the gate adds its own two
_BYTES_PER_REQUEST = 48  # four arrays of numbers, hardly compressible, and the load generator's own copy
_SPARE = 64 << 20  # bytes: the placed model and logs


def preflight(budget: Budget, folder: Path, *, load: float | None = None, free: int | None = None) -> tuple[str, ...]:
    """Warnings about this machine, for a run into `folder`; `load` and `free` bytes are looked up unless given."""
    found = []
    load = load_average() if load is None else load
    if load > BUSY:
        found.append(
            f"other work keeps this machine busy ({load:.1f} runnable processes per core): expect INCONCLUSIVE"
        )
    free = shutil.disk_usage(_existing(folder)).free if free is None else free
    if free < (needed := disk_needed(budget)):
        found.append(f"{free >> 20} MiB free at {folder}, and this run may need {needed >> 20} MiB")
    if (few := _p99_error(budget)) is not None:
        found.append(
            f"p99 of {budget.design.rate * budget.design.seconds:.0f} requests per slot: sampling alone "
            f"moves it by about {few:.0%}; use at least {P99_REQUESTS} requests per slot"
        )
    return tuple(found)


def _p99_error(budget: Budget) -> float | None:
    """Relative standard error of a slot's p99 where it gates on too few requests, about ``2 / sqrt(n)``; else None.

    That is what gamma-like latencies show; ``sqrt(.99 * .01 / n) / f(q) / q`` in general, more where requests queue.
    """
    limit, requests = budget.limit("p99"), budget.design.rate * budget.design.seconds
    return 2 / math.sqrt(requests) if limit is not None and limit.gating and requests < P99_REQUESTS else None


def disk_needed(budget: Budget) -> int:
    """Bytes that a run may write at most, reruns included."""
    design = budget.design
    slots = 2 * design.pairs * (1 + design.reruns)
    return int(slots * design.rate * design.seconds * _BYTES_PER_REQUEST) + _SPARE


def _existing(folder: Path) -> Path:
    """The nearest folder on the way up that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
