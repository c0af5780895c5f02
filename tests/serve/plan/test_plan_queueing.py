"""The queue model against theory, and laws that every batching queue keeps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.serve.plan.curve import Service
from seatrial.serve.plan.queueing import most, predict, trace
from seatrial.serve.plan.setting import Layout, Setting


def flat(seconds: float, *, slope: float = 0.0, top: int = 64, gap: float = 0.0, path: float = 0.0) -> Service:
    """A batch of b takes ``seconds + slope * (b - 1)``, always."""
    sizes = np.arange(1, top + 1, dtype=float)
    return Service(
        sizes=sizes,
        seconds=seconds + slope * (sizes - 1),
        gap=gap,
        path=path,
        jitter=np.zeros(1),
        error=0.0,
        overhead=None,
    )


def one(max_batch: int = 1, delay_us: int = 0, instances: int = 1) -> Setting:
    return Setting(max_batch=max_batch, delay_us=delay_us, layout=Layout(instances=instances, threads=1))


def arrivals(rate: float, count: int, seed: int = 3) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.slow
def test_without_batching_the_mean_wait_is_pollaczek_and_khinchin_s(load: float) -> None:
    service = 0.01
    run = trace(flat(service), one(), arrivals(load / service, 200_000))
    wait = run.latencies.mean() - service
    assert wait == pytest.approx(load * service / (2 * (1 - load)), rel=0.05)


def test_two_instances_without_batching_wait_as_two_servers_of_a_deterministic_queue_do() -> None:
    """Cosmetatos' approximation of M/D/2 (1975), good to a few percent."""
    load, service = 0.7, 0.01
    run = trace(flat(service), one(instances=2), arrivals(2 * load / service, 200_000))
    offered = 2 * load
    erlang = (offered**2 / 2 / (1 - load)) / (1 + offered + offered**2 / 2 / (1 - load))
    exponential = erlang * service / (2 * (1 - load))
    correction = 1 + (1 - load) * (2 - 1) * (math.sqrt(4 + 5 * 2) - 2) / (16 * load * 2)
    assert run.latencies.mean() - service == pytest.approx(exponential / 2 * correction, rel=0.06)


def test_batch_sizes_are_those_of_the_embedded_chain() -> None:
    """Batches of a constant time b: what waits when one ends is a Markov chain, solved here by iteration."""
    rate, service, largest, states = 900.0, 0.01, 16, 80
    mean = rate * service
    law = np.array([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(states)])
    left = np.zeros(states)
    left[0] = 1.0
    for _ in range(400):
        following = np.zeros(states)
        for waiting, share in enumerate(left):
            kept = max(waiting - largest, 0)  # an empty queue waits for one request and serves it alone
            following[kept:] += share * law[: states - kept]
        left = following / following.sum()
    taken = np.zeros(largest + 1)
    for waiting, share in enumerate(left):
        taken[min(max(waiting, 1), largest)] += share
    found = predict(flat(service), one(largest), rate, quantile=0.99, bound=1.0, arrivals=200_000).sizes
    assert sum(abs(found.get(size, 0.0) - taken[size]) for size in range(1, largest + 1)) / 2 < 0.02


@given(
    rate=st.floats(10, 3000),
    batch=st.integers(1, 40),
    delay=st.integers(0, 20_000),
    instances=st.integers(1, 4),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_laws_of_every_queue(rate: float, batch: int, delay: int, instances: int, seed: int) -> None:
    service, setting = flat(0.004, slope=0.0002, path=0.001), one(batch, delay, instances)
    due = arrivals(rate, 1500, seed)
    run = trace(service, setting, due, seed=seed)
    assert run.sizes.sum() == len(due)
    assert 1 <= run.sizes.min() <= run.sizes.max() <= batch
    assert run.latencies.min() >= 0.005 - 1e-9  # nobody is served faster than alone
    assert run.busy <= run.span * instances + 1e-9
    assert len(due) / run.span <= most(service, setting) * 1.001 + 1


@given(rate=st.floats(20, 800), batch=st.integers(1, 32), slower=st.floats(1.01, 2.0))
@settings(max_examples=30, deadline=None)
def test_slower_batches_never_shorten_the_tail_by_more_than_batching_wins(
    rate: float, batch: int, slower: float
) -> None:
    """A slower server batches more, but no request may then be answered sooner than the speed itself allows."""
    service = flat(0.004)
    quick = predict(service, one(batch), rate, quantile=0.99, bound=1.0, arrivals=2000)
    slow = predict(service.scaled(slower), one(batch), rate, quantile=0.99, bound=1.0, arrivals=2000)
    assert slow.p50 >= 0.004 * slower - 1e-9
    assert slow.utilisation >= quick.utilisation * 0.99


def test_a_delay_is_waited_where_the_batch_does_not_fill_and_only_there() -> None:
    seldom = trace(flat(0.001), one(8, 5000), np.arange(1, 50, dtype=float))
    assert seldom.latencies == pytest.approx(0.006)
    at_once = trace(flat(0.001), one(8, 5000), np.repeat(np.arange(1.0, 20.0), 8))
    assert at_once.latencies == pytest.approx(0.001)


def test_what_was_jittery_alone_is_as_jittery_for_as_long_in_a_batch() -> None:
    jitter = np.array([-0.001] * 9 + [0.009])
    sizes = np.arange(1.0, 9.0)
    service = Service(sizes=sizes, seconds=0.004 * sizes, gap=0.0, path=0.0, jitter=jitter, error=0.0, overhead=None)
    alone, eight = np.array(service.draws(1)), np.array(service.draws(8))
    assert alone.mean() == pytest.approx(0.004, rel=0.1)
    assert eight.mean() == pytest.approx(0.032, rel=0.05)
    assert eight.var() == pytest.approx(8 * alone.var(), rel=0.25)
    assert service.of(16) == pytest.approx(0.064)  # beyond what was seen it grows as before
