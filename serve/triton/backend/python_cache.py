"""The Python backend's memory of answers: a key that says everything, bounded in bytes and age, off where it costs.

Copied beside model.py into each placed version and run inside the server's stub process, so it imports nothing of ours.
Lives in one process of one version, so another version starts empty. Knows no Triton; the clock is handed in.

Triton's own cache keys on input bytes without shape, type, parameters or outputs asked for, and so gives one request
another's answer. This key is a SHA-256 over all of those and the artifact's digest, each part with its length.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Answer = tuple[Array, ...]

WINDOW = 2000  # requests looked up before judging whether looking up pays
REST = 50  # windows to leave the cache off before trying again: what does not pay costs a fiftieth of its price
_ENTRY_BYTES = 400  # key, tuple, array headers and the place in the table, beside the arrays' own bytes


class Keys:
    """Makes keys for one artifact."""

    def __init__(self, digest: str) -> None:
        self._start = sha256(_sized(digest.encode()))

    def key(self, inputs: Iterable[tuple[str, Array]], outputs: Sequence[str], parameters: str) -> bytes:
        """The key of one request: equal only where artifact, inputs, outputs asked for and parameters all are."""
        state = self._start.copy()
        for name, array in inputs:
            state.update(f"{len(name)}:{name}{array.dtype.str}{array.shape}".encode())
            if array.dtype.hasobject:
                for each in array.ravel():
                    state.update(_sized(each if isinstance(each, bytes) else str(each).encode()))
            else:
                state.update(np.ascontiguousarray(array))  # type: ignore[arg-type]  # a buffer of that many bytes
        state.update(f"|{len(outputs)}|".encode())
        for name in outputs:
            state.update(_sized(name.encode()))
        state.update(parameters.encode())
        return state.digest()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


class Memory:
    """Answers by key: the least recently used goes when `limit` bytes are full, any after `ttl` seconds."""

    def __init__(self, limit: int, ttl: float) -> None:
        self.limit, self.ttl, self.bytes = limit, ttl, 0
        self._held: OrderedDict[Hashable, tuple[float, int, Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable, now: float) -> Answer | None:
        """The answer remembered, or None; `now` in seconds of a clock that never goes back."""
        found = self._held.get(key)
        if found is None:
            return None
        if now >= found[0]:
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return found[2]

    def put(self, key: Hashable, answer: Answer, now: float) -> None:
        """Remember a copy, so that no whole batch is kept alive by one of its rows; too large a one is not kept."""
        size = _ENTRY_BYTES + sum(_size(array) for array in answer)
        if key in self._held:
            self._drop(key)
        if size > self.limit:
            return
        while self.bytes + size > self.limit:
            self._drop(next(iter(self._held)))
        self._held[key] = (now + self.ttl, size, tuple(array.copy() for array in answer))
        self.bytes += size

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.bytes -= self._held.pop(key)[1]


def _size(array: Array) -> int:
    return array.nbytes + (sum(64 + len(each) for each in array.ravel()) if array.dtype.hasobject else 0)


@dataclass(slots=True)
class Worth:
    """Whether the cache pays: what it cost and what its hits saved, judged once a window of requests.

    A hit saves what one computed request cost on average in the latest window that computed any. Off, it counts the
    requests that pass, and after `REST` windows has another try.
    """

    on: bool = True
    hits: int = 0  # over all time, as the seconds that follow
    misses: int = 0
    spent: float = 0.0
    saved: float = 0.0
    _price: float = 0.0
    _seen: int = 0
    _balance: float = 0.0

    def looked_up(self, hits: int, computed: int, spent: float, ran: float) -> bool:
        """Note a batch: `spent` seconds on looking up, `ran` on computing `computed`. True where it turns off."""
        if computed:
            latest = ran / computed
            self._price = 0.9 * self._price + 0.1 * latest if self._price else latest
        saved = hits * self._price
        self.hits, self.misses = self.hits + hits, self.misses + computed
        self.spent, self.saved = self.spent + spent, self.saved + saved
        self._seen, self._balance = self._seen + hits + computed, self._balance + saved - spent
        if self._seen < WINDOW:
            return False
        self.on = self._balance >= 0
        self._seen, self._balance = 0, 0.0
        return not self.on

    def passed(self, requests: int) -> bool:
        """Note requests that went by while off. True where it turns on again."""
        self._seen += requests
        if self._seen < REST * WINDOW:
            return False
        self.on, self._seen = True, 0
        return True
