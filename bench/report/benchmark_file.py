"""A gate's run as a file of pytest-benchmark, so that a team's present tooling draws and compares it.

One benchmark per metric of time and arm, one round per slot: the slots are the runs, and requests within a slot are no
rounds. Metrics without a time go into ``extra_info``. The way back is `bench.gating.rounds`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..gating.findings import slot_values
from ..gating.pairs import ARMS, GateRun
from ..verdict import Judged

VERSION = "5.2.0"  # of pytest-benchmark's format, as its files state it
TIMES = ("p50", "p99", "startup")
OTHERS = ("throughput", "peak_memory")


def from_gate(run: GateRun) -> dict[str, Any]:
    """The run as pytest-benchmark's JSON; metrics that a complete pair lacks are left out."""
    header, environment = run.header, run.header.environment
    commit, dirty, _ = str(environment.get("commit") or "unknown").partition("-dirty")
    return {
        "machine_info": {
            "node": "",
            "processor": environment.get("cpu", ""),
            "machine": environment.get("architecture", ""),
            "system": environment.get("system", ""),
            "python_version": environment.get("python", ""),
            "cpu": {"brand_raw": environment.get("cpu", ""), "count": environment.get("cores", 0)},
        },
        "commit_info": {"id": commit, "dirty": bool(dirty), "project": "unknown"},
        "benchmarks": list(_benchmarks(run)),
        "datetime": header.at,
        "version": VERSION,
    }


def _benchmarks(run: GateRun) -> Iterator[dict[str, Any]]:
    extra: dict[str, Mapping[str, float]] = {arm: {} for arm in ARMS}
    for metric in OTHERS:
        for arm, values in zip(ARMS, slot_values(run, metric)[:2], strict=True):
            extra[arm] = {**extra[arm], **({metric: float(np.median(values))} if values else {})}
    for metric in TIMES:
        for arm, values in zip(ARMS, slot_values(run, metric)[:2], strict=True):
            if values:
                yield _benchmark(metric, arm, run.named(arm), values, extra[arm])


def _benchmark(
    metric: str, arm: str, artifact: Judged, values: Sequence[float], extra: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "group": metric,
        "name": f"{metric}[{arm}]",
        "fullname": f"seatrial::{metric}[{arm}]",
        "params": {"arm": arm},
        "param": arm,
        "extra_info": {"artifact": artifact.name, "digest": artifact.digest, **extra},
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": len(values),
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": False,
        },
        "stats": summary(values),
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The figures that pytest-benchmark keeps beside the raw rounds, by its own definitions."""
    x = np.sort(np.asarray(values, np.float64))
    q1, median, q3 = (float(each) for each in np.quantile(x, (0.25, 0.5, 0.75)))
    mean, spread, reach = float(x.mean()), float(x.std(ddof=1)) if x.size > 1 else 0.0, 1.5 * (q3 - q1)
    beyond = int(np.sum((x < q1 - reach) | (x > q3 + reach)))
    deviant = int(np.sum(np.abs(x - mean) > spread))
    within = x[(x >= q1 - reach) & (x <= q3 + reach)]
    return {
        "min": float(x[0]),
        "max": float(x[-1]),
        "mean": mean,
        "stddev": spread,
        "rounds": int(x.size),
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": deviant,
        "outliers": f"{deviant};{beyond}",
        "ld15iqr": float(within[0]),
        "hd15iqr": float(within[-1]),
        "ops": 1 / mean,
        "total": float(x.sum()),
        "data": [float(value) for value in values],
        "iterations": 1,
    }
