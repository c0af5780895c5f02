"""Alarms: a state with a beginning and an end, not a stream of messages.

An alarm begins where the evidence passes the threshold, is renewed by new evidence, and ends once none came for the
plan's `hold`. Silence is a state of its own: traffic that should be there and is not.
"""

from dataclasses import dataclass, replace
from typing import Literal

from seatrial.optimize.record import Record

from .diagnosis import Cause
from .service import TIERS, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm(Record, computed=("state",)):
    """One alarm: when it began, when evidence last renewed it, how often, and what it looks like.

    Times are those of the ends of windows, in seconds of the Unix epoch; `ended` is None while it holds. `tier` is the
    highest that it reached, `harmed` the fraction of rows that it concerns at most; None in earlier records.
    """

    began: float
    renewed: float
    times: int
    cause: Cause
    ended: float | None = None
    tier: Tier = "warning"
    harmed: float | None = None

    @property
    def state(self) -> Literal["holds", "ended"]:
        """Whether it holds."""
        return "holds" if self.ended is None else "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Record):
    """How far a model's traffic was judged: the end of the last window, how many, the alarms, and the silence.

    `silent_since` is the beginning of the intervals without the usual rows that came last, None where there are none.
    `late` counts intervals that came after they had been passed over.
    """

    until: float | None = None
    windows: int = 0
    rows: int = 0
    alarms: tuple[Alarm, ...] = ()
    silent_since: float | None = None
    late: int = 0

    @property
    def alarm(self) -> Alarm | None:
        """The alarm that holds now."""
        return self.alarms[-1] if self.alarms and self.alarms[-1].ended is None else None


def raised(watched: Watched, end: float, cause: Cause, *, tier: Tier = "warning", harmed: float = 0.0) -> Watched:
    """Return it with an alarm begun, or the one that holds renewed.

    The first cause stays, since it came first; of the tiers and of what is harmed the largest.
    """
    if (alarm := watched.alarm) is None:
        begun = Alarm(began=end, renewed=end, times=1, cause=cause, tier=tier, harmed=harmed)
        return replace(watched, alarms=(*watched.alarms, begun))
    again = replace(
        alarm,
        renewed=end,
        times=alarm.times + 1,
        tier=max(alarm.tier, tier, key=TIERS.index),
        harmed=max(alarm.harmed or 0.0, harmed),
    )
    return replace(watched, alarms=(*watched.alarms[:-1], again))


def held(watched: Watched, end: float, hold: float) -> Watched:
    """Return it with the alarm ended where none renewed it for `hold` seconds of traffic that was judged."""
    alarm = watched.alarm
    if alarm is None or end - alarm.renewed < hold:
        return watched
    return replace(watched, alarms=(*watched.alarms[:-1], replace(alarm, ended=end)))
