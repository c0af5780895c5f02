"""Timing of healing and of the pauses between attempts, for a version and for the server alike.

Pure: findings and times in, what to do out. Who probes and who reloads is the supervisor's business.

    ========  ========  ========  ==================  ==================
    state     ok, busy  unknown   late                broken
    ========  ========  ========  ==================  ==================
    serving   serving   serving   suspect             healing: heal
    suspect   serving   serving   healing: heal       healing: heal
    healing   serving   serving   healing: heal       healing: heal
    resting   serving   serving   resting: heal       resting: heal
    ========  ========  ========  ==================  ==================

One late answer is a suspicion only; a broken one (a dead process, a stopped one, a version that is gone) is certain.
Each further attempt waits for the pause after the one before it, and nothing is given up for good: after several
attempts in a row the state between them is `resting`, and the pauses stay at their longest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["serving", "suspect", "healing", "resting"]
Finding = Literal["ok", "busy", "unknown", "late", "broken"]
Act = Literal["nothing", "heal", "healed"]

STATES: tuple[State, ...] = ("serving", "suspect", "healing", "resting")
FINDINGS: tuple[Finding, ...] = ("ok", "busy", "unknown", "late", "broken")
TABLE: Mapping[tuple[State, Finding], State] = {
    ("serving", "ok"): "serving",
    ("serving", "busy"): "serving",
    ("serving", "unknown"): "serving",
    ("serving", "late"): "suspect",
    ("serving", "broken"): "healing",
    ("suspect", "ok"): "serving",
    ("suspect", "busy"): "serving",
    ("suspect", "unknown"): "serving",
    ("suspect", "late"): "healing",
    ("suspect", "broken"): "healing",
    ("healing", "ok"): "serving",
    ("healing", "busy"): "serving",
    ("healing", "unknown"): "serving",
    ("healing", "late"): "healing",
    ("healing", "broken"): "healing",
    ("resting", "ok"): "serving",
    ("resting", "busy"): "serving",
    ("resting", "unknown"): "serving",
    ("resting", "late"): "resting",
    ("resting", "broken"): "resting",
}
_REMEMBERED = 64  # attempts in a row; more make no pause longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses between attempts in a row: the first attempt at once, then `pause` seconds, doubled up to `ceiling`.

    What went well for `calm` seconds since the last attempt begins with the small pause again. From `limit` attempts in
    a row on, it counts as resting in between. Attempts never end. Times are seconds of any steady clock, ascending.

    In use: keep a tuple of times. When something fails that went well until now, ``streak`` it; make an attempt when
    ``left`` is 0, and ``add`` the time at which that attempt ended.
    """

    limit: int = 5
    pause: float = 1.0
    ceiling: float = 300.0
    calm: float = 120.0

    def after(self, attempts: int) -> float:
        """Return the pause in seconds after that many attempts in a row."""
        return 0.0 if attempts < 1 else min(self.pause * 2.0 ** min(attempts - 1, _REMEMBERED), self.ceiling)

    def left(self, attempts: tuple[float, ...], now: float) -> float:
        """Return the seconds until the next attempt may be made; 0 where that is now."""
        return max(attempts[-1] + self.after(len(attempts)) - now, 0.0) if attempts else 0.0

    def streak(self, attempts: tuple[float, ...], failed: float) -> tuple[float, ...]:
        """Return the attempts that count for a failure at that time: none of them after a calm time."""
        return () if attempts and failed - attempts[-1] >= self.calm else attempts

    def add(self, attempts: tuple[float, ...], now: float) -> tuple[float, ...]:
        """Return the attempts with one more."""
        return (*attempts, now)[-_REMEMBERED:]

    def resting(self, attempts: tuple[float, ...]) -> bool:
        """Return whether so many attempts in a row failed that the state between two of them is resting."""
        return len(attempts) >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One watched thing: its state, since when it has been ill, when it was healed, and why."""

    state: State = "serving"
    since: float = 0.0
    attempts: tuple[float, ...] = ()
    restarts: int = 0
    reason: str = ""


def advance(watch: Watch, finding: Finding, reason: str, now: float, backoff: Backoff) -> tuple[Watch, Act]:
    """The next state and what to do; `reason` says what was found, `now` is in seconds of any steady clock."""
    state = TABLE[watch.state, finding]
    if state == "serving":
        if watch.state not in ("healing", "resting"):
            return replace(watch, state=state, since=0.0, reason=""), "nothing"
        return replace(ended(watch, now), state=state, since=0.0, reason=""), "healed"
    attempts = watch.attempts if watch.since else backoff.streak(watch.attempts, now)
    ill = replace(watch, state=state, since=watch.since or now, reason=reason or watch.reason, attempts=attempts)
    if state == "suspect":
        return ill, "nothing"
    if backoff.left(attempts, now) <= 0:
        return replace(ill, state="healing", attempts=backoff.add(attempts, now), restarts=watch.restarts + 1), "heal"
    return replace(ill, state="resting" if backoff.resting(attempts) else "healing"), "nothing"


def ended(watch: Watch, now: float) -> Watch:
    """Return the watch with its last attempt ended now: pauses and calm times count from there, loads can be long."""
    return replace(watch, attempts=(*watch.attempts[:-1], now)) if watch.attempts else watch


def withdrawn(watch: Watch) -> Watch:
    """Return the watch without its last attempt, which could not be made for want of something of our own."""
    return replace(watch, attempts=watch.attempts[:-1], restarts=max(watch.restarts - 1, 0))
