"""Validity rules and figures of load runs, on arrays made by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from seatrial.bench.load.run import CENSORED, Client, LoadRun, Saturation
from seatrial.bench.load.summary import MIN_FOR_P99, summarise
from seatrial.bench.load.validity import (
    arrival_distance,
    breaches,
    caveats,
    kolmogorov_smirnov,
    saturation_breaches,
    shared_cores,
)
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.schedule import Schedule, constant, gamma, poisson, ramp, replay
from seatrial.optimize.errors import ConfigError, IntegrityError


def good_run(rate: float = 200, seconds: float = 20, seed: int = 1) -> LoadRun:
    """Sent within 0.2 ms, answered within 5 to 10 ms."""
    return answered(poisson(rate, seconds, seed), seed)


def answered(schedule: Schedule, seed: int = 1) -> LoadRun:
    """A good run of that schedule."""
    random = np.random.default_rng(seed)
    sent = schedule.offsets + random.uniform(0, 2e-4, len(schedule))
    return LoadRun(
        intended=schedule.offsets,
        sent=sent,
        done=sent + random.uniform(5e-3, 10e-3, len(schedule)),
        status=np.full(len(schedule), 200, np.int16),
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=schedule.seconds,
        start=1000.0,
        target="127.0.0.1:8000/v2/models/m/versions/1",
    )


def changed(run: LoadRun, where: Any, **arrays: Any) -> LoadRun:
    """The run with other values at some arrivals."""
    fields = {}
    for name, value in arrays.items():
        fields[name] = getattr(run, name).copy()
        fields[name][where] = value
    return replace(run, **fields)


def rules(run: LoadRun, limits: LoadLimits | None = None) -> set[str]:
    return {breach.split(":")[0] for breach in breaches(run, limits)}


def test_a_good_run_breaks_nothing() -> None:
    assert breaches(good_run()) == ()


def test_a_late_client_is_told() -> None:
    run = good_run()
    late = np.arange(len(run)) % 50 == 0  # 2 % of them, 3 ms late
    assert rules(changed(run, late, sent=run.intended[late] + 3e-3)) == {"lag"}


def test_a_slow_model_allows_more_lag() -> None:
    run = good_run()
    late = np.arange(len(run)) % 50 == 0
    late_run = changed(run, late, sent=run.intended[late] + 3e-3)
    assert rules(replace(late_run, done=run.intended + 0.1)) == set()


def test_the_limits_can_be_set() -> None:
    run = replace(good_run(), client_cpu=0.5)
    assert rules(run, LoadLimits(client_cpu=0.4, lag=1e-5, lag_of_p50=0)) == {"client cpu", "lag"}
    with pytest.raises(ConfigError):
        LoadLimits(offered=1.5)
    for lag in (-1, float("nan")):
        with pytest.raises(ConfigError):
            LoadLimits(lag=lag)


def test_arrivals_that_were_never_sent_are_told() -> None:
    run = good_run()
    run = changed(run, slice(100, 110), sent=np.nan, status=CENSORED, done=run.elapsed)
    assert rules(run) == {"dropped"}
    assert rules(run, LoadLimits(dropped=10)) == set()
    assert rules(changed(run, slice(100, 200), sent=np.nan, status=CENSORED, done=run.elapsed)) >= {
        "dropped",
        "offered",
    }


def test_requests_without_reply_are_told() -> None:
    run = good_run()
    assert rules(changed(run, slice(-5, None), status=CENSORED, done=30.0)) == {"unanswered"}


def test_broken_connections_are_told_with_the_first_reason() -> None:
    run = replace(changed(good_run(), [7], status=0), reasons={0: "ConnectionResetError: gone"})
    [breach] = breaches(run)
    assert breach.startswith("transport: 1 ")
    assert "gone" in breach


def test_error_replies_are_the_servers_affair() -> None:
    run = replace(changed(good_run(), slice(0, 500), status=503), reasons={503: "queue is full"})
    assert breaches(run) == ()
    [failures] = summarise(run).failures
    assert (failures.status, failures.count, failures.reason) == (503, 500, "queue is full")


def test_sends_in_bunches_are_no_poisson_process() -> None:
    run = good_run()
    bunched = np.ceil(run.intended / 0.02) * 0.02  # a client that wakes every 20 ms
    limits = LoadLimits(lag=0.1)
    assert rules(replace(run, sent=bunched, done=bunched + 5e-3), limits) == {"arrivals"}


def schedules(seed: int) -> list[Schedule]:
    """One of each law, 200/s in the mean."""
    recorded = (np.arange(0, 40, 0.05)[:, None] + np.arange(10) * 2e-4).ravel()  # ten at once, twenty times a second
    return [
        poisson(200, 20, seed),
        constant(200, 20),
        gamma(200, 20, seed, 0.3),
        gamma(200, 20, seed, 8),
        ramp([(0, 10), (10, 590), (10, 20), (20, 180)], seed),
        replay(recorded, speed=1.5, seconds=20),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_law_passes_its_own_check_and_a_bunching_client_fails_it(seed: int) -> None:
    for schedule in schedules(seed):
        run = answered(schedule, seed)
        assert breaches(run) == ()
        bunched = np.ceil(run.intended / 0.05) * 0.05  # a client that wakes every 50 ms
        assert rules(replace(run, sent=bunched, done=bunched + 5e-3), LoadLimits(lag=0.2)) == {"arrivals"}


@pytest.mark.parametrize("burst", [1, 40, 400])
def test_a_burst_is_sent_one_after_the_other_and_that_is_no_lag(burst: int) -> None:
    """Each send takes 30 us; a client that stalls for 5 ms in between still lags."""
    schedule = replay(np.repeat(np.arange(0.0, 10.0), burst))
    sent = schedule.offsets + 30e-6 * (np.arange(len(schedule)) % burst + 1)
    run = LoadRun(
        intended=schedule.offsets,
        sent=sent,
        done=sent + 2e-3,
        status=np.full(len(schedule), 200, np.int16),
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=10.0,
        start=0.0,
        target="t",
    )
    assert breaches(run) == ()
    told = " ".join(caveats(run))
    assert ("whole seconds: --spread 1" in told) == (burst > 20)
    stalled = replace(run, sent=sent + 5e-3, done=sent + 7e-3)
    assert "lag" in rules(stalled)


def test_the_wrong_law_is_told() -> None:
    """Arrivals of one law sent as another's: of the same number, none of them late."""
    for made in schedules(3):
        for told in schedules(3):
            if (made.law, told.law) == ("ramp", "gamma"):
                continue  # a ramp's gaps, with their order forgotten, may be as mixed as a burst's
            same = made.law == told.law and made.shape == told.shape
            distance, p = arrival_distance(made.offsets, told)
            assert (distance <= 0.05 or p > 0.001) == same, (made.law, made.shape, told.law, told.shape)


def test_lag_against_the_tail_and_shared_cores_are_told_and_break_nothing() -> None:
    run = good_run()
    assert caveats(run) == ()
    fast = replace(run, done=run.sent + 1e-3)
    assert breaches(fast) == ()
    [caveat] = caveats(fast)
    assert "of p99" in caveat
    assert caveat in summarise(fast).notes
    assert "share cores 1" in caveats(replace(run, about=Client(cores=(0, 1), server_cores=(1, 2))))[0]
    assert shared_cores([0], [1]) == ""


def test_a_run_in_which_nothing_was_sent_is_not_believed() -> None:
    run = good_run()
    nothing = changed(run, slice(None), sent=np.nan, status=CENSORED, done=30.0)
    assert rules(nothing) == {"offered", "lag", "dropped"}
    summary = summarise(nothing)
    assert (summary.answered, summary.achieved_rate, summary.service_p50) == (0, 0.0, None)
    assert not summary.valid


@pytest.mark.parametrize("n", [20, 100, 3000])
def test_the_distance_and_its_p_are_those_of_scipy(n: int) -> None:
    for seed in range(10):
        gaps = np.random.default_rng(seed).exponential(1 / 50, n)
        distance, p = kolmogorov_smirnov(gaps, lambda x: -np.expm1(-55 * x))
        theirs = stats.kstest(gaps, "expon", args=(0, 1 / 55))
        assert distance == pytest.approx(theirs.statistic, rel=1e-9)
        assert p == pytest.approx(theirs.pvalue, rel=0.05, abs=0.005)


def test_seeded_schedules_pass_their_own_law() -> None:
    """A perfect client on a thousand seeds: an alarm would be about the seed, not the client."""
    told = sum(
        "arrivals" in rules(replace(run, sent=run.intended)) for run in (good_run(100, 10, s) for s in range(300))
    )
    assert told <= 2


def test_figures_are_those_of_the_arrays() -> None:
    run = good_run()
    summary = summarise(run)
    latency = run.done - run.intended
    assert summary.p50 == np.median(latency)
    assert summary.p99 == np.quantile(latency, 0.99)
    assert summary.longest == latency.max()
    assert summary.lag_p99 == np.quantile(run.sent - run.intended, 0.99)
    assert summary.scheduled_rate == len(run) / 20
    assert summary.achieved_rate == pytest.approx(len(run) / 20, rel=1e-3)
    assert summary.valid
    assert summary.notes == ()
    json.dumps(summary.to_json(), allow_nan=False)


def test_percentiles_do_not_forget_who_got_no_answer() -> None:
    run = good_run()
    run = changed(run, slice(100, 200), status=CENSORED, done=25.0)
    summary = summarise(run)
    assert summary.p99 is not None
    assert summary.p99 > 5
    assert any("lower bounds" in note for note in summary.notes)


def test_too_few_for_p99_is_said() -> None:
    n = MIN_FOR_P99
    assert stats.binom.cdf(1, n, 0.01) <= 0.01 < stats.binom.cdf(1, n - 1, 0.01)
    assert any("too few for p99" in note for note in summarise(good_run(100, 5)).notes)


def test_a_run_survives_the_disk(tmp_path: Path) -> None:
    run = replace(changed(good_run(), [3], sent=np.nan, status=CENSORED), reasons={0: "x"}, about=Client(locust="2"))
    run.save(tmp_path)
    again = LoadRun.read(tmp_path)
    for name in ("intended", "sent", "done", "status"):
        assert np.array_equal(getattr(again, name), getattr(run, name), equal_nan=True)
        assert getattr(again, name).dtype == getattr(run, name).dtype
    assert again.schedule.digest == run.schedule.digest
    assert summarise(again) == summarise(run)
    assert (again.reasons, again.about, again.start) == (run.reasons, run.about, run.start)


@pytest.mark.parametrize("index", range(6))
def test_a_run_of_every_law_survives_the_disk(index: int, tmp_path: Path) -> None:
    run = answered(schedules(2)[index])
    run.save(tmp_path)
    again = LoadRun.read(tmp_path)
    assert again.schedule.digest == run.schedule.digest
    assert again.schedule.shape == run.schedule.shape
    assert breaches(again) == ()


def test_a_run_whose_arrivals_were_changed_is_refused(tmp_path: Path) -> None:
    run = good_run()
    replace(run, intended=run.intended + 1e-6).save(tmp_path)
    with pytest.raises(IntegrityError, match="schedule"):
        LoadRun.read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(IntegrityError):
        LoadRun.read(tmp_path)


def test_saturation_counts_what_was_completed_in_time(tmp_path: Path) -> None:
    saturation = Saturation(
        sent=np.array([0.0, 0.1, 0.2, 0.9]),
        done=np.array([0.1, 0.2, 0.9, 1.1]),
        status=np.array([200, 200, 500, 200], np.int16),
        seconds=1.0,
        concurrency=1,
        batch=8,
        client_cpu=0.2,
        start=5.0,
        target="t",
        reasons={500: "no"},
    )
    assert (saturation.completed, saturation.errors, saturation.inferences_per_second) == (2, 1, 16.0)
    assert saturation_breaches(saturation) == ()
    assert len(saturation_breaches(replace(saturation, client_cpu=0.9, status=np.zeros(4, np.int16)))) == 3
    starved = replace(saturation, client_cpu=0.11, about=Client(client_wait=0.8))
    [breach] = saturation_breaches(starved)
    assert breach.startswith("client busy: the load process ran or waited for a core 91% of the time (80% waiting)")
    assert saturation_breaches(replace(starved, about=Client(client_wait=0.7))) == ()
    assert saturation_breaches(starved, LoadLimits(client_cpu=1.0)) == ()
    saturation.save(tmp_path)
    again = Saturation.read(tmp_path)
    assert again.inferences_per_second == 16.0
    assert again.reasons == {500: "no"}
