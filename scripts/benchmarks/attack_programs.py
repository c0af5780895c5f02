"""Each attack program that has ever got through, as a check that passes or fails by itself; together one row.

A check returns what got through, empty for nothing, and a note with its figures. They share one world, from the
harmless to those that once killed the server.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil

from scripts.benchmarks.attack_edge import Options, p99, say
from scripts.benchmarks.attack_honest import honest
from scripts.benchmarks.attack_rollouts import PLAN, reset, rolled_out
from scripts.benchmarks.attack_senders import TARGET
from scripts.benchmarks.attack_tokens import tokens
from scripts.benchmarks.attack_world import HIDDEN, IDENTICAL, NAME, OTHER, STABLE, World, edge_of, settled, up
from scripts.benchmarks.hostile import Hostile, request
from scripts.benchmarks.hostile_bodies import BODIES
from scripts.benchmarks.hostile_calls import CLOSED
from scripts.benchmarks.hostile_grpc import call, field, framed, message, tensors, varint
from scripts.benchmarks.hostile_verdict import breaches, kind
from scripts.benchmarks.hostile_wire import Outcome, perform
from scripts.benchmarks.rows import Row, Rows
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.traffic.envoy import on_envoy
from seatrial.serve.traffic.rollout.machine import Phase

Verdict = tuple[str, str]
"""Requests that got through, and a note."""
Check = Callable[[World], Verdict]
_HONEST = 20.0  # requests a second beside a check
_MEMORY = 300 << 20  # bytes by which Envoy may grow for bodies that never end
_STALL = 1.0  # seconds that an honest caller may wait while another one sends what is large
_ROUTED = frozenset((str(STABLE),))


def programs(folder: Path, options: Options) -> Row:
    """Run every check, each in a world that has healed from the one before."""
    (folder / "plan.toml").write_text(PLAN)
    table: dict[str, Verdict] = {}
    with up(folder, (STABLE, IDENTICAL, HIDDEN)) as world:
        for name, check in CHECKS.items():
            settled(world, most=90.0)
            before = len(world.health.deaths)
            try:
                through, note = check(world)
            except (SeatrialError, OSError, TypeError) as error:
                through, note = f"not checked: {error!r}"[:200], ""
            time.sleep(0.5)
            deaths = Counter(name for name, _, _ in world.health.deaths[before:])
            died = ", ".join(f"{name} died {count} times" for name, count in deaths.items())
            through = "; ".join(part for part in (through, died) if part)
            table[name] = through, note
            told = f"{through} ({note})" if through and note else through or note
            say(f"  {'held ' if not through else 'FAILS'}  {name}: {told}")
        reached = world.reached()
    failing = [f"{name}: {through}" for name, (through, _) in table.items() if through]
    return Row(
        name="programs",
        claim=f"{len(table)} attack programs: {', '.join(table)}",
        value=f"{len(table) - len(failing)} of {len(table)} held; "
        + ("; ".join(failing) or "; ".join(f"{name}: {note}" for name, (_, note) in table.items() if note))
        + (f"; reached {', '.join(reached)}" if reached else ""),
        bar="all refused or harmless",
        met=not failing and not reached,
    )


def pinned(world: World) -> Verdict:
    """Fields that swallow an appended pin, around every legal field and unknown ones."""
    size = len(field(1, NAME.encode()) + field(2, b"1"))
    open_ = {f"field {number}": varint(number << 3 | 2) + varint(size) for number in (3, 4, 5, 6, 7, 8, 200, 2**28)}
    attacks = []
    for name, tail in open_.items():
        for version in (str(HIDDEN), "2", "9"):
            attacks.append(call(TARGET, f"{name} version {version}", framed(message(TARGET, version=version) + tail)))
        renamed = field(1, NAME.encode()) + field(1, OTHER.encode()) + field(2, b"1") + tensors(TARGET) + tail
        attacks.append(call(TARGET, f"{name} model", framed(renamed)))
        about = field(1, NAME.encode()) + field(1, OTHER.encode()) + field(2, b"1") + tail
        attacks += [
            call(TARGET, f"{name} {method}", framed(about), method=method) for method in ("ModelMetadata", "ModelReady")
        ]
    return _performed(world, attacks)


def methods(world: World) -> Verdict:
    """Methods that change or reveal the server."""
    contents = (b"", field(1, NAME.encode()))
    return _performed(
        world, [call(TARGET, each, framed(c), method=each, most="refused") for each in CLOSED for c in contents]
    )


def streams(world: World) -> Verdict:
    """The streaming method with ``triton_grpc_error``, and the unary one with it."""
    more = [("triton_grpc_error", "true")]
    bad = framed(
        field(1, NAME.encode()) + field(5, field(1, b"x") + field(2, b"FP32") + field(3, varint(1) + varint(9)))
    )
    attacks = [
        call(TARGET, "stream", bad * 3, method="ModelStreamInfer", more=more, most="refused") for _ in range(5)
    ] + [call(TARGET, "unary", bad, more=more) for _ in range(3)]
    return _performed(world, attacks)


def timeouts(world: World) -> Verdict:
    """Malformed timeouts over gRPC, beside honest callers on the same upstream connection."""
    values = ("abc", "-1S", "0n", "1", "1.5S", "S", "999999999S", "1S1S", "", "1s", "١S")
    attacks = [
        call(TARGET, f"timeout {value!r}", framed(message(TARGET)), more=[("grpc-timeout", value)]) for value in values
    ]
    return _performed(world, attacks * 2, seconds=8.0)


def bodies(world: World) -> Verdict:
    """The list of malformed bodies."""
    attacks = [
        Hostile(family="bodies", kind=name, program=(request(TARGET, content),)) for name, content in BODIES.items()
    ]
    return _performed(world, attacks)


def deep(world: World) -> Verdict:
    """JSON nested 40,000 deep, six times, over both kinds of bracket, beside honest callers."""
    kinds = (b"[", b'{"a":')
    contents = [
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":' + each * 40_000 + b"0" + end * 40_000 + b"}]}"
        for each, end in zip(kinds, (b"]", b"}"), strict=True)
    ] * 3
    attacks = [Hostile(family="deep", kind="40,000", program=(request(TARGET, content),)) for content in contents]
    return _performed(world, attacks, seconds=15.0)


def bulky(world: World) -> Verdict:
    """Bodies of 1, 4, 16 and 60 MB of small numbers, one after the other, and what an honest caller waits meanwhile."""
    attacks = []
    for size in (1 << 20, 4 << 20, 16 << 20, 60 << 20):
        head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,%d],"data":[' % (size // 2)
        content = head + b"0," * (size // 2 - 1) + b"0]}]}"
        attacks.append(Hostile(family="bulky", kind=f"{size >> 20} MB", program=(request(TARGET, content),)))
    return _performed(world, attacks, most=_STALL)


def slow(world: World) -> Verdict:
    """80 connections of one key whose bodies come byte by byte, beside honest callers."""
    head = request(TARGET, b"", headers=[("Content-Length", "4096")], sized=False)
    with _beside(world, 40.0) as told:
        connections = [_opened(world.port, head) for _ in range(80)]
        for _ in range(20):
            for connection in connections:
                with suppress(OSError):
                    connection.send(b" ")
            time.sleep(1.0)
        for connection in connections:
            connection.close()
        time.sleep(10.0)
    return told[0], told[1]


def unfinished(world: World) -> Verdict:
    """60 bodies of 16 MB that lack their last byte, beside honest callers; and what Envoy needs for them."""
    size = 16 << 20
    head = request(TARGET, b"", headers=[("Content-Length", str(size))], sized=False)
    process = psutil.Process(world.proxy.pid)
    with suppress(psutil.Error):
        process = psutil.Process((on_envoy.status(world.proxy.edge.name) or world.proxy).pid)
    before = most = process.memory_info().rss

    def fill(number: int) -> socket.socket:
        connection = _opened(world.port, head)
        connection.settimeout(2.0)
        with suppress(OSError):
            connection.sendall(b" " * (size - 1))
        return connection

    with _beside(world, 30.0) as told, ThreadPoolExecutor(4) as pool:
        connections = []
        for connection in pool.map(fill, range(60)):
            connections.append(connection)
            with suppress(psutil.Error):
                most = max(most, process.memory_info().rss)
        time.sleep(3.0)
        for connection in connections:
            connection.close()
    grown = most - before
    through = f"Envoy grew by {grown >> 20} MB" if grown > _MEMORY else ""
    return "; ".join(part for part in (told[0], through) if part), f"Envoy grew by {grown >> 20} MB; {told[1]}"


def ejected(world: World) -> Verdict:
    """Failures in a row and long headers of one client, on an edge that ejects after five failures."""
    edge = edge_of(world.folder, world.server, name="ejecting", ejection_failures=5)
    proxy = on_envoy.up(edge)
    attacks = [Hostile(family="eject", kind="empty", program=(request(TARGET, b"{}"),))] * 7
    padded = [("x-pad", "a" * 20_000)]
    content = BODIES["ok"]
    attacks += [
        Hostile(family="eject", kind="header", program=(request(TARGET, content, headers=padded),), ends=False)
    ] * 7
    try:
        with _beside(world, 15.0, port=proxy.port) as told:
            for _ in range(5):
                for attack in attacks:
                    perform(attack, proxy.port, longest=3.0)
                time.sleep(1.0)
    finally:
        on_envoy.down(edge.name, drain=0.0)
    return told[0], told[1]


def poisoned(kinds: str) -> Check:
    """Return the check that an identical candidate survives what is steered to it three times a second."""

    def check(world: World) -> Verdict:
        try:
            ended = rolled_out(world, IDENTICAL, "steered to the candidate", 7, kinds=kinds, rate=3.0)
        finally:
            reset(world)
            world.serve(STABLE, IDENTICAL, HIDDEN)
        note = f"{ended.phase} after {ended.seconds:.0f} s, {dict(ended.attacks)}"
        return ("" if ended.phase == Phase.PROMOTED else f"{ended.phase}: {ended.reason[:120]}"), note

    return check


CHECKS: dict[str, Check] = {
    "grpc_pin": pinned,
    "grpc methods": methods,
    "grpc stream errors": streams,
    "grpc timeouts": timeouts,
    "bodies": bodies,
    "bulky bodies": bulky,
    "jwt": tokens,
    "eject": ejected,
    "slow bodies": slow,
    "unfinished bodies": unfinished,
    "poison with {}": poisoned("empty"),
    "poison with headers": poisoned("header"),
    "poison without a key": poisoned("keyless"),
    "deep": deep,
}


def _performed(world: World, attacks: Sequence[Hostile], *, seconds: float = 3.0, most: float = 0.0) -> Verdict:
    """Carry them out one by one beside honest callers, who go on for `seconds` afterwards.

    None of the honest may wait longer than `most` seconds, where that is not 0.
    """
    found, counts = list[str](), Counter[str]()
    with _beside(world, 60.0, most=most) as told:
        for number, attack in enumerate(attacks):
            outcome: Outcome = perform(attack, world.port, number=number, longest=6.0)
            counts[kind(outcome)] += 1
            found += [f"{attack.kind}: {text}" for text in breaches(attack, outcome, TARGET, _ROUTED)]
        time.sleep(seconds)
    shown = "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    outcomes = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    return "; ".join(part for part in (shown, told[0]) if part), f"{outcomes}; {told[1]}"


@contextmanager
def _beside(world: World, seconds: float, *, port: int = 0, most: float = 0.0) -> Iterator[list[str]]:
    """Honest callers beside the block; afterwards the list holds what they lost, and a note."""
    told = ["", ""]
    path = world.folder / f"beside-{time.monotonic_ns()}.jsonl"
    with honest(port or world.port, rate=_HONEST, path=path, seconds=seconds) as callers:
        yield told
    asked = callers.asked()
    lost = [each for each in asked if each.status != 200]
    why = f": {lost[0].protocol} {lost[0].status} {lost[0].why[:80]}" if lost else ""
    told[0] = f"{len(lost)} of {len(asked)} honest requests lost{why}" if lost or not asked else ""
    waited = [each.seconds for each in asked]
    if most and max(waited, default=0.0) > most:
        told[0] += f"{'; ' if told[0] else ''}an honest caller waited {max(waited):.1f} s"
    told[1] = f"honest p99 {1e3 * p99(waited):.0f} ms, longest {1e3 * max(waited, default=0.0):.0f} ms of {len(waited)}"


def _opened(port: int, head: bytes) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(2.0)
    with suppress(OSError):
        connection.connect(("127.0.0.1", port))
        connection.sendall(head)
    return connection


def rows(options: Options) -> Rows:
    """Return the rows of this file."""
    return {"programs": partial(programs, options=options)}
