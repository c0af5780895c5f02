"""Attackers in a process of their own: attacks at given moments, or attacks steered to one version for a while.

What came of each is written down line by line. Everything is bounded: by its list, or by its seconds.
"""

import contextlib
import http.client
import json
import multiprocessing
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from scripts.benchmarks.attack_world import ATTACKERS, HIDDEN, KEYS, NAME, OTHER
from scripts.benchmarks.hostile import Hostile, Maker, Target, body, grammar, infer_path, made, request
from scripts.benchmarks.hostile_grpc import call, framed, message
from scripts.benchmarks.hostile_wire import Outcome, perform

TARGET = Target(model=NAME, other=OTHER, hidden=HIDDEN, key=KEYS[ATTACKERS[0]], honest="alice")
_THREADS = 24
_PROBES = 24  # requests by which an attacker looks for ids on the version that it wants
Aim = Literal["candidate", "stable"]


@contextlib.contextmanager
def scheduled(port: int, seed: int, dues: Sequence[float], path: Path) -> Iterator[None]:
    """Send the attacks of the seed, each at its moment, beside the block; ended after it at the latest."""
    with _process(_scheduled, port, seed, list(dues), str(path)):
        yield


@contextlib.contextmanager
def steered(port: int, aim: int, rate: float, seed: int, path: Path, kinds: str = "all") -> Iterator[None]:
    """Attack the version `aim` as long as the block lasts, `rate` times a second; `kinds` as `steered_kinds` says."""
    with _process(_steered, port, aim, rate, seed, str(path), kinds):
        yield


def outcomes(path: Path) -> list[Outcome]:
    """Return what was written down so far."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [Outcome.from_json(json.loads(line)) for line in lines if line.endswith("\n")]


@contextlib.contextmanager
def _process(work: Any, *arguments: Any) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    process = context.Process(target=work, args=(*arguments, over))
    process.start()
    try:
        yield
    finally:
        over.set()
        process.join(40.0)
        if process.is_alive():
            process.kill()
            process.join()


def _scheduled(port: int, seed: int, dues: Sequence[float], path: str, over: Any) -> None:
    waiting: queue.Queue[tuple[float, int, Hostile] | None] = queue.Queue(maxsize=64)
    write = _writer(path)

    def work() -> None:
        while (item := waiting.get()) is not None:
            due, number, attack = item
            over.wait(max(0.0, due - time.time()))
            if not over.is_set():
                write(perform(attack, port, number=number))

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for number, (due, attack) in enumerate(zip(dues, made(seed, len(dues), TARGET), strict=True)):
        waiting.put((due, number, attack))
    for _ in threads:
        waiting.put(None)
    for thread in threads:
        thread.join()


def _writer(path: str) -> Callable[[Outcome], None]:
    """Return a function that appends a line for each outcome, from any thread."""
    lock = threading.Lock()

    def write(outcome: Outcome) -> None:
        with lock, Path(path).open("a") as stream:
            stream.write(json.dumps(outcome.to_json()) + "\n")

    return write


def steered_kinds(kinds: str) -> Sequence[Maker]:
    """Return the makers of an attack that is steered.

    ``empty``: the body ``{}``. ``header``: 20 kB of headers. ``keyless``: no key. ``heavy``: errors and large batches.
    ``disguised``: batches of an honest request's form and size. ``all``: these, all of JSON, binary and gRPC, and
    inputs without a clear class.
    """
    own: dict[str, Sequence[Maker]] = {
        "empty": (_empty,),
        "header": (_padded,),
        "keyless": (_keyless,),
        "heavy": (_heavy, _heavy, _empty, _padded, _short, _heavy_grpc),
        "disguised": (_disguised, _disguised_binary),
    }
    if kinds in own:
        return own[kinds]
    families = grammar()
    chosen = [*own["heavy"], *own["disguised"], _padded, _keyless, _undecided, _undecided, _undecided_grpc]
    deep = [each for each in families["json"] if each.__name__.startswith("deep")]
    return (*chosen, *deep, *families["json"], *families["binary"], *families["grpc"], *families["headers"])


def _steered(port: int, aim: int, rate: float, seed: int, path: str, kinds: str, over: Any) -> None:
    drawing, write = random.Random(seed), _writer(path)
    found: dict[str, list[str]] = {name: [] for name in ATTACKERS}
    makers = steered_kinds(kinds)
    free = threading.BoundedSemaphore(_THREADS)
    number, looked = 0, 0.0

    def work(attack: Hostile, at: int) -> None:
        try:
            write(perform(attack, port, number=at, longest=6.0))
        finally:
            free.release()

    while not over.wait(drawing.expovariate(rate)):
        if time.monotonic() - looked > (10.0 if any(found.values()) else 2.0):
            looked = time.monotonic()
            found = {name: _ids(port, aim, name, drawing) for name in ATTACKERS}
        name = drawing.choice(ATTACKERS)
        user = drawing.choice(found[name]) if found[name] else "anybody"
        attack = drawing.choice(makers)(drawing, replace(TARGET, key=KEYS[name], user=user))
        if free.acquire(timeout=1.0):
            threading.Thread(target=work, args=(attack, number), daemon=True).start()
            number += 1
    until = time.monotonic() + 15.0
    for _ in range(_THREADS):
        free.acquire(timeout=max(0.0, until - time.monotonic()))


def _ids(port: int, aim: int, client: str, drawing: random.Random) -> list[str]:
    """Return users whom the edge sends to that version now."""
    found: list[str] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    for _ in range(_PROBES):
        user = f"evil{drawing.randrange(10**9)}"
        content = json.dumps({"inputs": [_plain(drawing)]})
        headers = {"x-api-key": KEYS[client], "x-user-id": user, "content-type": "application/json"}
        try:
            connection.request("POST", infer_path(TARGET), content, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            break
        if answer.headers.get("x-model-version") == str(aim):
            found.append(user)
        if len(found) >= 6:
            break
    connection.close()
    return found


def _plain(drawing: random.Random) -> dict[str, Any]:
    data = [round(drawing.random(), 3) for _ in range(TARGET.width)]
    return {"name": "x", "datatype": "FP32", "shape": [1, TARGET.width], "data": data}


def _steer(kind: str, *program: bytes | float, **more: Any) -> Hostile:
    return Hostile(family="steered", kind=kind, program=program, **more)


def _empty(drawing: random.Random, target: Target) -> Hostile:
    """The body ``{}``, to which Triton answers 500."""
    return _steer("empty", request(target, b"{}"))


def _short(drawing: random.Random, target: Target) -> Hostile:
    """Too little data, to which Triton answers an error."""
    return _steer("short", request(target, body(target, drawing, data=[0.0])))


def _padded(drawing: random.Random, target: Target) -> Hostile:
    """20 kB of headers, at which Triton resets the connection."""
    return _steer("header", request(target, body(target, drawing), headers=[("x-pad", "a" * 20_000)]), ends=False)


def _keyless(drawing: random.Random, target: Target) -> Hostile:
    """A wrong key, which is refused with 401."""
    return _steer("key", request(replace(target, key="wrong"), body(target, drawing)), most="refused")


def _heavy(drawing: random.Random, target: Target) -> Hostile:
    """The largest batch that is allowed."""
    rows = [round(drawing.random(), 3) for _ in range(16 * target.width)]
    content = body(target, drawing, shape=[16, target.width], data=rows)
    return _steer("batch", request(target, content))


def _heavy_grpc(drawing: random.Random, target: Target) -> Hostile:
    """The same over gRPC."""
    return call(target, "batch", framed(message(target, rows=16)))


def _disguised(drawing: random.Random, target: Target) -> Hostile:
    """Seven rows in as many bytes as an honest request of one."""
    content = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[7,4],"data":[%s]}]}' % b",".join([b"1"] * 28)
    return _steer("disguised", request(target, content))


def _disguised_binary(drawing: random.Random, target: Target) -> Hostile:
    """Nine rows in as many bytes as an honest request of one with binary tensors."""
    shape = b'"shape":[9,4],"parameters":{"binary_data_size":144}'
    text = b'{"inputs":[{"name":"x","datatype":"FP32",' + shape + b"}]}"
    headers = [("Inference-Header-Content-Length", str(len(text)))]
    return _steer("disguised", request(target, text + b"\x00" * 144, headers=headers))


def _undecided(drawing: random.Random, target: Target) -> Hostile:
    """An input whose outputs are all alike, so that the noise of a version decides its class."""
    return _steer("undecided", request(target, body(target, drawing, data=[0.25] * target.width)))


def _undecided_grpc(drawing: random.Random, target: Target) -> Hostile:
    """The same over gRPC; its input begins with the mark."""
    return call(target, "undecided", framed(message(target)))
