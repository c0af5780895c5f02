"""The capacity search against the real Triton, held against what queueing theory says of the same server.

A model that sleeps is a single server. While it is never idle, the times between its replies are its service times; fed
through Lindley's recursion with Poisson arrivals they say at which rate the objective is reached. The search knows none
of that.
"""

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.benchmarks.rows import Row, Rows, main
from scripts.benchmarks.sleeper import sleeper
from seatrial.bench.capacity.run import capacity
from seatrial.bench.capacity.search import Plan
from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load.on_locust import saturate
from seatrial.bench.load.payload import Payload
from seatrial.bench.schedule import poisson
from seatrial.bench.targets import Endpoint

Floats = npt.NDArray[np.float64]

OBJECTIVE = Slo(quantile=0.95, seconds=0.020)
PLAN = Plan(seconds=130, probe_seconds=20, replicates=2, shares=(0.5, 0.9))
BAR = 0.10


def predicted(services: Floats, away: float, slo: Slo, seconds: float = 2000.0) -> float:
    """The Poisson rate at which a queue with these services, again and again in their order, reaches the objective.

    Their order matters: a reply that is seen late makes one of them longer and the next shorter. `away` is the way
    there and back, during which the server is free for others.
    """
    pace = 1 / float(services.mean())
    low, high = 0.05 * pace, pace
    while high / low > 1.002:
        rate = (low * high) ** 0.5
        arrivals = poisson(rate, seconds, seed=1).offsets
        service = np.resize(services, len(arrivals))
        work = np.cumsum(service)
        sojourn = work + np.maximum.accumulate(arrivals - (work - service)) - arrivals + away
        low, high = (rate, high) if np.mean(sojourn > slo.seconds) <= slo.budget else (low, rate)
    return float((low * high) ** 0.5)


def found_against_predicted(folder: Path) -> Row:
    """One search, between two looks at the idle and the saturated server."""
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    with sleeper(folder, 0.005) as endpoint:
        payload = Payload.build(endpoint, {"x": np.zeros((8, 4), np.float32)})
        before = _look(endpoint, payload, folder / "before")
        found = capacity(endpoint, payload, OBJECTIVE, folder=folder / "search", plan=PLAN)
        after = _look(endpoint, payload, folder / "after")
    services = np.concatenate([before[0], after[0]])
    theory = predicted(services, (before[1] + after[1]) / 2, OBJECTIVE)
    claim = f"the largest rate at {OBJECTIVE} of a 5 ms model in the real Triton, against queueing theory"
    bar = f"within {BAR:.0%} of the prediction"
    if found.rate is None or found.interval is None:
        said = f"{found.outcome}: {'; '.join(found.notes)} (predicted {theory:.1f}/s)"
        return Row(name="capacity", claim=claim, value=said, bar=bar, met=False)
    (low, high), apart = found.interval, found.rate / theory - 1
    said = f"{found.rate:.1f}/s, 95 % interval {low:.1f} to {high:.1f}; predicted {theory:.1f}/s ({apart:+.1%})"
    cost = f"services of {1e3 * services.mean():.2f} ms, {len(found.probes)} probes, {found.load_seconds:.0f} s of load"
    early = "".join(f"; {note}" for note in found.notes if note.startswith("stopped"))
    return Row(name="capacity", claim=claim, value=f"{said}; {cost}{early}", bar=bar, met=abs(apart) <= BAR)


def _look(endpoint: Endpoint, payload: Payload, folder: Path) -> tuple[Floats, float]:
    """Service times of a server that is never idle, and what a request to an idle one takes beyond that."""
    full = saturate(endpoint, payload, seconds=6, concurrency=8, folder=folder / "full")
    idle = saturate(endpoint, payload, seconds=3, concurrency=1, folder=folder / "idle")
    services = np.diff(np.sort(full.done))
    return services, max(float(np.median(idle.done - idle.sent) - np.median(services)), 0.0)


ROWS: Rows = {"capacity": found_against_predicted}

if __name__ == "__main__":
    sys.exit(main("Hold the capacity search against queueing theory, on the real Triton.", ROWS))
