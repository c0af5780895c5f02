"""The supervisor: finds model processes and servers that died or stalled, which Triton does not, and brings them back.

A loop of ticks. It watches what is meant to serve (the journal's word, or what served when it began) by requests that
really infer, decides by `healing`'s table, and heals a version by letting it go and naming it again, the server by
starting it on the same ports and disk. Where Triton's response cache does not pay it switches that off. It promotes
nothing and judges no answers beyond their form. What it did is in a log of JSON lines, and how things stand in a file
that rollouts read.
"""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal

from optimize.artifact import canonical
from optimize.environment import home, now
from optimize.errors import SeatrialError
from optimize.reading import SHAPE_ERRORS, decode, read_object
from optimize.store import write_atomically

from ..control import Control
from ..repository.placing import choose, chosen
from ..running.process import alive, halted, send
from ..running.stubs import Stub, expected, stubs
from ..server import Server
from . import journal
from .healing import Act, Backoff, Finding, Watch, advance
from .probe import DEADLINE_SECONDS, Probed, probe
from .switch import heal, recover_all
from .uncaching import Caches, switch_off

SERVER = "server"
PERIOD_SECONDS = 0.5
Version = tuple[str, int]
Event = dict[str, Any]
Restart = Callable[[Server, tuple[str, ...]], Server | None]
"""Starts the server again on the same ports and loads these models; None when it was taken down on purpose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to look, how long a golden request may take, how often to heal and to look at caches (in seconds)."""

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
) -> Literal["stopped", "down", "gave up"]:
    """Watch the server that `find` names until `stop`, until it is taken down, or until it cannot be brought back.

    A version that cannot be brought back is given up alone; the others are watched on.
    """
    server = find()
    if server is None:
        return "down"
    supervisor = Supervisor(server, restart, pace=pace, tell=tell)
    supervisor.say("watching", SERVER, url=server.url)
    while not stop():
        if find() is None or not supervisor.tick():
            ended: Literal["down", "gave up"] = "down" if find() is None else "gave up"
            supervisor.say(ended, SERVER)
            return ended
        sleep(pace.period)
    supervisor.say("stopped", SERVER)
    return "stopped"


class Supervisor:
    """What is known of one server and its versions between two ticks."""

    def __init__(
        self,
        server: Server,
        restart: Restart,
        *,
        pace: Pace = Pace(),
        tell: Callable[[Event], None] = print,
    ) -> None:
        self.server, self._restart, self._pace, self._tell = server, restart, pace, tell
        counted = {name: Watch(restarts=watch.restarts) for name, watch in standing().items()}
        self._watches: dict[str, Watch] = {SERVER: Watch()} | counted  # whoever counts on us goes on counting
        self._expected: set[Version] = set()
        self._answered: set[Version] = set()
        self._caches, self._caches_seen = Caches(), monotonic()

    def tick(self) -> bool:
        """Look once and heal what has to be healed; False once the server was given up or taken down."""
        finding, reason = self._look_at_server()
        act = self._advance(SERVER, finding, reason)
        if act == "heal":
            return self._heal_server()
        if act == "give up" or self._watches[SERVER].state == "given up":
            return False
        if finding != "ok":
            return True
        try:
            self._look_at_versions()
            if monotonic() - self._caches_seen >= self._pace.caches:
                self._caches_seen = monotonic()
                self._look_at_caches()
        except SeatrialError as error:  # the server went away meanwhile: the next tick sees it
            self.say("unclear", SERVER, reason=error.what)
        return True

    def say(self, event: str, subject: str, **more: Any) -> None:
        """One line for the log and for whoever listens; how things stand goes to the file."""
        line = {"at": now(), "event": event, "subject": subject, **more}
        log = supervision() / "events.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        standing = {"schema": 1, "at": now(), "url": self.server.url} | {
            "watches": {name: asdict(watch) for name, watch in self._watches.items()}
        }
        write_atomically(supervision() / "health.json", canonical(standing))
        self._tell(line)

    def _look_at_server(self) -> tuple[Finding, str]:
        if not alive(self.server.pid, self.server.started):
            return "broken", "the server's process is gone"
        if halted(self.server.pid):
            return "broken", "the server's process is stopped"
        with Control(self.server.url, timeout=self._pace.deadline) as control:
            return ("ok", "") if control.live() else ("late", "the server does not answer")

    def _look_at_versions(self) -> None:
        with Control.to(self.server, timeout=60.0) as control:
            for outcome in self._open_switches(control):
                self.say("recovered", outcome.model, **asdict(outcome))
            watched = self._watched(control)
            living = stubs(self.server.pid)
            ill = {each: reason or self._missed(control, each, living) for each, reason in watched.items()}
        stopped = {(stub.model, stub.version) for stub in living if stub.stopped}
        with ThreadPoolExecutor(max_workers=max(len(ill), 1)) as pool:
            found = pool.map(lambda each: self._look_at(*each), ill.items())
            for version, (finding, reason) in zip(ill, list(found), strict=True):
                if self._advance(name_of(*version), finding, reason) == "heal":
                    self._heal_version(version, kill=finding == "late" or version in stopped)

    @staticmethod
    def _missed(control: Control, version: Version, living: tuple[Stub, ...]) -> str:
        """What its processes tell without a request: one that a stopped process takes would abort the server when that
        process goes on, and of several instances a request reaches only one."""
        mine = [stub for stub in living if (stub.model, stub.version) == version]
        if any(stub.stopped for stub in mine):
            return "its process is stopped"
        lacking = expected(control.config(*version)) - len(mine)
        return f"{lacking} of its processes is gone" if lacking > 0 else ""

    def _open_switches(self, control: Control) -> Iterator[Any]:
        """Finish or undo what a switcher that died left; one that still works holds the lock and is left alone."""
        entries = [journal.read(self.server.repository, model) for model in journal.journaled(self.server.repository)]
        if any(entry is not None and entry.state != "verified" for entry in entries):
            yield from (
                each for each in recover_all(control, self.server.repository, wait=0.0) if each.remedy != "nothing"
            )

    def _watched(self, control: Control) -> dict[Version, str]:
        """Versions to look at, each with the reason why it does not serve, empty where the server says it does."""
        states = [each for each in control.index() if each.version]
        ready = {(each.name, int(each.version)) for each in states if each.state == "READY"}
        reasons = {(each.name, int(each.version)): each.reason for each in states}
        for model in {name for name, _ in ready | self._expected}:
            entry = journal.read(self.server.repository, model)
            if entry is not None:
                others = {each for each in self._expected if each[0] != model}
                meant = set(entry.after) if entry.state == "verified" else set()
                self._expected = others | {(model, version) for version in meant}
        for lost in {each for each in self._watches if each != SERVER}:
            if lost not in {name_of(*each) for each in ready | self._expected}:
                self._watches[lost] = Watch(restarts=self._watches[lost].restarts)  # whoever counts goes on counting
        journaled = set(journal.journaled(self.server.repository))
        by_hand = {each for each, why in reasons.items() if why == "unloaded" and each[0] not in journaled}
        missing = self._expected - ready - by_hand
        self._expected = (self._expected | ready) - by_hand
        return dict.fromkeys(sorted(ready), "") | {
            each: f"not served: {reasons.get(each) or 'not loaded'}" for each in sorted(missing)
        }

    def _look_at(self, version: Version, ill: str) -> tuple[Finding, str]:
        if ill:
            return "broken", ill
        found: Probed = probe(self.server.url, *version, deadline=self._pace.deadline)
        if found.state == "ok":
            self._answered.add(version)
        if found.state == "refused":  # a model that never liked the golden request is not ill
            return ("broken" if version in self._answered else "unknown"), found.reason
        return found.state, found.reason

    def _advance(self, name: str, finding: Finding, reason: str) -> Act:
        before = self._watches.get(name, Watch())
        after, act = advance(before, finding, reason, monotonic(), self._pace.backoff)
        self._watches[name] = after
        if act == "healed":
            self.say("healed", name, seconds=round(monotonic() - before.since, 3), restarts=after.restarts)
        elif act == "give up":
            self.say("gave up", name, reason=reason, restarts=after.restarts)
        elif after.state != before.state:
            self.say(after.state, name, finding=finding, reason=reason)
        return act

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
            for stub in stubs(self.server.pid):
                if (stub.model, stub.version) == version:
                    send(stub.pid, stub.started, signal.SIGKILL)
        try:
            with Control.to(self.server) as control:
                heal(control, self.server.repository, *version)
        except SeatrialError as error:
            self.say("not healed", name_of(*version), reason=error.what)
            return
        found = self._look_at(version, "")
        self._advance(name_of(*version), *found)

    def _heal_server(self) -> bool:
        """Start it again with what is meant to serve: a version that was placed but never switched to stays out."""
        repository = self.server.repository
        try:
            for outcome in recover_all(None, repository):
                entry = journal.read(repository, outcome.model)
                if entry is None or entry.state != "verified" or not entry.after:
                    continue
                if chosen(repository, outcome.model) != entry.after:
                    choose(repository, outcome.model, entry.after)
            names = {name for name, _ in self._expected} or set(self.server.models)
            again = self._restart(self.server, tuple(sorted(names)))
        except SeatrialError as error:
            self.say("not healed", SERVER, reason=error.what)
            return True
        if again is None:
            return False
        self.server = again
        self._advance(SERVER, *self._look_at_server())
        return True


def name_of(model: str, version: int) -> str:
    """How a version is called in the log and in the file."""
    return f"{model}/{version}"


def supervision() -> Path:
    """Where the supervisor of this SEATRIAL_HOME writes."""
    return home() / "triton" / "supervision"


def standing() -> dict[str, Watch]:
    """How things stood when the supervisor last wrote, by name; empty where none ever did."""
    try:
        content = read_object(supervision() / "health.json")
        return decode(dict[str, Watch], content["watches"], where="")
    except (SeatrialError, OSError, *SHAPE_ERRORS):
        return {}
