"""Hands finished requests to Locust's own statistics, many at a time: as its master adds up what workers report.

One event per request costs more than the rest of its bookkeeping. Counts every request, keeps no raw times.
"""

import time
from collections import Counter
from collections.abc import Iterable
from math import floor, log10
from typing import Any

import numpy as np

from .run import Floats


def add(stats: Any, kind: str, name: str, seconds: Floats, failures: Iterable[str]) -> None:
    """Count requests that took `seconds`, and what the failed ones among them said, in a `locust.stats.RequestStats`.

    They count for the second in which they are handed over, so that should be about every second.
    """
    if not len(seconds):
        return
    now = time.time()
    batch = type(stats.total)(stats, name, kind)
    waits = seconds * 1e3
    batch.num_requests = len(waits)
    batch.total_response_time = float(waits.sum())
    batch.min_response_time, batch.max_response_time = float(waits.min()), float(waits.max())
    batch.last_request_timestamp = now
    batch.num_reqs_per_sec = {int(now): len(waits)}
    batch.response_times = rounded(waits)
    for entry in (stats.total, stats.entries[(name, kind)]):
        entry.extend(batch)
    for failure in failures:
        stats.log_error(kind, name, failure)


def digits(stats: Any) -> str:
    """One line on all requests: Locust's own text tables cut milliseconds to whole numbers."""
    total = stats.total
    percentiles = ", ".join(
        f"p{share * 100:g} {total.get_response_time_percentile(share):g}" for share in (0.5, 0.95, 0.99)
    )
    return f"{total.num_requests} requests, {total.num_failures} failed; milliseconds: {percentiles}"


def rounded(milliseconds: Floats) -> dict[float, int]:
    """Count the times [n] by value in milliseconds, rounded to three significant digits."""
    scale = 10.0 ** (2 - np.floor(np.log10(np.maximum(milliseconds, 1e-3))))
    values, counts = np.unique(np.rint(milliseconds * scale) / scale, return_counts=True)
    found: Counter[float] = Counter()
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        found[three_digits(value)] += count
    return dict(found)


def three_digits(milliseconds: float) -> float:
    """Locust's own tables with three significant digits; its default turns 0.4 ms into 0."""
    if milliseconds <= 0:
        return 0.0
    return round(milliseconds, 2 - floor(log10(milliseconds)))
