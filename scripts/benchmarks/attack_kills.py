"""Kills at random moments of every verb that writes: SIGTERM, SIGINT and SIGKILL, then the same command again.

After each kill nothing may be half-written and no process may be left; the command must then work, and clear away what
the killed one left. Three lanes run beside each other, each in a SEATRIAL_HOME and TMPDIR of its own: copies of one
seed, a home whose server and edge are up, and one in which a server comes and goes.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks import attack_kill_checks as checks
from scripts.benchmarks.attack_kill_jobs import (
    EDGE,
    EDGE_DOWN,
    EDGE_UP,
    JOBS,
    UP,
    Job,
    command,
    done,
    seed,
    surroundings,
)
from scripts.benchmarks.rows import Row, Rows
from seatrial.optimize import interrupts
from seatrial.optimize.errors import MachineError, SeatrialError
from seatrial.serve.processes import free_ports, wait
from seatrial.serve.triton.server import Server

KILLS = int(os.environ.get("SEATRIAL_KILLS", "200"))
SEED = int(os.environ.get("SEATRIAL_SEED", "0")) or int(time.time())
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
GRACE = 4.0  # seconds for what a killed verb had started to be gone
_FRESH = 3  # lanes of jobs that start from a copy of the seed
ENDING = 60.0  # seconds for a verb to end after SIGTERM or SIGINT
_ENDS: Mapping[signal.Signals, tuple[int, ...]] = {  # by the verb, or by the interpreter before it could begin
    signal.SIGTERM: (143, -15),
    signal.SIGINT: (130, -2),
    signal.SIGKILL: (-9,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: of which verb, by which signal, after how many seconds; what was wrong then, in words."""

    verb: str
    signal: str
    after: float
    done: bool  # the verb had ended before
    code: int
    ended: float  # seconds from the signal to its end
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class Lane:
    """Folder in which jobs run one after the other, with home, working folder and TMPDIR."""

    folder: Path
    origin: Path
    seconds: dict[str, float]  # how long each verb takes undisturbed, all lanes' together
    known: tuple[int, ...] = ()  # processes that are meant to be there
    places: dict[str, str] = field(default_factory=dict)

    def fresh(self) -> None:
        """Put the seed's state there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.origin, self.folder, symlinks=True)
        self.places["home"] = str(self.folder / "home")

    def words(self, text: str) -> list[str]:
        """Return a command line as words, with this lane's places filled in."""
        return [word.format(**self.places) for word in text.split()]

    def run(self, text: str) -> tuple[int, str]:
        """Run a verb to its end here."""
        return done(self.words(text), self.folder)

    def prepare(self, job: Job) -> None:
        """Give the job something to do."""
        if job.lane == "fresh":
            self.fresh()
        for text in job.undo:
            self.run(text)
        self.look()

    def look(self) -> None:
        """Learn which processes are meant to be there: a server and an edge that are up."""
        server = Server.find(self.folder / "home" / "triton" / "server.json")
        edges = (self.folder / "home" / "envoy" / "edges").glob("*/proxy.json")
        pids = [checks.pid_of(each) for each in edges] + ([server.pid] if server is not None else [])
        self.known = tuple(pids)


def campaign(
    folder: Path,
    kills: int,
    number: int,
    tell: Callable[[Kill], None],
    jobs: Sequence[Job] = JOBS,
    blows: Sequence[signal.Signals] = SIGNALS,
) -> list[Kill]:
    """Kill so many times, spread over verbs by their share and over signals evenly; every kill as it went."""
    origin = folder / "seed"
    if not origin.exists():  # one that is there is taken as it is
        seed(origin)
    shutil.rmtree(origin / "tmp", ignore_errors=True)
    for ignored in (signal.SIGINT, signal.SIGHUP):  # under nohup or a shell's ``&``, and so by every verb as well
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, signal.default_int_handler)
    chosen = plan(kills, random.Random(number), jobs, blows)
    lanes = [[each for each in chosen if each[0].lane == lane] for lane in ("fresh", "served", "up")]
    parts = [*(lanes[0][first::_FRESH] for first in range(_FRESH)), lanes[1], lanes[2]]
    measured, stopping = folder / "seconds.json", threading.Event()  # of a campaign before, on the same machine
    seconds: dict[str, float] = json.loads(measured.read_text()) if measured.exists() else {}
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [
            pool.submit(_lane, Lane(folder / f"l{index}", origin, seconds), part, number + index, stopping, tell)
            for index, part in enumerate(parts)
            if part
        ]
        try:
            return [kill for each in running for kill in each.result()]
        finally:
            stopping.set()  # lanes end their servers before they go
            measured.write_text(json.dumps(seconds, indent=1))


def plan(
    kills: int, chance: random.Random, jobs: Sequence[Job] = JOBS, blows: Sequence[signal.Signals] = SIGNALS
) -> list[tuple[Job, signal.Signals]]:
    """Return jobs and signals in random order: every job at least once, then by share; signals in turn."""
    chosen = list(jobs)[:kills]
    chosen += chance.choices(jobs, weights=[job.share for job in jobs], k=max(0, kills - len(chosen)))
    signals = [blows[index % len(blows)] for index in range(len(chosen))]
    chance.shuffle(signals)
    pairs = list(zip(chosen, signals, strict=True))
    chance.shuffle(pairs)
    return pairs


def _lane(
    lane: Lane,
    jobs: Sequence[tuple[Job, signal.Signals]],
    number: int,
    stopping: threading.Event,
    tell: Callable[[Kill], None],
) -> list[Kill]:
    chance, found = random.Random(number), list[Kill]()
    lane.fresh()
    try:
        if any(job.lane == "served" for job, _ in jobs):
            _serve(lane)
        for job, blow in jobs:
            if stopping.is_set():
                break
            found.append(_kill(lane, job, blow, chance))
            tell(found[-1])
    finally:
        for text in (EDGE_DOWN, "down"):
            lane.run(text)
        if left := checks.strays(lane.folder / "home"):
            tell(Kill(verb="lane", signal="", after=0, done=True, code=0, ended=0, faults=(f"left: {left}",)))
    return found


def _serve(lane: Lane) -> None:
    """Bring up a server with two versions of the model, and write the edge before it."""
    lane.run("place small.deploy.toml --artifact small.fp32 --repository models")
    lane.run(UP)
    server = Server.find(lane.folder / "home" / "triton" / "server.json")
    if server is None:
        raise SeatrialError("no server came up", where=str(lane.folder))
    _edge(lane, server)


def _edge(lane: Lane, server: Server) -> None:
    lane.places["url"] = f"http://{server.url}/v2/models/small"
    text = EDGE.replace("HTTP", str(server.http_port)).replace("GRPC", str(server.grpc_port))
    (lane.folder / "ws" / "edge.toml").write_text(text.replace("port = 0", f"port = {free_ports(1)[0]}"))
    lane.run(EDGE_UP)


def _kill(lane: Lane, job: Job, number: signal.Signals, chance: random.Random) -> Kill:
    """Prepare, run, kill, look, run again, look again."""
    if job.verb not in lane.seconds:
        lane.prepare(job)
        began = time.monotonic()
        code, said = (-1, "") if _endless(job) else lane.run(job.text)
        lane.seconds[job.verb] = 6.0 if _endless(job) else time.monotonic() - began
        if code not in job.codes and not _endless(job):
            return Kill(
                verb=job.verb,
                signal="none",
                after=0,
                done=True,
                code=code,
                ended=0,
                faults=(f"does not work unkilled: {said[-300:]}",),
            )
        _settle(lane, job)
    lane.prepare(job)
    before, after = checks.regions(), chance.uniform(0.0, 0.95 * lane.seconds[job.verb])
    began = time.monotonic()
    code, said, finished, took = _struck(lane, job, number, after)
    if finished:  # it was slower when it was measured: other work came and went
        lane.seconds[job.verb] = min(lane.seconds[job.verb], time.monotonic() - began)
    faults = _at_once(lane, job, number, code, said, finished=finished)
    faults += _afterwards(lane, job, before)
    return Kill(
        verb=job.verb, signal=number.name, after=after, done=finished, code=code, ended=took, faults=tuple(faults)
    )


def _endless(job: Job) -> bool:
    """Tell whether the verb runs until traffic or a person ends it."""
    return job.verb == "rollout start"


def _struck(lane: Lane, job: Job, number: signal.Signals, after: float) -> tuple[int, str, bool, float]:
    """Run the verb and kill it: exit code, what it said, whether it had ended before, seconds to its end."""
    with (lane.folder / "said").open("w+b") as said:
        process = subprocess.Popen(
            command(lane.words(job.text)),
            cwd=lane.folder / "ws",
            env=surroundings(lane.folder),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            process.wait(after)
            finished = True
        except subprocess.TimeoutExpired:
            finished = False
            process.send_signal(number)
        struck = time.monotonic()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said.seek(0)
        return process.returncode, said.read().decode(errors="replace"), finished, time.monotonic() - struck


def _at_once(lane: Lane, job: Job, number: signal.Signals, code: int, said: str, *, finished: bool) -> list[str]:
    """Return what is wrong right after the kill."""
    faults = []
    begun = "serve/" in said or "Traceback" not in said  # else the interpreter had not reached a line of ours
    ended = _ENDS[number] + job.codes + (() if begun else (1,))
    if code not in ended and not (finished and _endless(job)):
        faults.append(f"exit code {code}: {said.strip()[-160:]!r}")
    if "Traceback" in said and begun:
        faults.append(f"traceback: {said.strip()[-160:]!r}")
    lane.look()
    home = lane.folder / "home"
    if not wait(lambda: not checks.strays(home, lane.known), GRACE):
        faults.append(f"orphans: {checks.strays(home, lane.known)}")
    faults += [f"damaged: {each}" for each in checks.damage(home, lane.folder / "ws")]
    return faults


def _afterwards(lane: Lane, job: Job, before: set[str]) -> list[str]:
    """Run the same command again; what is wrong then, or still."""
    faults = []
    if _endless(job):
        faults += _rolled_back(lane)
    else:
        try:
            code, said = lane.run(job.text)
        except MachineError as error:
            return [f"again: {error.what}", *_settle(lane, job, before)]
        if code not in job.codes + job.again:
            faults.append(f"again: exit code {code}: {said.strip()[-300:]!r}")
        if "Traceback" in said:
            faults.append("again: traceback")
    return faults + _settle(lane, job, before)


def _settle(lane: Lane, job: Job, before: set[str] | None = None) -> list[str]:
    """Return what is left after a command that ended by itself."""
    lane.look()
    home, work = lane.folder / "home", lane.folder / "ws"
    faults = []
    if not wait(lambda: not checks.strays(home, lane.known), GRACE):
        faults.append(f"again: orphans: {checks.strays(home, lane.known)}")
    faults += [f"again: left: {each}" for each in checks.leftovers(home, work, lane.folder / "tmp")]
    faults += [f"again: damaged: {each}" for each in checks.damage(home, work)]
    if before is not None and not wait(lambda: not checks.unmapped(checks.regions() - before), GRACE):
        faults.append(f"again: shared memory: {checks.unmapped(checks.regions() - before)}")
    if job.verb == "init" and not all((work / "made" / each).is_file() for each in ("recipe.toml", "samples.py")):
        faults.append("again: half of what init writes")
    return faults


def _rolled_back(lane: Lane) -> list[str]:
    """End a rollout whose controller was killed, as a person would; nothing to end is well too."""
    lane.run("rollout abort small")
    code, said = lane.run("rollout run small")
    return [] if code in (0, 1, 2) and "Traceback" not in said else [f"rollout run: exit code {code}: {said[-200:]!r}"]


def table(kills: Sequence[Kill]) -> str:
    """Return the kills by verb and signal: how many, how many of them before the verb had ended, how many faulty."""
    lines = [f"{'verb':22}" + "".join(f"{number.name:>20}" for number in SIGNALS)]
    for verb in dict.fromkeys(sorted(each.verb for each in kills)):
        cells = []
        for number in SIGNALS:
            mine = [each for each in kills if (each.verb, each.signal) == (verb, number.name)]
            early, wrong = sum(not each.done for each in mine), sum(bool(each.faults) for each in mine)
            cells.append(f"{early} of {len(mine)}" + (f", {wrong} faulty" if wrong else ""))
        lines.append(f"{verb:22}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def kills(folder: Path) -> Row:
    """Run the campaign; the row that it makes."""
    return row(campaign(folder, KILLS, SEED, _told), SEED)


def row(found: Sequence[Kill], number: int) -> Row:
    """Return the row: every kill without a fault."""
    faulty = [each for each in found if each.faults]
    signals = Counter(each.signal for each in found)
    kinds = Counter(fault.split(":")[0] for each in faulty for fault in each.faults)
    ends = [each.ended for each in found if each.signal != "SIGKILL" and not each.done]
    return Row(
        name="kills",
        claim=f"{len(found)} kills ({', '.join(f'{count} {name}' for name, count in sorted(signals.items()))}) at "
        f"random moments of {len({each.verb for each in found})} verbs that write, seed {number}",
        value=f"{len(found) - len(faulty)} left nothing: no orphan, nothing half-written, the same command worked and "
        f"cleared the rest away; {sum(not each.done for each in found)} struck before the end; SIGTERM and SIGINT "
        f"ended within {max(ends, default=0.0):.1f} s"
        + (f"; faults: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}" if faulty else ""),
        bar="all of them",
        met=not faulty and bool(found),
    )


def _named(verbs: Sequence[str]) -> list[Job]:
    return [job for job in JOBS if not verbs or job.verb in verbs]


def _told(kill: Kill) -> None:
    state = "after its end" if kill.done else f"at {kill.after:.1f} s, ended in {kill.ended:.1f} s with {kill.code}"
    print(f"{kill.verb} {kill.signal} {state}" + "".join(f"\n    {each}" for each in kill.faults), file=sys.stderr)
    sys.stderr.flush()


ROWS: Rows = {"kills": kills}


def main() -> int:
    """Run a campaign of its own length, and print its table."""
    parser = argparse.ArgumentParser(description="Kill every verb that writes at random moments.")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--verb", choices=[job.verb for job in JOBS], action="append", help="only this one, repeatedly")
    names = [each.name for each in SIGNALS]
    parser.add_argument("--signal", choices=names, action="append", help="only this one (may be repeated)")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder with a short path")
    given = parser.parse_args()
    with interrupts.handled():
        blows = tuple(signal.Signals[name] for name in given.signal or names)
        found = campaign(given.folder, given.kills, given.seed, _told, _named(given.verb or ()), blows)
    made = row(found, given.seed)
    print(table(found))
    print(f"{'met ' if made.met else 'MISS'}  {made.claim}: {made.value} (bar {made.bar})")
    return 0 if made.met else 1


if __name__ == "__main__":
    raise SystemExit(main())
