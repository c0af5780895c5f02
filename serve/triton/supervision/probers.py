"""Probers: a bounded number of threads that live as long as their owner, each making one probe or repair at a time.

A probe that hangs keeps its thread until its deadline and delays no other: what is finished is collected, the rest is
collected later. No thread is made for a probe, and none is added while one is idle.
"""

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...errors import ExhaustedError

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")
MOST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[Found]):
    """Outcome of a probe: its result or its error, and the seconds taken."""

    found: Found | None
    error: Exception | None
    seconds: float


class Probers(Generic[Key, Found]):
    """Threads that run `look` for one key after the other; used by one thread, which owns them."""

    def __init__(self, look: Callable[[Key], Found], *, most: int = MOST) -> None:
        self._look, self._most = look, most
        self._jobs: queue.SimpleQueue[tuple[Key, object] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._under_way: dict[Key, object] = {}
        self._finished: dict[Key, Outcome[Found]] = {}
        self._fresh: set[Key] = set()
        self._threads = 0
        self._working = 0

    def begin(self, keys: Iterable[Key]) -> None:
        """Begin a probe of each of these, in this order, unless one of it is under way.

        Raises:
            ExhaustedError: not one thread can be had.
        """
        with self._changed:
            for key in keys:
                if key in self._under_way:
                    continue
                ticket = object()
                self._under_way[key] = ticket
                self._fresh.add(key)
                self._working += 1
                self._jobs.put((key, ticket))
            wanted = min(self._working, self._most) - self._threads
        for _ in range(wanted):
            self._hire()

    def under_way(self) -> set[Key]:
        """Return the keys whose probe is not finished, or not collected."""
        with self._changed:
            return set(self._under_way) | set(self._finished)

    def collect(self, wait: float) -> dict[Key, Outcome[Found]]:
        """Take what is finished, after waiting for those just begun, `wait` seconds at most."""
        until = time.monotonic() + wait
        with self._changed:
            while self._fresh & self._under_way.keys() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._fresh.clear()
            finished, self._finished = self._finished, {}
        return finished

    def forget(self, keys: Iterable[Key] | None = None) -> None:
        """Drop what is under way or finished for these keys (all by default): it tells of what is no more."""
        with self._changed:
            for key in tuple(self._under_way | self._finished) if keys is None else tuple(keys):
                self._under_way.pop(key, None)
                self._finished.pop(key, None)
                self._fresh.discard(key)

    def close(self) -> None:
        """Let the threads end, each after the probe that it is at; a `begin` after that makes new ones."""
        self.forget()
        with self._changed:
            for _ in range(self._threads):
                self._jobs.put(None)
            self._threads = 0

    def _hire(self) -> None:
        with self._changed:
            self._threads += 1
        try:
            threading.Thread(target=self._work, name="prober", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            with self._changed:
                self._threads -= 1
                if self._threads > 0:
                    return
                while not self._jobs.empty():
                    self._jobs.get_nowait()
                self._working = 0
            self.forget()
            raise ExhaustedError(
                f"this process cannot start a thread: {error}",
                next_step="allow this user more processes (ulimit -u), or free memory",
            ) from error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, ticket = job
            with self._changed:
                wanted = self._under_way.get(key) is ticket
            outcome = self._outcome(key) if wanted else None
            with self._changed:
                self._working -= 1
                if outcome is not None and self._under_way.get(key) is ticket:
                    del self._under_way[key]
                    self._finished[key] = outcome
                self._changed.notify_all()

    def _outcome(self, key: Key) -> Outcome[Found]:
        began = time.monotonic()
        try:
            return Outcome(found=self._look(key), error=None, seconds=time.monotonic() - began)
        except Exception as error:  # noqa: BLE001  handed to the owner; a thread that ended would never look again
            return Outcome(found=None, error=error, seconds=time.monotonic() - began)
