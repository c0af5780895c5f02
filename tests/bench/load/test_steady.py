"""Steady state, on simulated queues whose truth is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.load.run import CENSORED, LoadRun
from seatrial.bench.load.show import lines
from seatrial.bench.load.steady import (
    SteadyState,
    autocorrelation_time,
    growth,
    in_flight,
    mser,
    steady_state,
    warm_up,
)
from seatrial.bench.load.summary import summarise
from seatrial.bench.schedule import poisson, ramp, replay

Floats = npt.NDArray[np.float64]


def queue(arrivals: Floats, service: Floats) -> Floats:
    """Departures from one server that takes requests in order (Lindley's recursion, as one running maximum)."""
    work = np.cumsum(service)
    departures: Floats = work + np.maximum.accumulate(arrivals - (work - service))
    return departures


def mm1(load: float, seconds: float, seed: int, *, slow_start: float = 0.0) -> LoadRun:
    """An M/M/1 queue with 200 services a second; the first `slow_start` seconds take five times as long."""
    schedule = poisson(200 * load, seconds, seed)
    service = np.random.default_rng(seed + 10**6).exponential(1 / 200, len(schedule))
    service[schedule.offsets < slow_start] *= 5
    return LoadRun(
        intended=schedule.offsets,
        sent=schedule.offsets,
        done=queue(schedule.offsets, service),
        status=np.full(len(schedule), 200, np.int16),
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=seconds,
        start=0.0,
        target="simulated",
    )


def labels(load: float, seconds: float, seeds: int = 60) -> Counter[str]:
    return Counter(steady_state(mm1(load, seconds, seed)).label for seed in range(seeds))


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_a_queue_that_keeps_up_is_steady(load: float) -> None:
    found = labels(load, 30)
    assert found["steady"] >= 0.9 * 60
    assert found["overload"] == 0


@pytest.mark.parametrize("load", [1.1, 1.5])
def test_a_queue_that_cannot_keep_up_is_overloaded_and_not_noisy(load: float) -> None:
    assert labels(load, 30)["overload"] >= 59


def test_the_growth_of_a_backlog_is_the_excess_of_arrivals() -> None:
    found = [steady_state(mm1(1.3, 30, seed)).backlog for seed in range(20)]
    assert np.mean([each[0] for each in found if each]) == pytest.approx(60, rel=0.05)
    steady = steady_state(mm1(1.3, 30, 1))
    assert steady.overloaded
    assert "backlog grows by" in steady.reasons[0]
    assert any("overload" in note for note in summarise(mm1(1.3, 30, 1)).notes)


def test_requests_that_got_no_answer_are_overload_where_the_backlog_grows() -> None:
    run = mm1(1.3, 10, 2)
    late = run.done > 12
    assert np.any(late)
    stopped = replace(run, done=np.minimum(run.done, 12.0), status=np.where(late, CENSORED, run.status))
    assert steady_state(stopped).overloaded


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_start_is_cut_off(seed: int) -> None:
    run = mm1(0.4, 60, seed, slow_start=3.0)
    steady = steady_state(run)
    assert 2.5 < steady.cut < 15
    assert steady.label == "steady"
    plain = steady_state(mm1(0.4, 60, seed))
    assert steady.in_flight == pytest.approx(plain.in_flight, rel=0.2)


def test_a_run_that_ends_while_it_warms_up_is_not_warm() -> None:
    run = mm1(0.2, 20, 1)
    slowing = replace(run, done=run.intended + 0.01 * (2 - run.intended / 20))  # faster and faster until the end
    assert steady_state(slowing).label == "warming"


def test_too_few_arrivals_say_nothing() -> None:
    steady = steady_state(mm1(0.5, 1, 1))
    assert (steady.label, steady.backlog, steady.effective) == ("too short", None, 0)
    assert any(what == "steady state" for what, _, _ in lines(summarise(mm1(0.5, 1, 1))))
    early = replay(np.concatenate([np.linspace(0, 1, 500), [20.0]]))
    run = mm1(0.5, 5, 1)
    run = replace(run, schedule=early, intended=early.offsets, sent=early.offsets, done=early.offsets + 0.01)
    assert steady_state(replace(run, status=np.full(len(early), 200, np.int16))).label in ("too short", "unsettled")


def test_a_ramp_is_never_called_steady() -> None:
    schedule = ramp([(0, 100), (5, 100)], 1)
    assert steady_state(replace(mm1(0.5, 5, 1), schedule=schedule)).reasons == ("a ramp has no steady state",)


def test_the_summary_shows_it() -> None:
    summary = summarise(mm1(0.5, 30, 1))
    assert ("steady state", "steady") in {row[:2] for row in lines(summary)}
    assert isinstance(summary.steady, SteadyState)
    assert summary.to_json()["steady"]["label"] == "steady"


# Parts


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0.001, 5)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_little_s_law_is_exact_over_the_whole_life_of_all_requests(requests: list[tuple[float, float]]) -> None:
    arrived = np.sort([each[0] for each in requests])
    done = arrived + np.array([each[1] for each in requests])
    mean = in_flight(arrived, done, np.array([0.0, 20.0]))[0]
    assert mean * 20 == pytest.approx(np.sum(done - arrived), rel=1e-9)


@given(st.lists(st.floats(-100, 100), max_size=60))
@settings(max_examples=60, deadline=None)
def test_mser_minimises_what_it_says(values: list[float]) -> None:
    z = np.array(values)
    found = mser(z)
    assert 0 <= found <= len(z) // 2
    if len(z) >= 4:
        scores = [z[d:].var() / (len(z) - d) for d in range(len(z) // 2 + 1)]
        assert scores[found] == pytest.approx(min(scores), abs=1e-9, rel=1e-6)


def test_the_autocorrelation_time_of_a_known_process() -> None:
    """AR(1) with coefficient a has (1 + a) / (1 - a)."""
    random = np.random.default_rng(1)
    for a in (0.0, 0.5, 0.9):
        found = []
        for _ in range(10):
            x = np.empty(20_000)
            x[0] = 0.0
            noise = random.standard_normal(len(x))
            for i in range(1, len(x)):
                x[i] = a * x[i - 1] + noise[i]
            found.append(autocorrelation_time(x))
        assert np.mean(found) == pytest.approx((1 + a) / (1 - a), rel=0.2)
    assert autocorrelation_time(np.ones(100)) == 1.0


def test_neighbours_in_a_busy_queue_are_worth_less() -> None:
    quiet, busy = steady_state(mm1(0.3, 60, 1)), steady_state(mm1(0.9, 60, 1))
    assert quiet.effective / quiet.counted > 5 * busy.effective / busy.counted


def test_parts_of_a_perfectly_even_run() -> None:
    arrived = np.arange(0, 20, 0.01)
    (slope, low, high), scatter = growth(arrived, arrived + 0.004, 0, 20)
    assert slope == pytest.approx(0, abs=1e-6)
    assert low <= slope <= high
    assert scatter < 1
    assert warm_up(arrived, arrived + 0.004, 20)[1]
