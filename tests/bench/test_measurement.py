"""The table of metrics, and what a slot contributes to each: every metric can be limited, and missing is never 0."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from seatrial.bench.budget import Budget, Limit
from seatrial.bench.gating.findings import slot_value
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun, Slot, SlotRecord
from seatrial.bench.measurement import Measurement, Unavailable
from seatrial.bench.metrics import METRICS, metric_of
from seatrial.optimize.units import format_value
from tests.support.usage import NO_COUNTS, held, on_gpu, spent

MIB = 1 << 20
SLOT = Slot(index=0, pair=0, arm="base", position=0, seed=1)
COUNTED = replace(
    NO_COUNTS, requests=100, queue=0.05, compute_input=0.1, compute_infer=0.3, compute_output=0.1, batch_sizes={1: 100}
)
FULL = SlotRecord(
    slot=SLOT,
    attempt=0,
    load_seconds=2.5,
    first_inference=0.04,
    server=COUNTED,
    memory=held(200 * MIB, [2048.0, 4096.0]),
    device=on_gpu(3 * MIB),
    energy=spent(0.25),
)
TOLD = {
    "load_time": 2.5,
    "first_inference": 0.04,
    "queue": 0.0005,
    "compute": 0.005,
    "steady_memory": 200 * MIB,
    "leak": 4096.0,
    "device_memory": 3 * MIB,
    "energy": 0.25,
}


@pytest.mark.parametrize(("metric", "value"), TOLD.items())
def test_a_slot_tells_its_value_or_that_it_has_none(metric: str, value: float) -> None:
    assert slot_value(FULL, metric, 1.0) == pytest.approx(value)
    assert slot_value(SlotRecord(slot=SLOT, attempt=0), metric, 1.0) is None
    unknown = Unavailable(unavailable="x")
    silent = replace(FULL, server=unknown, device=unknown, energy=unknown)
    assert metric not in ("queue", "compute", "device_memory", "energy") or slot_value(silent, metric, 1.0) is None


def test_memory_that_shrinks_is_no_leak_and_still_has_a_logarithm() -> None:
    assert slot_value(replace(FULL, memory=held(0, [-5e6])), "leak", 1.0) == 1.0


@pytest.mark.parametrize("name", TOLD)
def test_each_can_be_limited_and_a_regression_is_found(
    make_run: Callable[..., GateRun], budget: Budget, name: str
) -> None:
    run = make_run()
    sums = ("queue", "compute_input", "compute_infer", "compute_output")
    worse: dict[str, Any] = {
        "server": replace(COUNTED, **{key: getattr(COUNTED, key) * 1.5 for key in sums}),
        "memory": held(300 * MIB, [9000.0] * 2),
        "device": on_gpu(5 * MIB),
        "energy": spent(0.5),
        "load_seconds": 5.0,
        "first_inference": 0.08,
    }
    told = {field: getattr(FULL, field) for field in worse}
    records = [replace(each, **(worse if each.slot.arm == "candidate" else told)) for each in run.records]
    limit = Limit(metric=name, at_most=5000.0) if name == "leak" else Limit(metric=name, max_regression=0.05)
    limits = replace(budget, limits=(limit,))
    verdict = judge(replace(run, records=tuple(records)), limits)
    assert verdict.outcome == "FAIL", verdict.summary
    verdict = judge(replace(run, records=tuple(replace(each, **told) for each in run.records)), limits)
    assert verdict.outcome == "PASS", verdict.summary


def test_every_unit_can_be_written_for_people() -> None:
    for metric in map(METRICS.get, METRICS.built_in):
        assert format_value(1.5, metric.unit)
    assert format_value(2048, "B/1k") == "2.0 KiB per 1,000 requests"
    assert format_value(0.25, "J") == "250 mJ"


def test_a_measurement_survives_the_file() -> None:
    made = Measurement(
        subject="sha256:0",
        metric=metric_of("p50"),
        scenario="SingleStream",
        values=(0.1, 1 / 3),
        environment={"cpu": "x"},
        at="2026-01-01T00:00:00+00:00",
    )
    assert Measurement.from_json(made.to_json()) == made
