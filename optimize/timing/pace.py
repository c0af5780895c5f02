"""Latency ratio of two sessions, timed in interleaved pairs so that noise of the machine cancels out.

In process and on one thread; what a server adds is measured a floor above.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..samples import Array, Samples
from ..sessions.session import Session

_LEAST_SECONDS = 0.02  # a timing shorter than this measures the clock


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRatio:
    """Time of a candidate over a reference: geometric mean ratio, 95 % interval, and both medians (s per batch)."""

    ratio: float
    low: float
    high: float
    seconds: float
    reference_seconds: float
    batch: int
    pairs: int


def pace(reference: Session, candidate: Session, samples: Samples, *, batch: int = 32, pairs: int = 12) -> LatencyRatio:
    """Time both on the same batch, in the order ABBA BAAB, and compare pair by pair."""
    inputs = samples.take(batch).inputs
    loops = [_loops(session, inputs) for session in (reference, candidate)]
    times = np.empty((pairs, 2))
    for pair in range(pairs):
        for arm in (0, 1) if pair % 4 in (0, 3) else (1, 0):
            times[pair, arm] = _time((reference, candidate)[arm], inputs, loops[arm])
    return paced(times, len(next(iter(inputs.values()))))


def paced(times: Array, batch: int) -> LatencyRatio:
    """Compare times of reference and candidate, float [pairs, 2] in seconds a batch, pair by pair.

    The interval is Student's t on the log ratios, n - 1 degrees of freedom.
    """
    from scipy import stats  # a second, needless for everyone who only reads a ratio

    pairs, logs = len(times), np.log(times[:, 1] / times[:, 0])
    half = float(stats.t.ppf(0.975, pairs - 1)) * logs.std(ddof=1) / np.sqrt(pairs)
    mean = float(logs.mean())
    return LatencyRatio(
        ratio=float(np.exp(mean)),
        low=float(np.exp(mean - half)),
        high=float(np.exp(mean + half)),
        seconds=float(np.median(times[:, 1])),
        reference_seconds=float(np.median(times[:, 0])),
        batch=batch,
        pairs=pairs,
    )


def _time(session: Session, inputs: Mapping[str, Array], loops: int) -> float:
    """Return the mean seconds of a run on one batch, [batch, ...], over that many loops."""
    start = time.perf_counter()
    for _ in range(loops):
        session.run(inputs)
    return (time.perf_counter() - start) / loops


def _loops(session: Session, inputs: Mapping[str, Array]) -> int:
    """Runs of a batch [batch, ...] per timing so that one takes `_LEAST_SECONDS`; warms the session up on the way."""
    for _ in range(3):
        once = _time(session, inputs, 1)
    return max(1, int(np.ceil(_LEAST_SECONDS / max(once, 1e-7))))
