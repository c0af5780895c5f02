"""Simulated traffic of a rollout, cut into blocks: what the rows of `serve_rollout` judge by the thousand.

Only makes numbers. Latencies are lognormal and follow a first-order process from request to request; thresholds are
frozen from the baseline's own answers before. `tests/serve/traffic/test_rollout_evidence.py` shows that `Cutter` makes
the same blocks of the same requests one by one; here numpy does it.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.serve.traffic.rollout.blocks import Arm, Block
from seatrial.serve.traffic.rollout.plan import Metric, Plan
from seatrial.serve.traffic.rollout.tally import FIELDS, TAILS, Tally

Floats = NDArray[np.float64]
QUANTILES: tuple[tuple[Metric, float], ...] = (("p95", 0.95), ("p99", 0.99))
BEFORE = 4000  # answers from which the thresholds are frozen
MEDIAN, SIGMA = 0.020, 0.5  # seconds, and of the logs: p99 is 3.2 times p50


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A candidate and its weather. `memory` is the autocorrelation from request to request, `drift` the swing of a slow
    wave (an hour long) under both arms, `slower` the factor on all answers, `rare` the share that takes four times as
    long, `errors` the rates of failure of candidate and baseline.
    """

    rate: int = 120  # requests a minute of each arm
    memory: float = 0.0
    drift: float = 0.0
    slower: float = 1.0
    rare: float = 0.0
    errors: tuple[float, float] = (0.005, 0.005)


def logs(random: np.random.Generator, case: Case, count: int) -> Floats:
    """Logs of `count` latencies of one arm, in their order."""
    noise = random.normal(0, SIGMA, count)
    if case.memory:
        from scipy.signal import lfilter

        noise *= math.sqrt(1 - case.memory**2)
        start = random.normal(0, SIGMA) * case.memory
        noise = np.asarray(lfilter([1.0], [1.0, -case.memory], noise, zi=[start])[0])
    return math.log(MEDIAN) + noise


def arms(random: np.random.Generator, case: Case, minutes: int) -> tuple[Floats, Floats]:
    """Log latencies of candidate and baseline, evenly spread over that time."""
    count = minutes * case.rate
    wave = case.drift * np.sin(2 * np.pi * (np.arange(count) / case.rate / 60 + random.uniform()))
    candidate, baseline = (logs(random, case, count) + wave for _ in range(2))
    candidate += math.log(case.slower) + math.log(4) * (random.random(count) < case.rare)
    return candidate, baseline


def tally(random: np.random.Generator, case: Case, plan: Plan, *, minutes: int, step: int = 0) -> Tally:
    """So many minutes of one step as blocks of the plan's length, both arms equally busy."""
    size = round(case.rate * plan.block / 60)
    before = np.sort(logs(random, case, BEFORE))
    thresholds: dict[str, float] = {}
    for metric, quantile in QUANTILES:
        plain = float(before[math.ceil(quantile * BEFORE) - 1])
        slow, beyond = TAILS[metric]
        thresholds |= {slow: plain, beyond: plain + math.log1p(plan.margins.of(metric))}
    sides = []
    for log, rate in zip(arms(random, case, minutes), case.errors, strict=True):
        table, answered = log.reshape(-1, size), (random.random(log.size) >= rate).reshape(-1, size)
        columns = {
            "requests": np.full(len(table), size),
            "answered": answered.sum(axis=1),
            "log_seconds": np.where(answered, table, 0.0).sum(axis=1),
            "errors": (~answered).sum(axis=1),
            "refused": np.zeros(len(table)),
            "unconfirmed": np.zeros(len(table)),
            "matched": answered.sum(axis=1),
            "measured": answered.sum(axis=1),
        } | {name: ((table > threshold) & answered).sum(axis=1) for name, threshold in thresholds.items()}
        sides.append(np.stack([columns[name] for name in FIELDS], axis=1).astype(np.float64))
    count = len(sides[0])
    return Tally(sides[0], sides[1], np.full(count, step), np.full(count, True))


def blocks(random: np.random.Generator, case: Case, plan: Plan, *, minutes: int, step: int = 0) -> list[Block]:
    """The same as `Block`s."""
    made = tally(random, case, plan, minutes=minutes, step=step)
    return [
        Block(until=(index + 1) * plan.block, step=step, candidate=_arm(candidate), baseline=_arm(baseline))
        for index, (candidate, baseline) in enumerate(zip(made.candidate, made.baseline, strict=True))
    ]


def _arm(row: Floats) -> Arm:
    counts: dict[str, Any] = {
        name: int(value) for name, value in zip(FIELDS, row, strict=True) if name != "log_seconds"
    }
    return Arm(**counts, log_seconds=float(row[FIELDS.index("log_seconds")]))
