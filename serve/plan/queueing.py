"""The queue of a batching server, simulated: Poisson arrivals, batches as Triton forms them, instances side by side.

Pure; milliseconds per candidate. The model: one queue in order of arrival. An instance that is free takes what waits,
at most the largest batch; with a delay it first waits until that batch is full or the oldest request has waited so
long. A batch takes a time drawn about its size's mean. What it leaves out: that a busy neighbour slows an instance
beyond what the curve's own windows saw, and stalls of the machine that are rarer than the curve was watched.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np
import numpy.typing as npt

from .curve import DRAWS, Service
from .setting import Setting

Floats = npt.NDArray[np.float64]
ARRIVALS = 20_000
_LEAD = 0.05  # of the arrivals, before the queue has forgotten that it began empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prediction of a setting at a rate (requests per second, one row each). Latencies in seconds.

    `tail` is the percentile `quantile`; `over` the share of requests beyond the bound. `utilisation` is the busy share
    of the instances, `sizes` how many batches of each size ran, as shares of all batches.
    """

    rate: float
    quantile: float
    p50: float
    p99: float
    tail: float
    over: float
    utilisation: float
    throughput: float
    sizes: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A simulated stretch: latency of every request in order of arrival, batch sizes in order of execution."""

    latencies: Floats
    sizes: Floats
    busy: float
    span: float


def trace(service: Service, setting: Setting, arrivals: Floats, *, seed: int = 1) -> Trace:
    """Serve these arrivals (seconds, in order) in the model."""
    due, last = arrivals.tolist(), len(arrivals)
    largest, delay, random = setting.max_batch, setting.delay_us * 1e-6, np.random.default_rng(seed)
    draws = random.integers(0, DRAWS, last).tolist()
    free = [0.0] * setting.layout.instances
    heapify(free)
    done, sizes, at, busy = np.empty(last), [], 0, 0.0
    while at < last:
        begin = max(free[0], due[at])
        if delay:
            full = due[at + largest - 1] if at + largest <= last else float("inf")
            begin = max(begin, min(due[at] + delay, full))
        stop = min(bisect_right(due, begin, at, min(at + largest, last)), at + largest)
        seconds = service.draws(stop - at)[draws[at]]
        done[at:stop] = begin + seconds
        heapreplace(free, begin + seconds + service.gap)
        sizes.append(stop - at)
        busy += seconds + service.gap
        at = stop
    return Trace(latencies=done - arrivals + service.path, sizes=np.array(sizes, float), busy=busy, span=max(free))


def predict(
    service: Service,
    setting: Setting,
    rate: float,
    *,
    quantile: float,
    bound: float,
    arrivals: int = ARRIVALS,
    seed: int = 1,
) -> Prediction:
    """Simulate the setting under Poisson arrivals; the same seed gives the same arrivals, rescaled to each rate.

    Common random numbers, so that two settings differ by what they do and not by their luck.
    """
    due = np.cumsum(np.random.default_rng(seed).exponential(size=arrivals)) / rate
    run = trace(service, setting, due, seed=seed)
    kept = run.latencies[int(_LEAD * arrivals) :]
    p50, p99, tail = np.quantile(kept, [0.5, 0.99, quantile])
    sizes, counts = np.unique(run.sizes, return_counts=True)
    return Prediction(
        rate=rate,
        quantile=quantile,
        p50=float(p50),
        p99=float(p99),
        tail=float(tail),
        over=float(np.mean(kept > bound)),
        utilisation=min(run.busy / (run.span * setting.layout.instances), 1.0),
        throughput=arrivals / run.span,
        sizes={int(size): float(count / counts.sum()) for size, count in zip(sizes, counts, strict=True)},
    )


def most(service: Service, setting: Setting) -> float:
    """Requests per second that the setting can serve at all: every instance always busy with the best batch."""
    largest = max(size / (service.of(size) + service.gap) for size in range(1, setting.max_batch + 1))
    return setting.layout.instances * largest
