"""Watching: judge the traffic that came since the last look, window by window.

Every interval is judged once, in order; what was judged and what waits are handed back to be kept together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .alarms import Watched, held, raised
from .detect import Evidence, State, fresh, ranked_features, restarted, step
from .diagnosis import diagnose
from .learning import Learned
from .plan import Plan
from .season import cell
from .tiers import harmed
from .window import Window, merged

_SILENT = 0.1  # of the least rows that the reference had at that hour: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One window that was judged: its time, rows, evidence against the threshold, and the feature that moved most."""

    start: float
    end: float
    rows: int
    evidence: float
    threshold: float
    feature: str
    alarms: bool


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a look at new traffic left: the state to keep, the windows judged, the intervals that were silent."""

    state: State
    watched: Watched
    waiting: tuple[Window, ...]
    judged: tuple[Judged, ...]
    silent: tuple[tuple[float, float], ...] = ()


def look(
    plan: Plan,
    learned: Learned,
    kept: tuple[State, Watched, tuple[Window, ...]] | None,
    intervals: Sequence[Window],
) -> Look:
    """Judge intervals in order of time; those that end before what was judged already are counted and left out."""
    state, watched, waiting = kept or (fresh(learned.baseline), Watched(), ())
    judged, silent = list[Judged](), list[tuple[float, float]]()
    parts = list(waiting)
    for interval in intervals:
        if watched.until is not None and interval.start < watched.until:
            watched = replace(watched, late=watched.late + (interval.rows > 0))
            continue
        watched = _counted(learned, watched, interval)
        if watched.silent_since is not None:
            silent.append((interval.start, interval.end))
        parts.append(interval)
        if sum(each.rows for each in parts) >= plan.rows:
            window, parts = merged(parts), []
            state, evidence = step(learned.baseline, state, window)
            judged.append(_judged(learned, window, evidence))
            if evidence.alarms or window.faults:
                cause = diagnose(learned.baseline, evidence, window.faults)
                share = harmed(learned.baseline, evidence, window.faults)
                watched = raised(watched, window.end, cause, tier=plan.service.tier(share), harmed=share)
                state = restarted(state) if evidence.alarms else state
            watched = held(replace(watched, windows=watched.windows + 1), interval.end, plan.hold)
    return Look(state=state, watched=watched, waiting=tuple(parts), judged=tuple(judged), silent=tuple(silent))


def _counted(learned: Learned, watched: Watched, interval: Window) -> Watched:
    """Return it with the interval passed over: how far, how many rows, and whether it was silent."""
    usual = float(learned.usual[cell(np.array([interval.start]))[0]])
    silent = interval.rows < _SILENT * usual
    since = (interval.start if watched.silent_since is None else watched.silent_since) if silent else None
    return replace(watched, until=interval.end, rows=watched.rows + interval.rows, silent_since=since)


def _judged(learned: Learned, window: Window, evidence: Evidence) -> Judged:
    return Judged(
        start=window.start,
        end=window.end,
        rows=window.rows,
        evidence=evidence.total,
        threshold=evidence.threshold,
        feature=ranked_features(learned.baseline, evidence)[0][0],
        alarms=evidence.alarms,
    )
