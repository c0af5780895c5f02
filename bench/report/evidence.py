"""Data of a run besides its findings, in the form of plots and tables. Draws nothing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gating.findings import complete_pairs, slot_values
from ..gating.pairs import ARMS, Arm, GateRun, SlotRecord
from ..load.run import CENSORED, OK
from ..measuring.usage import Memory
from ..server_statistics import sizes_of
from ..verdict import Verdict
from .advice import cost_text

Array = npt.NDArray[np.float64]
RatioRow = tuple[str, Sequence[float], tuple[float, float] | None, float | None]
PLOTTED = ("p50", "p99", "throughput", "peak_memory", "startup")
_CURVE_POINTS = 240


def usable(run: GateRun, arm: Arm) -> list[SlotRecord]:
    """The slots of an arm that count."""
    return [pair[ARMS.index(arm)] for pair in complete_pairs(run)]


def latencies(run: GateRun, arm: Arm) -> Array:
    """All counted latencies of an arm over its usable slots, in seconds."""
    parts = [slot.latency[(slot.status == OK) | (slot.status == CENSORED)] for slot in usable(run, arm)]
    return np.concatenate(parts) if parts else np.empty(0)


def ratio_rows(verdict: Verdict, run: GateRun) -> list[RatioRow]:
    """Pair-by-pair ratios of the metrics that vary between slots, with what was found about them."""
    found: list[RatioRow] = []
    judged = [each.metric for each in verdict.findings if each.ratio is not None and each.method not in ("exact", "")]
    for metric in dict.fromkeys((*PLOTTED, *(each for each in judged if each != "cost"))):  # cost mirrors throughput
        base, candidate, _ = slot_values(run, metric)
        finding = next((each for each in verdict.findings if each.metric == metric and each.ratio is not None), None)
        if not base or min(base) <= 0 or (finding is None and metric == "startup"):
            continue
        ratios = [c / b for b, c in zip(base, candidate, strict=True)]
        bound = finding.bound if finding and finding.bound and math.isfinite(finding.bound) else None
        found.append((metric, ratios, finding.interval if finding else None, bound))
    return found


def batch_sizes(run: GateRun, arm: Arm) -> dict[int, int]:
    """Return the executions by batch size of an arm's servers; empty if none was recorded."""
    found: dict[int, int] = {}
    for slot in usable(run, arm):
        for size, count in sizes_of(slot.server).items():
            found[size] = found.get(size, 0) + count
    return dict(sorted(found.items()))


def memory_curves(run: GateRun) -> list[tuple[Arm, int, list[float], list[float]]]:
    """Arm, pair (from 1), seconds and resident bytes of every usable slot whose probe kept a series."""
    curves = []
    for arm in ARMS:
        for slot in usable(run, arm):
            series = slot.memory.series if isinstance(slot.memory, Memory) else None
            if series is None or not series.at or len(series.at) != len(series.resident):
                continue
            at, resident = np.asarray(series.at, np.float64), np.asarray(series.resident, np.float64)
            keep = np.unique(np.linspace(0, at.size - 1, min(at.size, _CURVE_POINTS)).astype(int))
            since = at[keep] - at[0]
            curves.append((arm, slot.slot.pair + 1, since.tolist(), resident[keep].tolist()))
    return curves


def controls(run: GateRun) -> list[tuple[int, Arm, float]]:
    """Slot number, arm and seconds of the control workload, in the order taken."""
    return [
        (record.slot.index + 1, record.slot.arm, record.control) for record in run.records if record.control is not None
    ]


def slot_rows(run: GateRun) -> list[dict[str, Any]]:
    """Every slot and attempt in the order taken, with what it gave."""
    return [
        {
            "index": record.slot.index + 1,
            "pair": record.slot.pair + 1,
            "arm": record.slot.arm,
            "again": record.attempt > 0,
            "requests": int(record.status.size),
            "lag": float(np.nanquantile(record.lag, 0.99)) if np.isfinite(record.lag).any() else None,
            "throughput": record.throughput,
            "memory": record.peak_memory,
            "startup": record.startup,
            "control": record.control,
            "seconds": record.seconds,
            "trouble": "; ".join((*record.faults, *record.breaches)),
        }
        for record in run.records
    ]


def facts(verdict: Verdict, run: GateRun) -> list[tuple[str, str]]:
    """Provenance and environment, as name and text."""
    header, environment = run.header, run.header.environment
    libraries = ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items())
    machine = f"{environment.get('cpu', 'unknown')}, {environment.get('cores', '?')} cores"
    found = [
        ("base", f"{header.base.name} {header.base.digest}"),
        ("candidate", f"{header.candidate.name} {header.candidate.digest}"),
        ("evaluation set", f"{header.samples.count} samples, {header.samples.digest}"),
        ("budget", verdict.budget),
        ("looks", ", ".join(str(look) for look in verdict.looks)),
        ("machine", machine),
        ("graphics", ", ".join(environment.get("gpus", ())) or "none"),
        ("libraries", libraries),
        ("commit", str(environment.get("commit") or "unknown")),
        ("price", f"{header.price.machine}, ${header.price.usd_hour}/h ({header.price.source})"),
        ("the gate itself", cost_text(verdict, run)),
        ("measured", header.at),
    ]
    return [(name, text) for name, text in found if text]
