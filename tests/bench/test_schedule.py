"""Laws of arrival schedules."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.schedule import MAX_ARRIVALS, Schedule, constant, poisson
from optimize.errors import ConfigError, IntegrityError

rates = st.floats(0.1, 2000)
lengths = st.floats(0.01, 5)
seeds = st.integers(0, 2**63)


@given(rate=rates, seconds=lengths, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_the_same_seed_gives_the_same_digest_and_another_seed_another(rate: float, seconds: float, seed: int) -> None:
    first, again = poisson(rate, seconds, seed), poisson(rate, seconds, seed)
    assert first.digest == again.digest
    assert np.array_equal(first.offsets, again.offsets)
    assert first.digest != poisson(rate, seconds, seed + 1).digest


@given(rate=rates, seconds=lengths, seed=seeds)
@settings(max_examples=100, deadline=None)
def test_arrivals_are_sorted_and_within_the_run(rate: float, seconds: float, seed: int) -> None:
    for schedule in (poisson(rate, seconds, seed), constant(rate, seconds)):
        assert np.all(np.diff(schedule.offsets) > 0)
        assert np.all((schedule.offsets >= 0) & (schedule.offsets < seconds))
        assert not schedule.offsets.flags.writeable


@given(seed=seeds, workers=st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_shares_partition_the_schedule(seed: int, workers: int) -> None:
    schedule = poisson(200, 0.5, seed)
    shares = [schedule.share(worker, workers) for worker in range(workers)]
    assert np.array_equal(np.sort(np.concatenate(shares)), schedule.offsets)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_poisson_gaps_are_exponential_and_independent() -> None:
    schedule = poisson(500, 120, seed=11)
    gaps = np.diff(schedule.offsets)
    assert stats.kstest(gaps, "expon", args=(0, 1 / 500)).pvalue > 1e-4
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(len(gaps))
    counts = np.histogram(schedule.offsets, bins=120, range=(0, 120))[0]
    assert 0.6 < counts.var() / counts.mean() < 1.5  # a Poisson count's variance is its mean


def test_poisson_counts_follow_the_rate() -> None:
    counts = np.array([len(poisson(40, 5, seed)) for seed in range(200)])
    assert abs(counts.mean() - 200) < 5 * np.sqrt(200 / len(counts))


def test_the_digest_is_the_same_on_every_machine() -> None:
    """Pinned: a change here means that stored runs no longer compare with new ones."""
    schedule = poisson(100, 1, seed=7)
    assert (len(schedule), round(float(schedule.offsets[0]), 12)) == PINNED


PINNED = (101, 0.00981083863)


def test_constant_arrivals_have_equal_gaps() -> None:
    schedule = constant(50, 2)
    assert len(schedule) == 100
    assert np.allclose(np.diff(schedule.offsets), 0.02)
    assert schedule.offsets[0] == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (1, float("inf"))])
def test_a_rate_or_length_that_is_not_positive_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ConfigError):
        poisson(rate, seconds, 0)
    with pytest.raises(ConfigError):
        constant(rate, seconds)


def test_what_would_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than"):
        poisson(MAX_ARRIVALS, 2, 0)
    with pytest.raises(ConfigError):
        poisson(1, 1, -1)
    with pytest.raises(ConfigError):
        poisson(1, 1, 1).share(2, 2)


def test_a_schedule_survives_the_disk(tmp_path: Path) -> None:
    schedule = poisson(100, 1, seed=3)
    schedule.save(tmp_path / "schedule.npz")
    assert Schedule.read(tmp_path / "schedule.npz").digest == schedule.digest
    whole = (tmp_path / "schedule.npz").read_bytes()
    for broken in (b"", b"no schedule", whole[:100], whole[:-30]):
        (tmp_path / "other.npz").write_bytes(broken)
        with pytest.raises(IntegrityError):
            Schedule.read(tmp_path / "other.npz")
