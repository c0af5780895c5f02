"""Hostile requests of every family beside honest ones: what the honest lose, and what gets through.

The attack is on and off by turns, so that latencies with and without it are of the same minutes.
"""

import json
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.attack_honest import Asked, honest
from scripts.benchmarks.attack_senders import TARGET, outcomes, scheduled
from scripts.benchmarks.attack_world import HIDDEN, IDENTICAL, NAME, STABLE, Health, World, settled, up
from scripts.benchmarks.hostile import Hostile, made
from scripts.benchmarks.hostile_verdict import breaches, kind, unlogged
from scripts.benchmarks.hostile_wire import Outcome
from scripts.benchmarks.rows import Row
from seatrial.serve.traffic.routes import Routes

RATE = 50.0  # honest requests a second
WINDOW = 10.0  # seconds that the attack is on, and then off
_AFTER = 1.5  # seconds of an off window that still feel the attack, and are left out
_SHARE = 0.3  # of the identical candidate
_SLOWER = 0.20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Duration, number and seed of the attacks; `keep` is a folder for those that got through."""

    seconds: float = 600.0
    requests: int = 0
    rollouts: int = 20
    seed: int = 0
    keep: Path | None = None

    @property
    def attacks(self) -> int:
        """Attacks of the honest row: 2,000 in ten minutes unless named."""
        return self.requests or max(100, round(2000 * self.seconds / 600))

    def drawn(self) -> int:
        """Return the seed, or a fresh one."""
        return self.seed or secrets.randbelow(2**31)


@dataclass(slots=True)
class Found:
    """Results of one run of the honest row."""

    lost: list[Asked] = field(default_factory=list)
    in_flight: int = 0
    astray: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def beside_honest(folder: Path, options: Options) -> Row:
    """Measure hostile requests of all families beside honest callers."""
    seed = options.drawn()
    say(f"honest: seed {seed}, {options.attacks} attacks in {options.seconds:.0f} s beside {RATE:.0f} honest a second")
    windows = cut(options.seconds)
    path, attacks = folder / "honest.jsonl", list(made(seed, options.attacks, TARGET))
    with up(folder, (STABLE, IDENTICAL, HIDDEN)) as world:
        settled(world)
        world.route(Routes(model=NAME, stable=STABLE, candidate=IDENTICAL, share=_SHARE))
        with honest(world.port, rate=RATE, path=path, seconds=options.seconds + 60) as callers:
            time.sleep(2.0)
            began = time.time()
            dues = spread([(began + a, began + b) for a, b in windows[1::2]], attacks)
            with scheduled(world.port, seed, dues, folder / "attacks.jsonl"):
                _wait(world, folder, began + options.seconds)
        time.sleep(1.0)  # until the access log is written
        asked, done = callers.asked(), outcomes(folder / "attacks.jsonl")
        found = _found(world, asked, attacks, done)
        logged = world.logged()
    found.astray += [
        f"honest {each.id} answered by {each.said}, the log says {logged.get(each.id, 'nothing')}"
        for each in asked
        if each.status == 200 and logged.get(each.id) != each.said
    ]
    found.astray += [text for each in done for text in unlogged(each, logged)]
    found.broken += [f"the attack reached {each}" for each in world.reached()]
    _report(found, attacks, done, options, seed)
    _memory(world.health)
    return _row(found, asked, [(began + a, began + b) for a, b in windows], attacks, done, world.health)


def cut(seconds: float, length: float = WINDOW) -> list[tuple[float, float]]:
    """Cut the time into windows, without the attack and with it by turns, as many of each."""
    pairs = max(1, round(seconds / (2 * length)))
    each = seconds / (2 * pairs)
    return [(number * each, (number + 1) * each) for number in range(2 * pairs)]


def spread(windows: Sequence[tuple[float, float]], attacks: Sequence[Hostile]) -> list[float]:
    """Return a moment for each attack, evenly over the windows; those that last begin a window, not end it."""
    total = sum(end - begin for begin, end in windows)
    found, at, step = list[float](), 0.0, total / len(attacks)
    for attack in attacks:
        left = at
        for begin, end in windows:
            if left < end - begin:
                found.append(min(begin + left, max(begin, end - attack.seconds - 1.0)))
                break
            left -= end - begin
        else:
            found.append(windows[-1][1] - 0.1)
        at += step
    return found


def _wait(world: World, folder: Path, until: float) -> None:
    """Wait for the end, with a word every half minute."""
    told = time.time()
    while (left := until - time.time()) > 0:
        time.sleep(min(left, 1.0))
        if time.time() - told >= 30.0:
            told = time.time()
            counts = Counter(kind(each) for each in outcomes(folder / "attacks.jsonl"))
            deaths = Counter(name for name, _, _ in world.health.deaths)
            say(f"  {until - told:.0f} s left, attacks {dict(counts)}, deaths {dict(deaths)}")


def _found(world: World, asked: Sequence[Asked], attacks: Sequence[Hostile], done: Sequence[Outcome]) -> Found:
    found = Found()
    for each in asked:
        if each.status == 200:
            continue
        if each.status == -1:
            found.astray.append(f"honest: {each.why}")
        elif any(each.due <= died and each.ended >= alive - 0.1 for _, alive, died in world.health.deaths):
            found.in_flight += 1
        else:
            found.lost.append(each)
    routed = frozenset((str(STABLE), str(IDENTICAL)))
    for outcome in done:
        attack = attacks[outcome.number]
        for text in breaches(attack, outcome, TARGET, routed):
            found.broken.append(f"{attack.family}/{attack.kind} number {outcome.number}: {text}")
    return found


def _report(found: Found, attacks: Sequence[Hostile], done: Sequence[Outcome], options: Options, seed: int) -> None:
    """Say what got through, and keep the attacks themselves."""
    table: dict[str, Counter[str]] = {}
    for outcome in done:
        attack = attacks[outcome.number]
        table.setdefault(f"{attack.family}/{attack.kind}", Counter())[kind(outcome)] += 1
    for name, counts in sorted(table.items()):
        say(f"  {name:24s} " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
    for text in [*found.broken[:60], *found.astray[:20]]:
        say(f"  GOT THROUGH (seed {seed}): {text}")
    for each in found.lost[:10]:
        say(f"  LOST: {each.protocol} {each.status} after {each.seconds:.2f} s: {each.why}")
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        numbers = {int(text.split("number ")[1].split(":")[0]) for text in found.broken if "number " in text}
        for number in sorted(numbers):
            (options.keep / f"{seed}-{number}.json").write_text(json.dumps(attacks[number].to_json()))


def _memory(health: Health) -> None:
    if health.memory:
        sizes = [size >> 20 for _, size in health.memory]
        say(f"  Envoy's memory {sizes[0]} MB at the beginning, {max(sizes)} MB at most, {sizes[-1]} MB at the end")


def _row(
    found: Found,
    asked: Sequence[Asked],
    windows: Sequence[tuple[float, float]],
    attacks: Sequence[Hostile],
    done: Sequence[Outcome],
    health: Health,
) -> Row:
    without, attacked, low, high = tails(asked, windows)
    ratio = attacked / without - 1 if without else float("inf")
    kinds = Counter(kind(each) for each in done)
    deaths = {name: health.count(name) for name in ("triton", "envoy")}
    met = not found.lost and not found.astray and not found.broken and ratio <= _SLOWER and not any(deaths.values())
    return Row(
        name="honest",
        claim=f"{len(done)} of {len(attacks)} hostile requests beside {len(asked)} honest ones at {RATE:.0f} a second, "
        f"keys on: {', '.join(f'{number} {word}' for word, number in kinds.most_common())}",
        value=f"{len(found.lost)} honest lost, {found.in_flight} in flight at a kill; p99 "
        f"{1e3 * without:.1f} ms without, {1e3 * attacked:.1f} ms with the attack, {ratio:+.0%} ({low:+.0%} to "
        f"{high:+.0%}); {len(found.astray)} answers astray or by a version that header or log do not name; "
        f"{len(found.broken)} attacks got through; Triton died {deaths['triton']} times, Envoy {deaths['envoy']}",
        bar="0 lost, p99 +20 % at most, 0 astray, 0 through",
        met=met and len(done) >= 0.95 * len(attacks),
    )


def tails(asked: Sequence[Asked], windows: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return p99 without and with the attack, and a 90 % interval of what it grows by, over pairs of windows."""
    sides: list[list[list[float]]] = [[], []]
    for number, (begin, end) in enumerate(windows):
        skip = _AFTER if number and not number % 2 else 0.0
        inside = [each.seconds for each in asked if begin + skip <= each.due < end and each.status == 200]
        sides[number % 2].append(inside)
    draws, drawing, count = list[float](), random.Random(1), len(sides[0])
    for _ in range(400):
        chosen = [drawing.randrange(count) for _ in range(count)]
        one, other = (p99([value for pick in chosen for value in side[pick]]) for side in sides)
        draws.append(other / one - 1 if one else 0.0)
    draws.sort()
    without, attacked = (p99([value for each in side for value in each]) for side in sides)
    return without, attacked, draws[20], draws[-21]


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile, 0 of nothing."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))] if values else 0.0


def say(text: str) -> None:
    """Print progress beside the rows."""
    print(text, file=sys.stderr, flush=True)
