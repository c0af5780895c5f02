"""The rollout as a state machine: a table of phases and events, and the world that each phase wants.

Pure. It does not look (`decision`), judge (`evidence`) or act (`controller`). What is to be done follows from the phase
and from how the world is found, never from a memory of what was done last: a restart at any point continues.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from seatrial.optimize.record import Record

from ..routes import Routes
from .plan import Plan


class Phase(StrEnum):
    """Phase of a rollout."""

    PENDING = "pending"
    LOADING = "loading"
    GOLDEN = "golden"
    SHADOW = "shadow"
    STEP = "step"
    PAUSED = "paused"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTING = "aborting"
    ABORTED = "aborted"


class Event(StrEnum):
    """Event of a rollout. The last five are commands of an operator."""

    READY = "ready"  # the world is as the phase wants it
    PASSED = "passed"  # enough is known, and it is good
    FINISHED = "finished"  # the same at the last step
    FAILED = "failed"  # shown to be worse than allowed
    FAULT = "fault"  # no statistics needed: crash, restart, not ready, memory, does not load
    STALLED = "stalled"  # the longest stay is over without a result
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


COMMANDS: Final = (Event.PAUSE, Event.RESUME, Event.ABORT, Event.PROMOTE, Event.ROLLBACK)
ENDED: Final = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})
Target = Phase | Literal["next step", "where it was"]

_P, _E = Phase, Event
_HARM: Final = {_E.FAILED: _P.ROLLING_BACK, _E.FAULT: _P.ROLLING_BACK}
_BACK: Final = {_E.ABORT: _P.ABORTING, _E.ROLLBACK: _P.ROLLING_BACK}
_HOLD: Final = {_E.STALLED: _P.PAUSED, _E.PAUSE: _P.PAUSED}

TABLE: Final[dict[Phase, dict[Event, Target]]] = {
    _P.PENDING: {_E.READY: _P.LOADING, _E.ABORT: _P.ABORTED, _E.ROLLBACK: _P.ROLLED_BACK},
    _P.LOADING: {_E.READY: _P.GOLDEN, _E.STALLED: _P.ROLLING_BACK, **_HARM, **_BACK},
    _P.GOLDEN: {_E.PASSED: _P.SHADOW, **_HOLD, **_HARM, **_BACK},
    _P.SHADOW: {_E.PASSED: _P.STEP, _E.PROMOTE: _P.PROMOTING, **_HOLD, **_HARM, **_BACK},
    _P.STEP: {
        _E.PASSED: "next step",
        _E.FINISHED: _P.PROMOTING,
        _E.PROMOTE: _P.PROMOTING,
        **_HOLD,
        **_HARM,
        **_BACK,
    },
    _P.PAUSED: {_E.RESUME: "where it was", _E.PROMOTE: _P.PROMOTING, **_HARM, **_BACK},
    _P.PROMOTING: {_E.READY: _P.PROMOTED, **_HARM, **_BACK},
    _P.PROMOTED: {_E.ROLLBACK: _P.ROLLING_BACK},
    _P.ROLLING_BACK: {_E.READY: _P.ROLLED_BACK},
    _P.ROLLED_BACK: {},
    _P.ABORTING: {_E.READY: _P.ABORTED, _E.ROLLBACK: _P.ROLLING_BACK},
    _P.ABORTED: {},
}
"""The transition of each event in each phase; an event that is not listed changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Record, schema=1, what="the state of a rollout"):
    """A candidate on its way. Times are Unix seconds.

    `digest` names the candidate's bytes. `before` is where a paused rollout stood. `entered` is when phase and step
    began, `resumed` when the longest stay began to count, `routed` when its routes came into force (0: not yet).
    `restarts` and `server_restarts` are how often the candidate, and the server as a whole, had been brought back when
    it was first found ready, -1 before. `intents` are
    the operator's words that have been heard, `reason` why it stands where it stands.
    """

    schema: int = 1
    model: str
    stable: int
    candidate: int
    digest: str
    plan: Plan
    phase: Phase = Phase.PENDING
    step: int = 0
    before: Phase | None = None
    started: float = 0.0
    entered: float = 0.0
    resumed: float = 0.0
    routed: float = 0.0
    restarts: int = -1
    server_restarts: int = -1
    intents: int = 0
    reason: str = ""

    @property
    def active(self) -> Phase:
        """The phase whose world is wanted: a paused rollout keeps what it had."""
        return self.before if self.phase is Phase.PAUSED and self.before is not None else self.phase

    @property
    def ended(self) -> bool:
        """Return whether the rollout has ended."""
        return self.phase in ENDED

    @property
    def last_step(self) -> bool:
        """Return whether this is the last step."""
        return self.step + 1 >= len(self.plan.steps)

    @property
    def label(self) -> str:
        """Return the phase and step as text."""
        share = f" {self.plan.steps[self.step].share:.0%}" if self.active is Phase.STEP else ""
        where = f" at {self.active}{share}" if self.phase is Phase.PAUSED else share
        return f"{self.phase.replace('_', ' ')}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The world that a phase wants: routes, and the versions served when all is done (more while routes need them)."""

    routes: Routes
    versions: tuple[int, ...]


def follow(rollout: Rollout, event: Event, *, at: float, reason: str) -> Rollout:
    """The rollout after an event; the same one where the table has nothing to say."""
    target = TABLE[rollout.phase].get(event)
    if target is None:
        return rollout
    if target == "where it was":
        before = rollout.before or Phase.GOLDEN
        return replace(rollout, phase=before, before=None, resumed=at, reason=reason)
    if target == Phase.PAUSED:
        return replace(rollout, phase=Phase.PAUSED, before=rollout.phase, reason=reason)
    step = rollout.step + 1 if target == "next step" else rollout.step
    phase = Phase.STEP if target == "next step" else Phase(target)
    if phase is Phase.SHADOW and rollout.plan.shadow is None:
        phase = Phase.STEP
    return replace(rollout, phase=phase, step=step, before=None, entered=at, resumed=at, routed=0.0, reason=reason)


def desired(rollout: Rollout) -> Desired:
    """The routes and versions that the rollout's phase wants."""
    both = tuple(sorted((rollout.stable, rollout.candidate)))
    alone = Routes(model=rollout.model, stable=rollout.stable)
    match rollout.active:
        case Phase.PENDING | Phase.ROLLING_BACK | Phase.ROLLED_BACK | Phase.ABORTING | Phase.ABORTED:
            return Desired(routes=alone, versions=(rollout.stable,))
        case Phase.LOADING | Phase.GOLDEN:
            return Desired(routes=alone, versions=both)
        case Phase.SHADOW:
            mirror = rollout.plan.shadow.mirror if rollout.plan.shadow is not None else 0.0
            return Desired(routes=replace(alone, candidate=rollout.candidate, mirror=mirror), versions=both)
        case Phase.STEP:
            share = rollout.plan.steps[rollout.step].share
            return Desired(routes=replace(alone, candidate=rollout.candidate, share=share), versions=both)
        case _:
            return Desired(routes=Routes(model=rollout.model, stable=rollout.candidate), versions=(rollout.candidate,))
