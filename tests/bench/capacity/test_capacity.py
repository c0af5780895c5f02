"""The capacity search on simulated queues of known capacity: M/M/1's sojourn is exponential of rate mu - lambda."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.capacity.curve import Point, crossing, fit, interval, misfit
from seatrial.bench.capacity.probe import Phase, Probe, decide, evaluate, pooled
from seatrial.bench.capacity.result import Capacity, Header, conclude
from seatrial.bench.capacity.run import is_capacity_run, recompute
from seatrial.bench.capacity.search import Plan, search
from seatrial.bench.capacity.slo import Slo, needed, share_bounds
from seatrial.bench.load.run import LoadRun
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.schedule import poisson
from seatrial.optimize.errors import ConfigError, IntegrityError

SLO = Slo(quantile=0.99, seconds=0.02)
SERVICE_RATE = 1000.0
TRUTH = SERVICE_RATE - log(100) / SLO.seconds  # 769.7/s
PLAN = Plan(seconds=1500, probe_seconds=30)


def simulated(rate: float, seconds: float, seed: int, service_rate: float = SERVICE_RATE) -> LoadRun:
    """One run against an M/M/1 queue."""
    schedule = poisson(rate, seconds, seed)
    service = np.random.default_rng(seed + 10**6).exponential(1 / service_rate, len(schedule))
    work = np.cumsum(service)
    return LoadRun(
        intended=schedule.offsets,
        sent=schedule.offsets,
        done=work + np.maximum.accumulate(schedule.offsets - (work - service)),
        status=np.full(len(schedule), 200, np.int16),
        schedule=schedule,
        batch=4,
        client_cpu=0.1,
        elapsed=seconds,
        start=0.0,
        target="simulated",
    )


def searched(
    seed: int, plan: Plan = PLAN, change: Callable[[LoadRun], LoadRun] = lambda run: run
) -> tuple[Capacity, list[LoadRun]]:
    runs: list[LoadRun] = []

    def probe(rate: float, seconds: float, phase: Phase) -> Probe:
        runs.append(change(simulated(rate, seconds, 1000 * seed + len(runs))))
        return evaluate(runs[-1], SLO, number=len(runs) - 1, phase=phase)

    probes, stopped = search(probe, SLO, start=0.3 * SERVICE_RATE, plan=plan, seed=seed)
    return conclude(header(seed), probes, stopped), runs


def header(seed: int = 1) -> Header:
    return Header(
        target="simulated",
        model="m",
        slo=SLO,
        batch=4,
        seed=seed,
        saturation=SERVICE_RATE,
        plan=Plan(),
        limits=LoadLimits(),
        environment={"cpu": "none"},
        cores={},
        at="2026-11-24T00:00:00+00:00",
    )


# The objective


@pytest.mark.parametrize(
    ("text", "quantile", "seconds"),
    [
        ("p99<=20ms", 0.99, 0.02),
        ("p99.9 < 1.5 s", 0.999, 1.5),
        (" p50<=.5ms ", 0.5, 0.0005),
        ("p90<=250us", 0.9, 0.00025),
    ],
)
def test_an_objective_is_read(text: str, quantile: float, seconds: float) -> None:
    slo = Slo.parse(text)
    assert slo.quantile == pytest.approx(quantile)
    assert slo.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "p99", "p99>=20ms", "p99<=20", "p100<=1s", "p10<=1s", "p99<=0ms", "99<=1s"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Slo.parse(text)


@pytest.mark.parametrize(
    ("quantile", "over", "n"), [(0.99, 0, 459), (0.99, 100, 12571), (0.9, 20, 325), (0.999, 10, 20140)]
)
def test_the_least_number_of_requests_is_loadgen_s(quantile: float, over: int, n: int) -> None:
    assert needed(over, quantile) == n


def test_bounds_of_a_share_agree_with_the_exact_test() -> None:
    assert share_bounds(0.0, 459)[1] <= 0.01 < share_bounds(0.0, 458)[1]
    low, high = share_bounds(0.0251, 1000.7)
    assert low < 0.0251 < high
    assert share_bounds(0.5, 0.4) == (0.0, 1.0)


# One probe


def test_a_probe_counts_who_was_slow_and_who_got_no_answer() -> None:
    run = simulated(300, 20, 1)
    clean = evaluate(run, SLO, number=0, phase="bracket")
    assert (clean.over, clean.faults, clean.state) == (0, (), "steady")
    assert clean.counted == sum(block[0] for block in clean.blocks)
    assert clean.tail_upper is not None
    assert clean.tail is not None
    assert clean.tail_upper > clean.tail
    status = run.status.copy()
    status[-100:] = 503
    assert evaluate(replace(run, status=status), SLO, number=0, phase="bracket").over == 100
    late = evaluate(replace(run, sent=run.sent + 0.01), SLO, number=0, phase="bracket")
    assert any(fault.startswith("lag") for fault in late.faults)
    assert decide([late], SLO) == "INVALID"


@pytest.mark.slow
def test_neither_the_cut_nor_the_weighing_hides_slow_requests() -> None:
    """At the true capacity the pooled share is the budget: 40 short runs, 20,000 independent requests or so."""
    probes = [evaluate(simulated(TRUTH, 10, seed), SLO, number=0, phase="bisect") for seed in range(80)]
    assert pooled(probes)[0] == pytest.approx(0.01, rel=0.15)


def test_decisions_are_right_far_from_the_capacity_and_open_at_it() -> None:
    def at(rate: float, seconds: float = 20) -> str:
        return decide([evaluate(simulated(rate, seconds, 7), SLO, number=0, phase="bracket")], SLO)

    assert at(400) == "SUSTAIN"
    assert at(900) == "NOT"
    assert at(1200) == "NOT"
    assert at(TRUTH, 5) == "OPEN"


# The search


@pytest.fixture(scope="module")
def several() -> list[Capacity]:
    return [searched(seed)[0] for seed in range(8)]


@pytest.mark.slow
def test_the_capacity_is_found_within_five_percent_and_its_interval_covers_it(several: list[Capacity]) -> None:
    rates = np.array([found.rate for found in several], dtype=np.float64)
    assert all(found.outcome == "found" for found in several)
    assert np.all(np.abs(rates / TRUTH - 1) < 0.05)
    assert abs(rates.mean() / TRUTH - 1) < 0.015
    covered = [found.interval[0] <= TRUTH <= found.interval[1] for found in several if found.interval]
    assert sum(covered) >= 7
    assert all(found.interval and found.interval[1] / found.interval[0] < 1.25 for found in several)


def test_the_cliff_is_where_the_queue_stops_keeping_up(several: list[Capacity]) -> None:
    cliffs = [found.cliff for found in several if found.cliff is not None]
    assert cliffs
    assert all(cliff > 0.93 * SERVICE_RATE for cliff in cliffs)


def test_latencies_below_are_those_of_the_queue(several: list[Capacity]) -> None:
    for found in several:
        assert [round(each.share, 1) for each in found.below] == [0.5, 0.7, 0.9]
        for each in found.below[:1]:
            assert each.tail == pytest.approx(log(100) / (SERVICE_RATE - each.rate), rel=0.2)
        assert found.inferences == 4 * (found.rate or 0)
        json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.slow
def test_the_same_seed_searches_the_same_way(several: list[Capacity]) -> None:
    assert searched(3)[0] == several[3]


def test_a_cap_on_the_rate_gives_at_least_that() -> None:
    found, _ = searched(1, replace(PLAN, max_rate=500))
    assert (found.outcome, found.rate, found.interval, found.exit_code) == ("at least", 500, None, 3)
    assert max(probe.rate for probe in found.probes) == 500


def test_a_server_that_is_too_slow_sustains_nothing() -> None:
    found, _ = searched(1, PLAN, lambda run: replace(run, done=run.done + 0.03))
    assert (found.outcome, found.rate, found.exit_code) == ("none", None, 1)


def test_time_is_a_hard_cap() -> None:
    found, _ = searched(1, replace(PLAN, seconds=30))
    assert found.load_seconds <= 30
    assert any("used up" in note for note in found.notes)


def test_a_client_that_cannot_keep_up_ends_the_search() -> None:
    found, runs = searched(1, PLAN, lambda run: replace(run, client_cpu=0.9) if run.schedule.rate > 500 else run)
    assert found.outcome == "invalid"
    assert found.exit_code == 4
    assert any("were invalid: client cpu" in note for note in found.notes)
    assert sum(run.schedule.rate > 500 for run in runs) == 2  # once more, and then no further


def test_plans_that_cannot_be_are_refused() -> None:
    for change in ({"step": 1.0}, {"resolution": 1.0}, {"seconds": 0.0}, {"probe_seconds": 1.0}, {"shares": (1.5,)}):
        with pytest.raises(ConfigError):
            replace(PLAN, **change)
    with pytest.raises(ConfigError):
        search(lambda *_: pytest.fail("nothing to probe"), SLO, start=0, plan=PLAN, seed=1)


# The curve


def point(rate: float, share: float, effective: float = 1000) -> Point:
    return Point(rate=rate, counted=10_000, over=round(10_000 * share), effective=effective)


def test_the_fit_rises_and_the_crossing_lies_between_its_neighbours() -> None:
    curve = [point(100, 0.001), point(200, 0.004), point(210, 0.003), point(300, 0.03), point(400, 0.5)]
    _, fitted, _, _ = fit(curve, SLO)
    assert np.all(np.diff(fitted) >= 0)
    rate = crossing(curve, SLO)
    assert rate is not None
    assert 210 < rate < 300
    assert crossing(curve[:3], SLO) is None
    assert crossing(curve[3:], SLO) is None
    assert crossing([point(100, 0.0, effective=3), point(200, 0.0, effective=3)], SLO) is None  # no misses, no crossing


def test_a_share_that_falls_with_the_rate_is_told() -> None:
    rising = [point(100, 0.001), point(200, 0.01), point(300, 0.05)]
    assert misfit(rising, SLO)[1] < 1
    assert misfit([*rising, point(250, 0.2)], SLO)[1] > 3


def test_the_interval_needs_probes_on_both_sides(several: list[Capacity]) -> None:
    below = [probe for probe in several[0].probes if probe.rate < 500]
    assert interval(below, SLO, seed=1) is None


# The folder


@pytest.mark.slow
def test_a_search_is_computed_again_from_its_raw_runs(tmp_path: Path) -> None:
    found, runs = searched(2)
    for number, run in enumerate(runs):
        (tmp_path / f"probes/{number:03d}").mkdir(parents=True)
        run.save(tmp_path / f"probes/{number:03d}")
    record: dict[str, Any] = {
        "schema": 1,
        "kind": "capacity run",
        "header": found.to_json()["header"],
        "probes": [{"number": probe.number, "phase": probe.phase} for probe in found.probes],
        "stopped": "",
    }
    (tmp_path / "capacity.json").write_text(json.dumps(record))
    assert is_capacity_run(tmp_path)
    assert recompute(tmp_path) == found
    (tmp_path / "capacity.json").write_text(json.dumps(record | {"schema": 9}))
    with pytest.raises(IntegrityError, match="schema 9, this version reads"):
        recompute(tmp_path)
    with pytest.raises(IntegrityError):
        recompute(tmp_path / "gone")
