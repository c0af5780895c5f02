"""Planted faults: memory that leaks, and what only looks like it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scripts.benchmarks.faults import Fault
from seatrial.bench.gating.leaks import leak_finding
from seatrial.bench.gating.pairs import Slot, SlotRecord
from seatrial.bench.measurement import NOTHING
from seatrial.bench.measuring.growth import growth
from seatrial.bench.measuring.usage import Memory
from seatrial.bench.verdict import Finding

Floats = Any  # arrays of float64
Shape = Callable[[np.random.Generator, Floats, float], Floats]
MIB = float(1 << 20)
SLOTS = 6
LIMIT = 2 * MIB  # bytes per 1,000 requests


def _outcome(random: np.random.Generator, shape: Shape, rate: float) -> str:
    """Judge six slots of a shape that grows by `rate` bytes per 1,000 requests where it grows."""
    requests = np.linspace(0, random.uniform(2000, 20000), int(random.integers(100, 400)))
    noise = random.uniform(0.01, 0.3) * MIB
    shared = random.integers(1 << 31)  # slots of one model are alike: the same seed draws the same shape
    records = []
    for index in range(SLOTS):
        held = shape(np.random.default_rng(shared), requests, rate) + random.normal(0, noise, requests.size)
        found = growth(requests, 300 * MIB + held)
        memory = Memory(peak=1, last=1, growth=found or NOTHING)
        slot = Slot(index=2 * index, pair=index, arm="candidate", position=0, seed=0)
        records.append(SlotRecord(slot=slot, attempt=0, memory=memory))
    blank = Finding(metric="leak", unit="B/1k", rule="at_most", gating=True, outcome="INVALID", reason="", margin=LIMIT)
    finding = leak_finding(blank, [], records, 0.05)
    return "FAIL" if (finding.p or 0.0) <= 0.01 and finding.outcome != "PASS" else finding.outcome


def _linear(_: np.random.Generator, x: Floats, rate: float) -> Floats:
    return rate * x / 1000


def _steps(random: np.random.Generator, x: Floats, rate: float) -> Floats:
    """A staircase of three steps or more."""
    every = x[-1] / random.uniform(3, 12)
    jump = rate * every / 1000
    return np.floor((x + random.uniform(0, every)) / every) * jump


def _late(random: np.random.Generator, x: Floats, rate: float) -> Floats:
    begin = random.uniform(0.2, 0.8) * x[-1]
    return rate * np.maximum(0.0, x - begin) / 1000


def _sawtooth(random: np.random.Generator, x: Floats, rate: float) -> Floats:
    """A collector that takes most of it back, but not all: the floor rises."""
    return _collected(random, x) + rate * x / 1000


def _collected(random: np.random.Generator, x: Floats) -> Floats:
    every = x[-1] / random.uniform(4, 40)
    return random.uniform(1, 20) * MIB * ((x + random.uniform(0, every)) % every) / every


def _flat(_: np.random.Generator, x: Floats, __: float) -> Floats:
    return np.zeros_like(x)


def _warming(random: np.random.Generator, x: Floats, _: float) -> Floats:
    scale = random.uniform(0.005, 0.04) * x[-1]
    return random.uniform(5, 200) * MIB * -np.expm1(-x / scale)


def _arena(random: np.random.Generator, x: Floats, _: float) -> Floats:
    """One step to a larger arena, early."""
    return np.where(x > random.uniform(0, 0.3) * x[-1], random.uniform(1, 128) * MIB, 0.0)


def _sawing(random: np.random.Generator, x: Floats, _: float) -> Floats:
    return _collected(random, x)


def _leak(name: str, shape: Shape, sound: Shape, least: float) -> Fault:
    return Fault(
        name=f"leak-{name}",
        claim=f"a leak of {least:g} to 20 times the limit, {name}, is no PASS; {sound.__name__[1:]} memory is no FAIL",
        planted=lambda random: _outcome(random, shape, LIMIT * least * (20 / least) ** random.random()) != "PASS",
        sound=lambda random: _outcome(random, sound, 0.0) == "FAIL",
    )


FAULTS = (
    _leak("linear", _linear, _flat, 1.2),
    _leak("steps", _steps, _arena, 1.2),
    _leak("late", _late, _warming, 1.5),
    _leak("sawtooth", _sawtooth, _sawing, 1.5),
)
