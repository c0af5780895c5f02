"""When to heal what is watched, and when to give up: a table and a back-off, for a version and for the server alike.

Pure: findings and times in, what to do out. Who probes and who reloads is the supervisor's business.

    ========  ========  ========  ==================  ==================
    state     ok, busy  unknown   late                broken
    ========  ========  ========  ==================  ==================
    serving   serving   serving   suspect             healing: heal
    suspect   serving   serving   healing: heal       healing: heal
    healing   serving   serving   healing: heal       healing: heal
    given up  serving   given up  given up            given up
    ========  ========  ========  ==================  ==================

One late answer is a suspicion only; a broken one (a dead process, a stopped one, a version that is gone) is certain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["serving", "suspect", "healing", "given up"]
Finding = Literal["ok", "busy", "unknown", "late", "broken"]
Act = Literal["nothing", "heal", "healed", "give up"]

STATES: tuple[State, ...] = ("serving", "suspect", "healing", "given up")
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
    ("given up", "ok"): "serving",
    ("given up", "busy"): "serving",
    ("given up", "unknown"): "given up",
    ("given up", "late"): "given up",
    ("given up", "broken"): "given up",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """At most `limit` attempts within `window` seconds; the first at once, then `pause` seconds, doubled each time."""

    limit: int = 5
    window: float = 600.0
    pause: float = 1.0

    def decide(self, attempts: tuple[float, ...], now: float) -> Literal["go", "wait", "give up"]:
        """Whether another attempt may be made now, after those at these times (seconds, ascending)."""
        recent = [at for at in attempts if now - at < self.window]
        if not recent:
            return "go"
        if now - recent[-1] < self.pause * 2 ** (len(recent) - 1):
            return "wait"  # giving up waits as well: the last attempt has its chance
        return "give up" if len(recent) >= self.limit else "go"


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
        healed: Act = "healed" if watch.state in ("healing", "given up") else "nothing"
        return replace(watch, state=state, since=0.0, reason=""), healed
    ill = replace(watch, state=state, since=watch.since or now, reason=reason or watch.reason)
    if state != "healing":
        return ill, "nothing"
    decision = backoff.decide(watch.attempts, now)
    if decision == "go":
        recent = tuple(at for at in watch.attempts if now - at < backoff.window)
        return replace(ill, attempts=(*recent, now), restarts=watch.restarts + 1), "heal"
    if decision == "give up":
        return replace(ill, state="given up"), "give up"
    return ill, "nothing"
