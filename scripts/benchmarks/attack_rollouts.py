"""Rollouts under attack: callers who choose their version try to have a good one rolled back, or to hide a bad one.

Honest callers ask all the time; the attackers look for ids that the edge sends to the version they want, and send it
what it cannot answer well. Candidates: one that is identical, one that fails 2 % of its requests, one that is
20 % slower.
"""

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.benchmarks.attack_edge import Options, say
from scripts.benchmarks.attack_honest import Honest, honest
from scripts.benchmarks.attack_senders import outcomes, steered
from scripts.benchmarks.attack_world import FAILING, IDENTICAL, NAME, SLOWER, STABLE, World, settled, up, verb
from scripts.benchmarks.hostile_verdict import kind
from scripts.benchmarks.rows import Row, Rows
from seatrial.optimize.environment import home
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.traffic.envoy.router import EnvoyRouter
from seatrial.serve.traffic.rollout.machine import Phase
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.triton.supervision.switch import forgive

RATE = 100.0  # honest requests a second
ATTACK = 8.0  # hostile ones
LONGEST = 150.0  # seconds that a rollout may take before it is aborted and counts as undecided
PLAN = """
schema = 1
load = 30.0
warmup = 1.0
drain = 0.5
interval = 0.5
block = 1.0
server_restarts = 1

[shadow]
mirror = 0.5
dwell = 60.0
compared_at_least = 0.5

[shadow.outputs.y]
top1_at_least = 0.9
alpha = 0.05

[shadow.outputs.v]
alpha = 0.01

[[steps]]
share = 0.5
requests = 2000
needs = "requests"
dwell = 120.0

[[steps]]
share = 1.0
requests = 300
needs = "requests"
dwell = 60.0
"""
ATTACKS = {
    "unattacked": ("", 0),
    "steered to the candidate": ("all", 1),
    "steered to the stable version": ("all", 0),
    "heavy requests steered to the candidate": ("disguised", 1),
    "failures steered to the stable version": ("heavy", 0),
    "heavy requests steered to the stable version": ("disguised", 0),
}
"""By name, the kinds of attack and whether they go to the candidate."""
_WORDS = ("errors", "mean latency", "exceed the baseline's p95", "exceed the baseline's p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One rollout: how it ended, why, after how long, and what became of honest and hostile requests meanwhile."""

    phase: str
    reason: str
    seconds: float
    honest: int
    lost: int
    attacks: Counter[str]

    @property
    def by_evidence(self) -> bool:
        """Return whether it was rolled back for what live traffic showed of it."""
        return self.phase == Phase.ROLLED_BACK and any(word in self.reason for word in _WORDS)


def identical(folder: Path, options: Options) -> Row:
    """Roll out an identical candidate while attackers steer to either version."""
    names = (
        "steered to the candidate",
        "steered to the stable version",
        "heavy requests steered to the candidate",
    )
    found = _campaign(folder, options, [(IDENTICAL, name) for name in names])
    rolled = {name: _count(ends, Phase.ROLLED_BACK) for (_, name), ends in found.items()}
    reasons = Counter(each.reason[:90] for ends in found.values() for each in ends if each.phase == Phase.ROLLED_BACK)
    why = f" ({'; '.join(f'{number} x {text}' for text, number in reasons.most_common(4))})" if reasons else ""
    ended = {name: Counter(each.phase for each in ends) for (_, name), ends in found.items()}
    return Row(
        name="steered",
        claim=f"{options.rollouts} rollouts of an identical candidate for each attack of {ATTACK:.0f} a second, beside "
        f"{RATE:.0f} honest requests a second",
        value="; ".join(f"{name}: {rolled[name]} rolled back of {_spelled(ended[name])}" for name in rolled)
        + why
        + _lost(found),
        bar="0 rolled back",
        met=not any(rolled.values()) and all(ends["promoted"] for ends in ended.values()),
    )


def bad(folder: Path, options: Options) -> Row:
    """Roll out candidates that are worse, attacked and not."""
    names = ("unattacked", "steered to the candidate", "failures steered to the stable version")
    candidates = {FAILING: "2 % errors", SLOWER: "+20 % latency"}
    kinds = [(candidate, name) for candidate in candidates for name in names]
    kinds.append((SLOWER, "heavy requests steered to the stable version"))
    found = _campaign(folder, options, kinds)
    parts = []
    for (candidate, name), ends in found.items():
        back = [each for each in ends if each.phase == Phase.ROLLED_BACK]
        evident = sum(each.by_evidence for each in back)
        took = f", median {statistics.median(each.seconds for each in back):.0f} s" if back else ""
        other = Counter(each.reason[:60] for each in back if not each.by_evidence)
        told = f", {len(back) - evident} for another reason ({other.most_common(1)[0][0]})" if other else ""
        parts.append(f"{candidates[candidate]} {name}: {len(back)} of {len(ends)}{took}{told}")
    return Row(
        name="bad-candidates",
        claim=f"{options.rollouts} rollouts of each worse candidate, beside {RATE:.0f} honest requests a second, "
        f"attacks {ATTACK:.0f} a second",
        value="; ".join(parts) + _lost(found),
        bar="every one rolled back",
        met=all(_count(ends, Phase.ROLLED_BACK) == len(ends) == options.rollouts for ends in found.values()),
    )


Found = dict[tuple[int, str], list[Ended]]


def _campaign(folder: Path, options: Options, kinds: Sequence[tuple[int, str]]) -> Found:
    """Roll out each kind as often as the options say, the kinds by turns."""
    (folder / "plan.toml").write_text(PLAN)
    seed, found = options.drawn(), Found()
    say(f"rollouts: seed {seed}")
    with up(folder) as world:
        for number in range(options.rollouts):
            for candidate, name in kinds:
                ended = rolled_out(world, candidate, name, seed + number)
                found.setdefault((candidate, name), []).append(ended)
                say(
                    f"  {number + 1}. version {candidate} {name}: {ended.phase} after {ended.seconds:.0f} s: "
                    f"{ended.reason[:160]}; honest {ended.lost} of {ended.honest} lost; {dict(ended.attacks)}"
                )
    return found


def rolled_out(world: World, candidate: int, attack: str, seed: int, *, kinds: str = "", rate: float = ATTACK) -> Ended:
    """Carry out one rollout from version 1 to the candidate, under an attack of `ATTACKS`, or of `kinds` alone."""
    reset(world)
    chosen, to_candidate = ATTACKS[attack]
    paths = [world.folder / f"{name}-{time.monotonic_ns()}.jsonl" for name in ("honest", "attacks")]
    with honest(world.port, rate=RATE, path=paths[0], seconds=LONGEST + 30) as callers:
        aim = candidate if to_candidate else STABLE
        with _attacking(world, aim, rate, seed, paths[1], kinds or chosen):
            time.sleep(1.0)
            began = time.time()
            phase, reason = moved(world, candidate)
            seconds = time.time() - began
    return _ended(phase, reason, seconds, callers, paths[1])


def reset(world: World) -> None:
    """Bring everything back to version 1 alone, and lift what was blocked."""
    until = time.monotonic() + 90.0
    while True:
        try:
            settled(world, most=30.0)
            routes = EnvoyRouter(world.proxy).current(NAME)
            if routes != Routes(model=NAME, stable=STABLE):
                world.serve(*sorted({STABLE, *(routes.versions if routes else ())}))
                world.route(Routes(model=NAME, stable=STABLE))
            world.serve(STABLE)
            break
        except SeatrialError as error:
            if time.monotonic() > until:
                raise
            say(f"  not yet as it was: {error.what[:120]}")
            time.sleep(2.0)
    records = Records(home() / "rollouts", NAME)
    for digest in records.blocked():
        records.lift(digest)
    forgive(world.server.repository, NAME)


def moved(world: World, candidate: int) -> tuple[str, str]:
    """Start the rollout by its verb and let it end; one that does not is aborted."""
    plan = str(world.folder / "plan.toml")
    records = Records(home() / "rollouts", NAME)
    before = records.load().started if records.exists() else 0.0
    with verb("rollout", "start", NAME, "--candidate", str(candidate), "--plan", plan) as process:
        _ends(process.poll, LONGEST)
    rollout = records.load() if records.exists() else None
    if rollout is None or rollout.started == before:
        return "not started", "the verb refused it; see verbs.log"
    if not rollout.ended:
        reason = f"undecided at {rollout.label}: {rollout.reason}"
        with verb("rollout", "abort", NAME) as process:
            _ends(process.poll, 20.0)
        with verb("rollout", "run", NAME) as process:
            _ends(process.poll, 40.0)
        return "undecided", reason
    return str(rollout.phase), rollout.reason


def _ends(poll: Callable[[], int | None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while poll() is None and time.monotonic() < until:
        time.sleep(0.1)


@contextlib.contextmanager
def _attacking(world: World, aim: int, rate: float, seed: int, path: Path, kinds: str) -> Iterator[None]:
    if not kinds:
        yield
        return
    with steered(world.port, aim, rate, seed, path, kinds):
        yield


def _ended(phase: str, reason: str, seconds: float, callers: Honest, attacks: Path) -> Ended:
    asked = callers.asked()
    return Ended(
        phase=phase,
        reason=reason,
        seconds=seconds,
        honest=len(asked),
        lost=sum(each.status != 200 for each in asked),
        attacks=Counter(kind(each) for each in outcomes(attacks)),
    )


def _count(ends: Sequence[Ended], phase: Phase) -> int:
    return sum(each.phase == phase for each in ends)


def _spelled(ended: Counter[str]) -> str:
    return f"{ended.total()} ({', '.join(f'{number} {phase}' for phase, number in ended.items())})"


def _lost(found: Found) -> str:
    lost = {name: sum(each.lost for each in ends) for (_, name), ends in found.items()}
    asked = sum(each.honest for ends in found.values() for each in ends)
    return f"; honest failures {json.dumps(lost)} of {asked}"


def rows(options: Options) -> Rows:
    """Return the rows of this file."""
    return {"steered": partial(identical, options=options), "bad-candidates": partial(bad, options=options)}
