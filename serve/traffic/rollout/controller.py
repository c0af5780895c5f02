"""The controller: looks at the world, decides, writes that down, and makes the world what the rollout's phase wants.

The only room here that acts, and only through `Router` and `Fleet`. It keeps nothing in memory that it cannot read
again: killed at any line and started anew, it finds the phase on disk, the routes at the router and the versions at
the fleet, and goes on. Capacity comes before traffic, and traffic leaves before capacity does, in both directions.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from seatrial.optimize.errors import SeatrialError

from ...errors import ModelLoadError
from ...fleet import Fleet, Health
from ..routes import Router, Routes
from ..seen import Seen
from .blocks import BlockAggregator
from .decision import SETTLING, Observation, advance
from .evidence import Evidence, Judgement, judge
from .machine import Event, Phase, Rollout, desired
from .records import Entry, Records
from .tally import Tally

RETREATS = frozenset({Phase.ROLLING_BACK, Phase.ROLLED_BACK})
_SAME = 1e-4  # shares closer than this are the same: proxies count in whole parts


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPorts:
    """Ports of a controller: router, fleet, new records of the proxy, and two judges.

    `seen` may tell old records again (after a restart it may begin at the start); `golden` replays known inputs on the
    candidate, `agreement` says how its shadow answers compare. `close` is called once the rollout has ended.
    """

    router: Router
    fleet: Fleet
    seen: Callable[[], Iterable[Seen]]
    golden: Callable[[], Judgement]
    agreement: Callable[[], Judgement]
    close: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Controller:
    """Moves one model's newest rollout. Use `run`, or `tick` inside ``records.acting()``."""

    def __init__(self, records: Records, world: RolloutPorts) -> None:
        self.records, self.world = records, world
        self.rollout = records.load()
        log = records.log()
        self._blocks = list(log.blocks)
        self._cutter = BlockAggregator(
            self.rollout.plan,
            self.rollout.model,
            self.rollout.stable,
            self.rollout.candidate,
            after=min(log.blocks[-1].until, world.clock()) if log.blocks else 0.0,
            thresholds=log.thresholds,
        )
        self._known = log.thresholds is not None
        self._judged: tuple[tuple[int, int], Evidence] | None = None
        self._last: tuple[object, ...] = ()

    def tick(self) -> Rollout:
        """Look once, decide, act; returns the rollout as it stands then."""
        before, now = self.rollout, self.world.clock()
        observation = self._observe(before, now)
        decision, after = advance(before, observation)
        if after.phase in RETREATS and before.phase not in RETREATS:
            self.records.block(after.digest, decision.reason)
        seen = observation
        news = (before.phase, decision, seen.evidence and seen.evidence.blocks, seen.in_force)
        if decision.event is not None or news != self._last:
            self.records.decided(
                Entry(observation=observation, decision=decision, before=before, after=after, blocks=len(self._blocks))
            )
        self._last = news
        if after != before:
            self.records.save(after)
        self.rollout = after
        if (after.phase, after.step) != (before.phase, before.step):
            self._reconcile(after, self.world.clock())  # at once: a rollback waits for no next look
        return after

    def _observe(self, rollout: Rollout, now: float) -> Observation:
        found = self._reconcile(rollout, now)
        words = self.records.intents()[rollout.intents :]
        found |= {"command": words[0] if words else None}
        candidate: Health | None = found.get("candidate")
        asked = rollout.active
        if asked in (Phase.GOLDEN, Phase.SHADOW) and found.get("in_force") and candidate is not None and candidate.ok:
            judge_, name = (
                (self.world.golden, "golden") if asked is Phase.GOLDEN else (self.world.agreement, "agreement")
            )
            try:
                found[name] = judge_()
            except SeatrialError as error:
                found["problem"] = f"{name}: {error.what}"
        found["evidence"] = self._evidence(rollout, now)
        if not found.get("problem") and (skewed := self._cutter.dropped["from the future"]):
            found["problem"] = (
                f"{skewed} records with future timestamps were dropped: the clocks of the proxy and this machine differ"
            )
        return Observation(at=now, **found)

    def _evidence(self, rollout: Rollout, now: float) -> Evidence | None:
        counting = rollout.active is Phase.STEP and rollout.routed > 0
        if counting:
            self._cutter.counts_from(rollout.step, rollout.routed + rollout.plan.warmup)
        else:
            self._cutter.stops()
        for block in self._cutter.add(self.world.seen(), now):
            self.records.counted(block)
            self._blocks.append(block)
        if self._cutter.thresholds is not None and not self._known:
            self.records.learnt(self._cutter.thresholds)
            self._known = True
        if rollout.active is not Phase.STEP:
            return None
        key = (rollout.step, len(self._blocks))
        if self._judged is None or self._judged[0] != key:
            self._judged = (key, judge(rollout.plan, rollout.step, Tally.of(self._blocks)))
        return self._judged[1]

    def _reconcile(self, rollout: Rollout, now: float) -> dict[str, Any]:
        """Bring the world nearer to what the phase wants; returns what was found, as fields of an `Observation`."""
        if rollout.phase is Phase.PENDING:
            return {}
        found: dict[str, Any] = {}
        try:
            want = desired(rollout)
            current = self.world.router.current(rollout.model)
            found |= self._health(rollout)
            if missing := self._missing(rollout, want.routes, found):
                routed = current.versions if current is not None else ()
                self._serve(rollout, {*want.routes.versions, *want.versions, *routed}, found)
                found |= self._health(rollout)
            if missing and not all(found[name].ok for name in missing):
                found.setdefault("problem", f"not served yet: {', '.join(missing)}")
                return found
            if current is None or not same(current, want.routes):
                self.world.router.apply(want.routes)
                return found  # read back at the next look, not believed
            found["in_force"] = True
            if rollout.phase in SETTLING and rollout.routed and now - rollout.routed >= rollout.plan.drain:
                self.world.fleet.serve(rollout.model, want.versions)
                found["settled"] = True
        except SeatrialError as error:
            found["problem"] = str(error.what)
        return found

    def _missing(self, rollout: Rollout, routes: Routes, found: dict[str, Any]) -> list[str]:
        """The arms that have to be brought up before the routes may name them.

        A candidate that stops serving once it has taken traffic is not brought up again: that is a fault. Going back
        never waits for it.
        """
        names = {rollout.stable: "stable", rollout.candidate: "candidate"}
        wanted = {names[version] for version in routes.versions}
        if rollout.phase is Phase.LOADING:
            wanted.add("candidate")
        return sorted(name for name in wanted if not found[name].ok)

    def _serve(self, rollout: Rollout, versions: set[int], found: dict[str, Any]) -> None:
        try:
            self.world.fleet.serve(rollout.model, tuple(sorted(versions)))
        except ModelLoadError as error:
            found["problem"] = error.what
            if rollout.phase is Phase.LOADING:
                found["refused"] = error.what

    def _health(self, rollout: Rollout) -> dict[str, Health]:
        """Ask the candidate first: a server that dies meanwhile then looks like one, not like a candidate's fault."""
        return {
            name: self._ask(rollout.model, version)
            for name, version in (("candidate", rollout.candidate), ("stable", rollout.stable))
        }

    def _ask(self, model: str, version: int) -> Health:
        """Return its health. An unreachable version is unhealthy; a rollback does not wait for it."""
        try:
            return self.world.fleet.health(model, version)
        except SeatrialError as error:
            return Health(ok=False, reason=error.what)


def run(records: Records, world: RolloutPorts, *, look: Callable[[Rollout], None] = lambda rollout: None) -> Rollout:
    """Move the model's newest rollout until it ends; `look` is called after every look.

    Raises:
        RolloutError: another controller acts for this model.
        MissingError: this model never had a rollout.
    """
    with records.acting():
        controller = Controller(records, world)
        rollout = controller.rollout
        while not rollout.ended or Event.ROLLBACK in records.intents()[rollout.intents :]:
            rollout = controller.tick()
            look(rollout)
            if not rollout.ended:
                world.sleep(rollout.plan.interval)
        world.close()
        return rollout


def same(one: Routes, other: Routes) -> bool:
    """Return whether two routes are equal up to the proxy's rounding of shares."""
    return replace(one, share=0.0, mirror=0.0) == replace(other, share=0.0, mirror=0.0) and all(
        abs(a - b) < _SAME for a, b in ((one.share, other.share), (one.mirror, other.mirror))
    )
