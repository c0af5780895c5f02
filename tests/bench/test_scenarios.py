"""MLPerf's scenarios: the early-stopping counts of LoadGen, and what each run is scored by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from seatrial.bench.load.run import LoadRun, Saturation
from seatrial.bench.load.score import score
from seatrial.bench.load.show import read
from seatrial.bench.scenarios import MultiStream, Offline, Server, SingleStream, exceedances, tail
from seatrial.bench.schedule import constant
from seatrial.optimize.errors import ConfigError


@pytest.mark.parametrize(
    ("quantile", "floors"),
    [
        (0.99, {0: 459, 1: 662, 2: 838, 5: 1307, 10: 2010, 20: 3304, 50: 6898, 100: 12571}),
        (0.90, {0: 44, 1: 64, 2: 81, 5: 127, 10: 197, 20: 325, 50: 681, 100: 1246}),
        (0.999, {0: 4603, 1: 6636, 2: 8403, 5: 13105, 10: 20140}),
    ],
)
def test_exceedances_are_loadgens(quantile: float, floors: dict[int, int]) -> None:
    """The smallest n for each t, as LoadGen's own table says."""
    for allowed, n in floors.items():
        assert exceedances(n, quantile) == allowed
        assert exceedances(n - 1, quantile) == (allowed - 1 if allowed else None)


def test_what_a_number_of_requests_allows() -> None:
    assert [exceedances(n, 0.99) for n in (100, 1000, 5000, 10_000, 30_000, 270_336)] == [None, 2, 33, 77, 260, 2583]


@given(n=st.integers(1, 20_000), quantile=st.floats(0.5, 0.999))
@settings(max_examples=80, deadline=None)
def test_exceedances_are_the_most_that_keep_the_confidence(n: int, quantile: float) -> None:
    allowed = exceedances(n, quantile)
    most = -1 if allowed is None else allowed
    assert allowed is None or binom.cdf(allowed, n, 1 - quantile) <= 0.01 + 1e-12
    assert binom.cdf(most + 1, n, 1 - quantile) > 0.01 - 1e-12


@pytest.mark.slow
def test_the_bound_misses_the_true_percentile_one_time_in_a_hundred() -> None:
    random = np.random.default_rng(0)
    truth = -np.log(0.01)
    bounds = [tail(random.exponential(size=1000), 0.99).upper for _ in range(3000)]
    missed = np.mean([bound is not None and bound < truth for bound in bounds])
    assert 0.0 < missed < 0.016


def test_few_queries_have_no_bound() -> None:
    found = tail(np.arange(1.0, 44.0), 0.9)
    assert found.upper is None
    assert found.observed == pytest.approx(38.8)
    assert tail(np.arange(1.0, 45.0), 0.9).upper == 44.0


def closed(latency: float = 0.01, batch: int = 1, faults: tuple[str, ...] = ()) -> Saturation:
    done = np.arange(1, 101) * latency
    return Saturation(
        sent=done - latency,
        done=done,
        status=np.full(100, 200, np.int16),
        seconds=100 * latency,
        concurrency=1,
        batch=batch,
        client_cpu=0.1,
        start=0.0,
        target="somewhere",
        faults=faults,
    )


def test_each_scenario_has_its_own_figure() -> None:
    single = score(SingleStream(), closed()).tail
    assert single is not None
    assert (single.quantile, single.n) == (0.90, 100)
    assert single.upper == pytest.approx(0.01)
    multi = score(MultiStream(), closed(batch=8)).tail
    assert multi is not None
    assert (multi.quantile, multi.upper) == (0.99, None)
    assert score(Offline(batch=4, concurrency=1), closed(batch=4)).samples_per_second == pytest.approx(400)


def test_arrivals_without_a_reply_count_in_the_tail_of_the_server_scenario() -> None:
    schedule = constant(100, 10)
    done = schedule.offsets + 0.01
    status = np.full(len(done), 200, np.int16)
    status[-20:], done[-20:] = -1, 12.0
    run = LoadRun(
        intended=schedule.offsets,
        sent=schedule.offsets,
        done=done,
        status=status,
        schedule=schedule,
        batch=1,
        client_cpu=0.1,
        elapsed=10.0,
        start=0.0,
        target="somewhere",
    )
    found = score(Server(rate=100), run).tail
    assert found is not None
    assert found.observed > 2.0


def test_a_fault_makes_a_run_invalid_and_is_said_first() -> None:
    reading = read(SingleStream(), closed(faults=("aborted: too slow",)))
    assert reading.breaches == ("aborted: too slow",)
    assert reading.to_json()["valid"] is False
    assert read(SingleStream(), closed()).to_json()["valid"] is True


def test_scenarios_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError):
        Server(rate=0)
    with pytest.raises(ConfigError):
        Offline(batch=0)
