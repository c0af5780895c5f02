"""Reporting of the supervisor: events for the log, for listeners and for the metrics, and the current state.

Telling never fails: what the disk or a listener refuses is counted, and told again once that is possible. Where the
process lacks descriptors a spare one makes room for the telling.
"""

import gc
import os
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from seatrial.optimize.environment import now
from seatrial.optimize.errors import SeatrialError

from .healing import Watch
from .metering import Meter
from .standing import EventLog, supervision, write_standing

SUPERVISOR = "supervisor"
SELDOM_SECONDS = 60.0
_FREEING_SECONDS = 5.0
Event = dict[str, Any]


class Reporter:
    """Tells of one supervisor: `url` and `watches` give the server's address and how things stand at that moment."""

    def __init__(
        self,
        url: Callable[[], str],
        watches: Callable[[], Mapping[str, Watch]],
        tell: Callable[[Event], None],
        meter: Meter,
    ) -> None:
        self._url, self._watches, self._tell, self._meter = url, watches, tell, meter
        self._log = EventLog(supervision() / "events.jsonl")
        self._spare = _spare()
        self._stale, self._written = False, 0.0
        self._told: dict[tuple[str, str], float] = {}
        self._blind_since, self._freed = 0.0, -_FREEING_SECONDS

    def say(self, event: str, subject: str, **more: Any) -> None:
        """Report one event to the log and to listeners; the current state goes to the file."""
        line = {"at": now(), "event": event, "subject": subject, **more}
        self._meter.event(event, subject)
        with self._counting("events.jsonl"):
            self._log.write(line)
        self.write()
        with self._counting("listener"):
            self._tell(line)

    def seldom(self, event: str, subject: str, **more: Any) -> None:
        """Say it unless that was said of the subject within the last minute: for what comes again at each look."""
        said = self._told.get((event, subject))
        if said is None or monotonic() - said >= SELDOM_SECONDS:
            self._told[event, subject] = monotonic()
            self.say(event, subject, **more)

    def write(self) -> None:
        """Write how things stand."""
        self._stale = True
        self._meter.stands(self._watches())
        with self._counting("health.json"):
            write_standing(self._url(), now(), self._watches())
            self._stale, self._written = False, monotonic()

    def blind(self, reason: str, kind: str = "") -> None:
        """Tell that nothing could be looked at, for want of something of our own, and free what can be freed."""
        self._meter.blind(kind or reason)
        if not self._blind_since:
            self._blind_since = monotonic()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        if monotonic() - self._freed >= _FREEING_SECONDS:
            self._freed = monotonic()
            gc.collect()
            _raise_limit()
        self.seldom("cannot look", SUPERVISOR, reason=reason)
        self._spare = _spare()

    def looked(self) -> None:
        """Note a complete look, and report or write what failed before."""
        self._meter.looked()
        if self._blind_since:
            seconds, self._blind_since = round(monotonic() - self._blind_since, 3), 0.0
            self._told.pop(("cannot look", SUPERVISOR), None)
            self.say("looks again", SUPERVISOR, seconds=seconds)
        if self._spare is None:
            self._spare = _spare()
        if self._stale or monotonic() - self._written >= SELDOM_SECONDS:  # damaged meanwhile, it is whole again
            self.write()

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _counting(self, what: str) -> "_Counting":
        return _Counting(self._meter, what)


class _Counting(suppress):
    """Suppresses what a disk or a listener refuses, and counts it."""

    def __init__(self, meter: Meter, what: str) -> None:
        super().__init__(OSError, ValueError, MemoryError, SeatrialError)  # ValueError: a stream that was closed
        self._meter, self._what = meter, what

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        suppressed = super().__exit__(kind, value, trace)
        if suppressed:
            self._meter.unwritten(self._what)
        return suppressed


def _spare() -> int | None:
    """A descriptor to let go of when no other can be had."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _raise_limit() -> None:
    """Use as many descriptors as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
