"""Rotation of inputs: so many copies, each in memory of its own, that none is in a cache when its turn comes again.

Pure beside reading the processor's cache size; knows no engine.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from seatrial.optimize.samples import Array

TIMES = 3  # the copies together exceed the cache by this factor
MOST_BYTES = 1 << 30
MOST_COPIES = 256
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def copies(batch_bytes: int, cache_bytes: int) -> int:
    """Return how many batches exceed `TIMES` the cache, at least two; fewer where memory or buffers would not do."""
    wanted = max(2, math.floor(TIMES * cache_bytes / max(batch_bytes, 1)) + 1)
    return max(2, min(wanted, MOST_COPIES, MOST_BYTES // max(batch_bytes, 1)))


def batches(samples: Mapping[str, Array], batch: int, count: int) -> Iterator[dict[str, Array]]:
    """Batches one after the other through the samples, round again at their end; each is a copy of its own."""
    rows = len(next(iter(samples.values())))
    for number in range(count):
        chosen = np.arange(number * batch, (number + 1) * batch) % rows
        yield {name: np.ascontiguousarray(array[chosen]) for name, array in samples.items()}


def bytes_of(inputs: Mapping[str, Array]) -> int:
    """Bytes of all arrays together."""
    return sum(array.nbytes for array in inputs.values())


def last_level_cache(folder: Path = _CACHES) -> int:
    """Bytes of the processor's largest cache; 0 where the kernel does not say."""
    found = [0]
    for path in folder.glob("index*/size"):
        text = path.read_text().strip()
        number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
        found.append(int(number) * _UNITS.get(unit, 1) if number.isdecimal() else 0)
    return max(found)
