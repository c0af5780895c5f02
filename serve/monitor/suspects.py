"""Changes held against an alarm: which came before it, what speaks for each and what against, and the advice.

A change that came first is no proof of a cause. What counts for it: how shortly it came before, whether its kind fits
what moved, whether it names a feature that moved. Against: that the same features had alarmed before it, that changes
of its kind were followed by no alarm earlier, that another change lies closer. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .alarms import Alarm
from .changes import Change, Kind
from .diagnosis import Advice

WITHIN = 24  # intervals before an alarm begins in which a change may be its cause: a small one is found late
RIGHT_BEFORE = 4  # intervals before it in which a deployment of ours is advised to be taken back
_EARLIER = 28  # days of alarms and changes that tell what usually follows
_DAY = 86_400.0
_FITS: dict[Kind, tuple[str, ...]] = {
    "feature-store": ("pipeline", "data"),
    "pipeline": ("pipeline", "data"),
    "deploy": ("data",),
    "other": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A change that may have caused an alarm: the seconds between them, what speaks for it and what against."""

    change: Change
    seconds: float
    supports: tuple[str, ...]
    against: tuple[str, ...]

    @property
    def score(self) -> int:
        """How much more speaks for it than against."""
        return len(self.supports) - len(self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """An alarm with the changes before it, the most likely first, and the advice with its reason and command."""

    advice: Advice
    reason: str
    command: str
    suspects: tuple[Suspect, ...]


def diagnosed(alarm: Alarm, alarms: Sequence[Alarm], changes: Sequence[Change], *, interval: float) -> Diagnosed:
    """Name the changes before an alarm, and advise: a deployment of ours right before it is taken back first."""
    found = suspects(alarm, alarms, changes, interval=interval)
    first = found[0] if found else None
    usual: Advice = alarm.cause.advice
    ours = next((each for each in found if _taken_back(each, interval)), None)
    if ours is not None and (first is None or first.score <= ours.score):
        when = _ago(ours.seconds)
        return Diagnosed(
            advice="rollback",
            reason=f"{ours.change.text} {when} before the alarm: take it back, which tells whether it is the cause",
            command=ours.change.undo,
            suspects=found,
        )
    if first is not None and first.score > 0:
        reason = f"{first.change.text} ({first.change.kind}) {_ago(first.seconds)} before the alarm"
        return Diagnosed(advice=usual, reason=reason, command="", suspects=found)
    return Diagnosed(advice=usual, reason="", command="", suspects=found)


def suspects(
    alarm: Alarm, alarms: Sequence[Alarm], changes: Sequence[Change], *, interval: float
) -> tuple[Suspect, ...]:
    """Return the changes in the time before an alarm began, those that more speaks for first."""
    first = alarm.began - WITHIN * interval
    near = [each for each in changes if first <= each.at <= alarm.began]
    closest = max((each.at for each in near), default=0.0)
    found = [
        Suspect(
            change=each,
            seconds=alarm.began - each.at,
            supports=tuple(_supports(alarm, each, interval)),
            against=tuple(_against(alarm, alarms, changes, each, interval, closest)),
        )
        for each in near
    ]
    return tuple(sorted(found, key=lambda each: (-each.score, each.seconds)))


def _supports(alarm: Alarm, change: Change, interval: float) -> list[str]:
    found = []
    if alarm.began - change.at <= RIGHT_BEFORE * interval:
        found.append(f"it came {_ago(alarm.began - change.at)} before the alarm")
    if alarm.cause.kind in _FITS[change.kind]:
        found.append(f"a change of the kind {change.kind} can do this ({alarm.cause.kind})")
    named = [each for each in alarm.cause.features if each.lower() in change.text.lower()]
    if named:
        found.append(f"it names {', '.join(named)}")
    if change.moved_traffic:
        found.append("requests were answered by another version from then on")
    return found


def _against(
    alarm: Alarm,
    alarms: Sequence[Alarm],
    changes: Sequence[Change],
    change: Change,
    interval: float,
    closest: float,
) -> list[str]:
    found = []
    before = [
        each
        for each in alarms
        if change.at - _EARLIER * _DAY <= each.began <= change.at
        and set(each.cause.features) & set(alarm.cause.features)
    ]
    if before:
        found.append("the same features had alarmed before it")
    if change.kind == "deploy" and not change.moved_traffic and change.ours:
        found.append("no request was answered by it yet")
    if change.kind == "deploy" and alarm.cause.kind == "pipeline":
        found.append("what moved is made before the model: a version does not change what arrives")
    if closest > change.at + interval:
        found.append("another change lies closer to the alarm")
    earlier = [
        each
        for each in changes
        if each.kind == change.kind and change.at - _EARLIER * _DAY <= each.at < change.at - WITHIN * interval
    ]
    quiet = sum(not any(each.at <= one.began <= each.at + WITHIN * interval for one in alarms) for each in earlier)
    if len(earlier) >= 2 and quiet == len(earlier):
        found.append(f"{quiet} earlier changes of its kind were followed by no alarm")
    return found


def _taken_back(suspect: Suspect, interval: float) -> bool:
    """Tell whether it is a deployment of ours right before the alarm that one command undoes."""
    change = suspect.change
    return bool(change.ours and change.moved_traffic and change.undo) and suspect.seconds <= RIGHT_BEFORE * interval


def _ago(seconds: float) -> str:
    """Return a duration as text."""
    for size, name in ((_DAY, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
