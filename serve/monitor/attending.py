"""The watching service: looks again and again, and goes on whatever a look runs into.

All that counts lies on disk: each look reads plan, baseline and state again, judges, and keeps the state in one step.
So a kill loses nothing, and a full disk delays what is kept and not what is shown: alarms stand in the metrics at once,
and the windows are judged again, with the same result, once there is space.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from seatrial.optimize.errors import IntegrityError, MachineError, SeatrialError

from ..unexpected import UnexpectedError, unexpected
from . import looking
from .alarms import Watched
from .clock import Clock
from .detect import COMMON, State
from .learning import Learned
from .plan import Plan, load_plan
from .watch_metrics import Failure, Standing, WatchMetrics
from .watching import Look

_SLEEP = 0.2  # seconds between two checks of `stop`


class Attendant:
    """Looks at the traffic of the plan in a file; `tell` takes what happened, in words.

    A look judges up to `delay` seconds ago, so that rows have had that long to be written.
    """

    def __init__(
        self,
        plan: Path,
        files: Sequence[Path],
        *,
        every: float,
        delay: float,
        tell: Callable[[str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        chosen = load_plan(plan)
        self._path, self._model, self._files = plan, chosen.model, files
        self._every, self._delay, self._tell, self._wall = every, delay, tell, wall
        self._clock = Clock(settle=chosen.interval, wall=wall)
        self.metrics = WatchMetrics(chosen.model, every=every, standing=Standing(last_look=wall()))

    def run(self, stop: Callable[[], bool]) -> None:
        """Look every so many seconds until `stop`; a look that takes longer delays the next."""
        while not stop():
            next_ = time.monotonic() + self._every
            self.look()
            while not stop() and (left := next_ - time.monotonic()) > 0:
                time.sleep(min(_SLEEP, left))

    def look(self) -> None:
        """Look once; whatever goes wrong is shown and counted, and the next look tries again."""
        before = self.metrics.standing
        now = self._clock.now()
        if self._clock.steps > before.steps:
            self._tell(f"the clock was set: {self._clock.steps} times since the start")
            self.metrics.standing = replace(before, steps=self._clock.steps)
        try:
            self._look(now)
        except Exception as error:  # noqa: BLE001  a watch that ends sees nothing any more
            self._failed(error)
            return
        standing = self.metrics.standing
        if standing.failing is not None:
            self._tell("looks are complete again")
        self.metrics.standing = replace(standing, failing=None, looks=standing.looks + 1, last_look=self._wall())

    def _look(self, now: float) -> None:
        plan = load_plan(self._path)
        if plan.model != self._model:
            raise SeatrialError(
                f"the plan is now of the model {plan.model!r}, and this process watches {self._model!r}",
                where=str(self._path),
                next_step="start another watch for it",
            )
        with looking.shelf_of(plan.model) as shelf:
            learned, look = looking.judge(
                plan, shelf, self._files, _quiet, until=now - self._delay, where=str(self._path)
            )
            self._show(plan, learned, look)
            try:
                looking.keep(shelf, look)
            except (OSError, MachineError) as error:
                raise _UnkeptError(getattr(error, "what", "") or str(error)) from error

    def _show(self, plan: Plan, learned: Learned, look: Look) -> None:
        """Set the metrics by what a look found, and tell what changed."""
        before = self.metrics.standing.watched
        standing = self.metrics.standing
        evidence = _evidence(learned, look) if look.judged or standing.evidence is None else standing.evidence
        self.metrics.standing = replace(standing, watched=look.watched, evidence=evidence)
        for text in changes(before, look.watched):
            self._tell(f"{plan.model}: {text}")

    def _failed(self, error: Exception) -> None:
        why = failure(error)
        before = self.metrics.standing
        self.metrics.standing = before.failed(why)
        if before.failing != why:  # once, and not at every look
            wrong = error if isinstance(error, SeatrialError | OSError) else unexpected(error)
            said = getattr(wrong, "what", "") or str(wrong)
            where = getattr(wrong, "where", "")
            self._tell(f"a look failed ({why}): {said}" + (f" ({where})" if where else "") + "; it is tried again")


class _UnkeptError(MachineError):
    """The disk refused what a look found."""


def failure(error: Exception) -> Failure:
    """Return the kind of an error that ended a look."""
    if isinstance(error, _UnkeptError | OSError):
        return "disk"
    if isinstance(error, IntegrityError):
        return "damaged"
    if isinstance(error, MachineError):
        return "busy"
    return "input" if isinstance(error, SeatrialError) and not isinstance(error, UnexpectedError) else "fault"


def changes(before: Watched | None, after: Watched) -> list[str]:
    """Return in words what changed between two looks: alarms that began, rose and ended, and silence."""
    earlier = before or Watched()
    known = {each.began: each for each in earlier.alarms}
    found = []
    for alarm in after.alarms:
        old = known.get(alarm.began)
        if old is None and (before is not None or alarm.ended is None):
            found.append(f"alarm ({alarm.tier}): {', '.join(alarm.cause.features[:3]) or alarm.cause.reasons[0]}")
        elif old is not None and old.tier != alarm.tier:
            found.append(f"the alarm is now {alarm.tier}")
        if old is not None and old.ended is None and alarm.ended is not None:
            found.append("the alarm has ended")
    if (earlier.silent_since is None) != (after.silent_since is None):
        found.append("silent: usual traffic is missing" if after.silent_since is not None else "traffic is back")
    return found


def _evidence(learned: Learned, look: Look) -> float:
    """Return the evidence of the last window over the threshold; after a start what is left of it on disk."""
    if look.judged:
        return look.judged[-1].evidence / look.judged[-1].threshold
    return _standing_evidence(learned, look.state) / learned.baseline.threshold


def _standing_evidence(learned: Learned, state: State) -> float:
    statistic = 0.5 * (state.up.mean(axis=0) + state.down.mean(axis=0))
    return float(learned.baseline.weight @ statistic) + COMMON * float(state.common.mean())


def _quiet(label: str, share: float, text: str) -> None:
    """Take progress that nobody reads."""
