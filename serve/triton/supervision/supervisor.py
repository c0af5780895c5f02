"""The supervisor: finds model processes and servers that died or stalled, which Triton does not, and brings them back.

A loop of ticks. It watches what is meant to serve (the journal's word, or what served when it began) by requests that
really infer, decides by `healing`'s table, and heals a version by letting it go and naming it again, the server by
starting it on the same ports and disk; it never stops trying. Where Triton's response cache does not pay it switches
that off. It promotes nothing and judges no answers beyond their form. What it did is in a log of JSON lines, and how
things stand in a file that rollouts read. A look that it could not make for want of descriptors, memory or threads of
its own counts against no version.
"""

import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

from seatrial.optimize.errors import SeatrialError

from ...errors import RequestError
from ...exhaustion import lacking
from ...processes import alive, halted, send
from ..control import Control
from ..running.stubs import Stub, expected, stubs
from ..server import Server
from .healing import Act, Backoff, Finding, Watch, advance, ended, withdrawn
from .meant import Meant, Version
from .metering import UNMETERED, Meter
from .probe import DEADLINE_SECONDS, Probed, probe
from .probers import Outcome, Probers
from .reporting import Event, Reporter
from .standing import standing as standing
from .standing import supervision as supervision
from .switch import heal
from .uncaching import Caches, switch_off

SERVER = "server"
PERIOD_SECONDS = 0.5
_PATIENCE_SECONDS = 0.5  # that a look waits for the probes it began; those that take longer are collected later
_HEALING_SECONDS = 2.0  # that a look waits for a version to load; a load that takes longer holds up no other version
_AT_ONCE = 4  # versions that are loaded at a time
_RECOVERY_SECONDS = 60.0
Restart = Callable[[Server, tuple[str, ...]], Server | None]
"""Starts the server again on the same ports and loads these models; None when it was stopped on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Intervals in seconds: between checks, for a golden request, between healings and between cache checks."""

    period: float = PERIOD_SECONDS
    deadline: float = DEADLINE_SECONDS
    backoff: Backoff = field(default_factory=Backoff)
    caches: float = 30.0


def supervise(
    find: Callable[[], Server | None],
    restart: Restart,
    *,
    pace: Pace = Pace(),
    tell: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    meter: Meter = UNMETERED,
) -> Literal["stopped", "down"]:
    """Watch the server that `find` names until `stop`, or until it is taken down; nothing is given up before."""
    server = find()
    if server is None:
        return "down"
    supervisor = Supervisor(server, restart, pace=pace, tell=tell, meter=meter)
    supervisor.say("watching", SERVER, url=server.url)
    try:
        while not stop():
            if not (supervisor.wanted(find) and supervisor.tick()):
                supervisor.say("down", SERVER)
                return "down"
            sleep(pace.period)
        supervisor.say("stopped", SERVER)
        return "stopped"
    finally:
        supervisor.close()


class Supervisor:
    """Supervisor of one server and its versions between two ticks."""

    def __init__(
        self,
        server: Server,
        restart: Restart,
        *,
        pace: Pace = Pace(),
        tell: Callable[[Event], None] = print,
        meter: Meter = UNMETERED,
    ) -> None:
        self.server, self._restart, self._pace, self._meter = server, restart, pace, meter
        counted = {name: Watch(restarts=watch.restarts) for name, watch in standing().items()}
        self._watches: dict[str, Watch] = {SERVER: Watch()} | counted  # counts of callers continue
        self._answered: set[Version] = set()
        self._probers: Probers[Version, Probed] = Probers(self._probe)
        self._healers: Probers[Version, Probed] = Probers(self._bring_back, most=_AT_ONCE)
        self._to_kill: set[Version] = set()
        self._caches, self._caches_seen = Caches(), monotonic()
        self._reporter = Reporter(lambda: self.server.url, lambda: dict(self._watches), tell, meter)
        self.say = self._reporter.say
        self._meant = Meant(server.repository, self._reporter.seldom)

    def close(self) -> None:
        """Let go of threads and files."""
        self._probers.close()
        self._healers.close()
        self._reporter.close()

    def wanted(self, find: Callable[[], Server | None]) -> bool:
        """Return whether the server is still meant to run; as long as that cannot be read, it is."""
        try:
            return find() is not None
        except (SeatrialError, OSError, MemoryError) as error:
            self._cannot_look(error)
            return True

    def tick(self) -> bool:
        """Look once and heal what has to be healed; False once the server was taken down on purpose."""
        try:
            if not self._look():
                return False
            self._reporter.looked()
        except Exception as error:  # noqa: BLE001  a supervisor that ends by a fault leaves the server to itself
            self._cannot_look(error)
        return True

    def _cannot_look(self, error: Exception) -> None:
        """Tell why a look was not complete, and free what we can where we lack something."""
        what = lacking(error)
        if what:
            self._reporter.blind(str(error).splitlines()[0] if isinstance(error, SeatrialError) else what, what)
        elif isinstance(error, SeatrialError):  # the server went away meanwhile, say: the next tick sees it
            self._reporter.seldom("unclear", SERVER, reason=error.what)
        else:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            self._reporter.blind(f"{error!r} at {where}", type(error).__name__)

    def _look(self) -> bool:
        finding, reason = self._look_at_server()
        if self._advance(SERVER, finding, reason) == "heal":
            return self._heal_server()
        if finding != "ok":
            return True
        self._take_healed(self._healers.collect(0.0))
        self._look_at_versions()
        if monotonic() - self._caches_seen >= self._pace.caches:
            self._caches_seen = monotonic()
            self._look_at_caches()
        return True

    def _look_at_server(self) -> tuple[Finding, str]:
        if not alive(self.server.pid, self.server.started):
            return "broken", "the server's process has ended"
        if halted(self.server.pid):
            return "broken", "the server's process is stopped"
        with Control(self.server.url, timeout=self._pace.deadline) as control:
            return ("ok", "") if control.live() else ("late", "the server does not answer")

    def _look_at_versions(self) -> None:
        with Control.to(self.server, timeout=_RECOVERY_SECONDS) as control:
            for recovered in self._meant.finish_switches(control):
                self.say("recovered", recovered.model, **asdict(recovered))
            watched, healing = self._meant.look(control), self._healers.under_way()
            self._forget_gone()
            living = stubs(self.server.pid)
            ill = {
                each: reason or self._missed(control, each, living)
                for each, reason in watched.items()
                if each not in healing
            }
        stopped = {(stub.model, stub.version) for stub in living if stub.stopped}
        self._probers.forget(each for each, reason in ill.items() if reason)
        well = [each for each, reason in ill.items() if not reason]
        self._probers.begin(sorted(well, key=lambda each: self._watch(name_of(*each)).state != "serving"))
        outcomes = self._probers.collect(max(self._pace.period, _PATIENCE_SECONDS))
        for version, outcome in outcomes.items():
            self._meter.probed(name_of(*version), _state(outcome), outcome.seconds)
        errors = [outcome.error for outcome in outcomes.values() if outcome.error is not None]
        for version, reason in ill.items():
            found = outcomes[version].found if version in outcomes else None
            if not reason and found is None:
                continue  # not finished yet, or could not be asked
            finding, why = self._judged(version, reason, found)
            if finding == "broken" and not reason and outcomes[version].seconds > _PATIENCE_SECONDS:
                finding = "late"  # it may have been loaded anew since it was asked: a suspicion
            if self._advance(name_of(*version), finding, why) == "heal":
                self._heal_version(version, kill=finding == "late" or version in stopped)
        if errors:
            raise errors[0]

    def _missed(self, control: Control, version: Version, living: tuple[Stub, ...]) -> str:
        """Check its processes without a request: one that a stopped process takes would abort the server when that
        process goes on, and of several instances a request reaches only one."""
        mine = [stub for stub in living if (stub.model, stub.version) == version]
        if any(stub.stopped for stub in mine):
            return "its process is stopped"
        try:
            lacking_ = expected(control.config(*version)) - len(mine)
        except RequestError:  # let go of meanwhile: a golden request says more
            return ""
        return f"{lacking_} of its processes is gone" if lacking_ > 0 else ""

    def _forget_gone(self) -> None:
        """Drop the watches of versions that are not meant to serve any more, but for what others count on."""
        meant = {name_of(*each) for each in self._meant.versions}
        for lost in self._watches.keys() - meant - {SERVER}:
            if restarts := self._watches.pop(lost).restarts:
                self._watches[lost] = Watch(restarts=restarts)

    def _probe(self, version: Version) -> Probed:
        return probe(self.server.url, *version, deadline=self._pace.deadline)

    def _judged(self, version: Version, ill: str, found: Probed | None) -> tuple[Finding, str]:
        """Return what counts for the table: certain signs before a golden request's outcome."""
        if ill or found is None:
            return "broken", ill
        if found.state == "ok":
            self._answered.add(version)
        if found.state == "refused":  # a model that never liked the golden request is not ill
            return ("broken" if version in self._answered else "unknown"), found.reason
        return found.state, found.reason

    def _watch(self, name: str) -> Watch:
        return self._watches.get(name, Watch())

    def _advance(self, name: str, finding: Finding, reason: str) -> Act:
        before, backoff = self._watch(name), self._pace.backoff
        after, act = advance(before, finding, reason, monotonic(), backoff)
        self._watches[name] = after
        if act == "healed":
            self.say("healed", name, seconds=round(monotonic() - before.since, 3), restarts=after.restarts)
        elif after.state == "resting" != before.state:
            pause = round(backoff.left(after.attempts, monotonic()), 1)
            self.say("resting", name, reason=reason, restarts=after.restarts, next_attempt_in=pause)
        elif after.state != before.state:
            self.say(after.state, name, finding=finding, reason=reason)
        return act

    def _not_healed(self, name: str, error: Exception) -> None:
        """Tell of an attempt that failed, and count it, unless it could not even be made."""
        if lacking(error):
            self._watches[name] = withdrawn(self._watch(name))
            raise error
        self._watches[name] = ended(self._watch(name), monotonic())
        self.say("not healed", name, reason=error.what if isinstance(error, SeatrialError) else str(error))

    def _look_at_caches(self) -> None:
        """Switch Triton's response cache off for a model that pays more for looking up than its hits save."""
        with Control.to(self.server) as control:
            ready = [(each.name, int(each.version)) for each in control.index() if each.state == "READY"]
            for model, worth in self._caches.look(control, ready).items():
                try:
                    if switch_off(control, self.server.repository, model):
                        self.say("response cache off", model, reason=str(worth))
                except SeatrialError as error:
                    self.say("response cache not off", model, reason=error.what)

    def _heal_version(self, version: Version, *, kill: bool) -> None:
        if kill:
            self._to_kill.add(version)
        self._healers.begin([version])
        self._take_healed(self._healers.collect(_HEALING_SECONDS))

    def _bring_back(self, version: Version) -> Probed:
        """Load it anew, in a thread of its own, and ask it."""
        if version in self._to_kill:
            self._to_kill.discard(version)
            for stub in stubs(self.server.pid):
                if (stub.model, stub.version) == version:
                    send(stub.pid, stub.started, signal.SIGKILL)
        with Control.to(self.server) as control:
            heal(control, self.server.repository, *version)
        return self._probe(version)

    def _take_healed(self, outcomes: Mapping[Version, Outcome[Probed]]) -> None:
        for version, outcome in outcomes.items():
            name = name_of(*version)
            if outcome.found is None:
                self._not_healed(name, outcome.error or RuntimeError("unknown"))
                continue
            self._watches[name] = ended(self._watch(name), monotonic())
            self._advance(name, *self._judged(version, "", outcome.found))

    def _heal_server(self) -> bool:
        """Start it again with what is meant to serve: a version that was placed but never switched to stays out."""
        self._probers.forget()
        self._healers.forget()
        try:
            self._meant.settle()
            names = {name for name, _ in self._meant.versions} or set(self.server.models)
            again = self._restart(self.server, tuple(sorted(names)))
        except (SeatrialError, OSError, MemoryError) as error:
            self._not_healed(SERVER, error)
            return True
        if again is None:
            return False
        self.server = again
        found = self._look_at_server()
        self._watches[SERVER] = ended(self._watch(SERVER), monotonic())
        self._advance(SERVER, *found)
        return True


def _state(outcome: Outcome[Probed]) -> str:
    if outcome.found is not None:
        return outcome.found.state
    return "not made"


def name_of(model: str, version: int) -> str:
    """Return the name of a version in the log and in the file."""
    return f"{model}/{version}"
