"""Kill drill of a rollout: kill -9 of controller, Envoy, Triton and the candidate's process, at every phase.

Everything runs as it would: the verbs ``supervise`` and ``edge watch`` in processes of their own, and the controller
(``rollout start``, after its death ``rollout run``, as a service manager would) in another; clients ask all the time.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from math import inf
from pathlib import Path

import psutil

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.trial import NAME, PLAN, Asked, Asking, up
from seatrial.optimize.environment import home
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.processes import wait
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.envoy.proxy import Proxy, running
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.rollout.machine import Event, Phase
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.stubs import stubs
from seatrial.serve.triton.supervision.switch import forgive

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = ("controller", "envoy", "triton", "model process")
PHASES = (Phase.LOADING, Phase.SHADOW, Phase.STEP, Phase.PROMOTING, Phase.ROLLING_BACK)
# A model process that dies while it loads can keep Triton from loading that model again, until the server is started
# anew; what serves goes on. So this one comes last.
WEDGES = ("model process", Phase.LOADING)
LONGEST = 40.0  # seconds that one rollout may take
LOADING = 0.5  # seconds that a version takes to load, so that there is a loading to be killed in
PATIENCE = 10.0  # seconds after which a failure has nothing to do with the kill
HEALED = 10  # answers in a row after which all is well again


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One rollout with a kill in it: how it ended, and what became of its requests."""

    victim: str
    phase: Phase
    killed: bool
    ended: str
    as_told: bool
    healed: float
    counts: Counter[str] = field(default_factory=Counter)


@contextmanager
def verb(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A verb of the command in a process of its own, ended after the block."""
    log = (home() / "drill.log").open("ab")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "seatrial.serve.cli", *words], cwd=ROOT, env=environment, stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def kill_drill(folder: Path) -> Row:
    """A rollout for each victim and phase, one after the other, on one server and one edge."""
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    (folder / "plan.toml").write_text(PLAN)
    found: list[Ended] = []
    with up(folder, loading=LOADING) as (_, proxy), verb("edge", "watch", NAME):
        for victim, phase in sorted(product(VICTIMS, PHASES), key=lambda each: each == WEDGES):
            with verb("supervise"):  # a new one each time: its pauses grow where a server dies again and again
                found.append(_rollout(folder, proxy, victim, phase))
            print(_told(found[-1]), file=sys.stderr, flush=True)
    return _row(found)


def _rollout(folder: Path, proxy: Proxy, victim: str, phase: Phase) -> Ended:
    """One rollout from the version that serves to the other equal one."""
    stable = _settled(proxy)
    candidate = 2 if stable == 1 else 1
    wait(lambda: not _processes(candidate), 10.0)  # of the rollout before, which may still be ending
    records = Records(home() / "rollouts", NAME)
    for digest in records.blocked():
        records.lift(digest)
    forgive(folder / "models", NAME)
    controllers, killed = _Controllers(folder, candidate), tuple[float, ...]()
    with Asking(proxy.url, most=LONGEST + 20) as asking, controllers:
        before = records._current if records.exists() else None
        wait(lambda: records.exists() and records._current != before, 10.0)
        reached = wait(lambda: _at(records, phase), LONGEST)
        if reached:
            killed = _kill(victim, candidate, controllers)
        wait(lambda: records.load().ended and controllers.done, LONGEST)
        wait(lambda: _well(asking), 10.0)
    rollout = records.load()
    counts, healed = count(asking.asked, *killed, front=victim == "envoy")
    return Ended(
        victim=victim,
        phase=phase,
        killed=bool(killed),
        ended=rollout.phase,
        as_told=_agrees(proxy, candidate if rollout.phase is Phase.PROMOTED else stable),
        healed=healed,
        counts=counts,
    )


def _at(records: Records, phase: Phase) -> bool:
    """Return True if the rollout is in the phase with its routes in force; requests a rollback for that phase."""
    rollout = records.load()
    under_way = rollout.routed > 0
    if phase is Phase.ROLLING_BACK and rollout.phase is Phase.STEP and under_way and not records.intents():
        records.say(Event.ROLLBACK)
    return rollout.phase is phase and (under_way or phase not in (Phase.SHADOW, Phase.STEP))


class _Controllers:
    """The controller, and another one where it was killed."""

    def __init__(self, folder: Path, candidate: int) -> None:
        plan = str(folder / "plan.toml")
        self._words: Sequence[str] = ("rollout", "start", NAME, "--candidate", str(candidate), "--plan", plan)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep)
        self._process: subprocess.Popen[bytes] | None = None
        self.done = False

    @property
    def pids(self) -> list[int]:
        """The process that runs now."""
        return [self._process.pid] if self._process is not None and self._process.poll() is None else []

    def __enter__(self) -> "_Controllers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.is_set() and not self.done:
            with verb(*self._words) as process:
                self._process = process
                self.done = process.wait() >= 0
            self._words = ("rollout", "run", NAME)


def _kill(victim: str, candidate: int, controllers: _Controllers) -> tuple[float, ...]:
    """Kill it; the times before, and when nothing of it was left (it takes connections while it dies)."""
    server, proxy = on_pytriton.wanted(), on_envoy.status(NAME)
    struck: list[int] = []
    if victim == "controller":
        struck = controllers.pids
    elif victim == "envoy" and proxy is not None:
        struck = [proxy.pid]
    elif victim == "triton" and server is not None:
        struck = [server.pid]
    elif victim == "model process" and server is not None:
        wait(lambda: bool(_processes(candidate)), 2.0)
        struck = _processes(candidate)
    killed = time.time()
    for each in struck:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    while any(_there(each) for each in struck):
        time.sleep(0.001)
    return (killed, time.time()) if struck else ()


def _processes(version: int) -> list[int]:
    server = on_pytriton.wanted()
    return [] if server is None else [stub.pid for stub in stubs(server.pid) if stub.version == version]


def _there(pid: int) -> bool:
    """Return True if a thread of the process is left; a zombie counts only while other threads of it still end."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def _well(asking: Asking) -> bool:
    last = asking.asked[-HEALED:]
    return len(last) == HEALED and all(each.status == 200 for each in last)


def count(
    asked: Sequence[Asked], killed: float = 0.0, gone: float = 0.0, *, front: bool = False
) -> tuple[Counter[str], float]:
    """Count the outcomes of the requests, and the seconds from the kill until the last request that failed.

    ``in flight`` failed and were sent before the killed process was gone; ``refused`` were sent after that and got
    an error (an error status, or no connection at all); ``on a dead connection`` were sent after that too, on one
    that had been opened before and so ended with the `front` that clients speak to; ``lost`` were accepted after it and
    never answered, or failed although nothing was killed (yet), or so long after that all should have recovered.
    """
    found: Counter[str] = Counter(asked=len(asked))
    healed = 0.0
    for each in asked:
        if each.status == 200:
            found["answered"] += 1
            continue
        healed = max(healed, each.ended - killed)
        told = bool(each.status) or each.opened == inf
        if not killed or each.ended < killed or each.sent > gone + PATIENCE:
            found["lost"] += 1
        elif each.sent <= gone:
            found["in flight"] += 1
        elif front and not told and each.opened <= gone:
            found["on a dead connection"] += 1
        else:
            found["refused" if told else "lost"] += 1
    return found, healed


def _settled(proxy: Proxy) -> int:
    """The version that serves, once everything is up."""

    def ready() -> bool:
        try:
            server = on_pytriton.status()
            if server is None or not running(on_envoy.status(NAME) or proxy):
                return False
            routes = EnvoyRouter(proxy).current(NAME)
            with Control(server.url) as control:
                return routes is not None and control.ready_versions(NAME) == set(routes.versions)
        except SeatrialError:
            return False

    wait(ready, 15.0)
    routes = EnvoyRouter(proxy).current(NAME)
    return routes.stable if routes is not None else 1


def _agrees(proxy: Proxy, version: int) -> bool:
    """Return True if routes, server and a response all name only that version."""
    settled, server = _settled(proxy), on_pytriton.status()
    if settled != version or server is None:
        return False
    routes = EnvoyRouter(proxy).current(NAME)
    with Control(server.url) as control:
        return routes is not None and routes.versions == (version,) and control.ready_versions(NAME) == {version}


def _told(each: Ended) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in each.counts.items())
    state = "" if each.as_told else ", BUT ROUTES AND SERVER DISAGREE"
    victim = each.victim if each.killed else f"{each.victim} NOT"
    return f"{victim} killed at {each.phase}: {each.ended}{state}; {counts}; healed after {each.healed:.1f} s"


def _row(found: Sequence[Ended]) -> Row:
    total = sum((each.counts for each in found), Counter[str]())
    good = [each for each in found if each.killed and each.as_told and each.ended in ("promoted", "rolled_back")]
    ends = Counter(each.ended for each in found)
    where = ", ".join(f"{each.victim} at {each.phase}" for each in found if each.counts["lost"])
    slowest = [f"{victim} {max(each.healed for each in found if each.victim == victim):.1f}" for victim in VICTIMS]
    return Row(
        name="kill-drill",
        claim=f"kill -9 of {', '.join(VICTIMS)}, each at {', '.join(PHASES)}: {len(found)} rollouts under "
        f"{total['asked']} requests, {', '.join(f'{number} {end}' for end, number in ends.items())}",
        value=f"{len(good)} of {len(found)} ended promoted or rolled back with edge and server agreeing; "
        f"{total['lost']} lost{where and f' ({where})'}, {total['in flight']} in flight at a kill, "
        f"{total['on a dead connection']} on a connection that had ended with Envoy, "
        f"{total['refused']} refused with an error; "
        f"seconds from a kill to the last failure, at most: {', '.join(slowest)}",
        bar="all of them, none lost",
        met=len(good) == len(found) and total["lost"] == 0,
    )


ROWS: Rows = {"kill-drill": kill_drill}


def main() -> int:
    """Run the rows that the command line names."""
    return run_rows("Measure the cost of kills.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
