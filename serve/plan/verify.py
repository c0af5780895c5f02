"""Holds a plan against a real server: its setting, its rate, open loop; executed batches and tail beside predicted.

Measures and compares; changes no deployment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.bench.load import on_locust
from seatrial.bench.load.run import LoadRun
from seatrial.bench.load.steady import autocorrelation_time
from seatrial.bench.load.summary import MIN_FOR_P99
from seatrial.bench.load.validity import breaches
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.schedule import poisson
from seatrial.bench.server_statistics import Counted, sizes_of, window
from seatrial.optimize.record import Record, finite

from .choose import BatchPlan
from .observe import Bench
from .profile import BatchProfile, missing

LOOSE = LoadLimits(lag=0.005, arrival_distance=0.1, client_cpu=0.9)
"""A client on the model's own cores lags by milliseconds; lag counts as latency, so it cannot improve a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(Record, computed=("exit_code",)):
    """Measured values of the plan's setting at the plan's rate. Latencies in seconds from the intended send.

    `apart` is the total variation distance of executed from predicted sizes: the share of batches that would have to
    change their size. `missed` is the share of executed batches outside the plan's profile. `breaches` are rules of the
    load that were broken: then nothing is known of the server.
    """

    rate: float
    seconds: float
    answered: int
    p50: float
    p99: float
    tail: float
    over: float
    effective: float
    sizes: Mapping[int, float]
    apart: float
    missed: float
    within: bool
    met: bool
    breaches: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 the objective was met, 1 it was not, 4 the load was spoiled."""
        return 4 if self.breaches else 0 if self.met else 1

    def to_json(self) -> dict[str, Any]:
        """JSON values; a time that is not known is None."""
        found: dict[str, Any] = finite(Record.to_json(self))
        return found


def verify(bench: Bench, plan: BatchPlan, *, folder: Path, seconds: float = 10.0, seed: int = 1) -> Verified:
    """Serve the plan's setting afresh, offer its rate for `seconds`, and compare. The raw run is kept in `folder`.

    Raises:
        SeatrialError: whatever placing, starting or loading raises.
    """
    with bench.serving(plan.setting) as endpoint:
        payload = bench.payload(endpoint)
        with window(endpoint) as counting:
            run = on_locust.load(
                endpoint,
                poisson(plan.rate, seconds, seed),
                payload,
                folder=folder,
                client=on_locust.ClientSetup(cores=bench.client_cores),
                progress=counting.begin,
            )
    return compared(plan, run, shares(counting.counted))


def shares(counted: Counted) -> dict[int, float]:
    """Executed batch sizes as shares of all batches; empty where the server counts none."""
    sizes = sizes_of(counted)
    total = sum(sizes.values())
    return {size: count / total for size, count in sizes.items()} if total else {}


def distance(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Total variation distance of two distributions over batch sizes, 0 to 1."""
    return sum(abs(one.get(size, 0.0) - other.get(size, 0.0)) for size in {*one, *other}) / 2


def compared(plan: BatchPlan, run: LoadRun, sizes: Mapping[int, float]) -> Verified:
    """A run beside the plan; pure. Every arrival without an answer counts as over the bound."""
    waited = run.latency_bounds
    missed = ~(run.done - run.intended <= plan.slo.seconds) | (run.status != 200)
    p50, p99, tail = np.quantile(waited, [0.5, 0.99, plan.slo.quantile]) if len(waited) else [float("inf")] * 3
    own = np.asarray(waited > tail)
    low, high = plan.tail
    return Verified(
        rate=plan.rate,
        seconds=run.schedule.seconds,
        answered=int(np.count_nonzero(run.status == 200)),
        p50=float(p50),
        p99=float(p99),
        tail=float(tail),
        over=float(np.mean(missed)),
        effective=len(run) / autocorrelation_time(own) if own.any() else float(len(run)),
        sizes=sizes,
        apart=distance(plan.prediction.sizes, sizes),
        missed=missing(sizes, (BatchProfile(low=1, opt=plan.profile.opt, high=plan.profile.high),)),
        within=bool(low <= tail <= high),
        met=bool(np.mean(missed) <= plan.slo.budget),
        breaches=breaches(run, LOOSE),
    )


def caveats(plan: BatchPlan, verified: Verified) -> tuple[str, ...]:
    """Return caveats of the comparison, as sentences."""
    found = []
    if verified.effective < MIN_FOR_P99:
        found.append(f"the tail rests on {verified.effective:.0f} independent requests, {MIN_FOR_P99} are needed")
    if not verified.within:
        low, high = (1e3 * each for each in plan.tail)
        found.append(f"the measured tail, {1e3 * verified.tail:.1f} ms, lies outside {low:.1f} to {high:.1f} ms")
    if verified.apart > 0.25:
        found.append(f"{verified.apart:.0%} of the batches differed from the predicted size")
    return tuple(found)
