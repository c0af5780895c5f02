"""Laws of arrival schedules."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from seatrial.bench import recording
from seatrial.bench.schedule import MAX_ARRIVALS, Schedule, constant, gamma, poisson, ramp, replay
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError

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


def test_the_first_two_laws_keep_the_digests_that_stored_runs_carry() -> None:
    assert poisson(100, 1, 7).digest.startswith("sha256:f8e129f03a1814bc")
    assert poisson(1234.5, 3, 2**63).digest.startswith("sha256:26ad06eaf7d2d80a")
    assert constant(50, 2).digest.startswith("sha256:d494d6a07ac690cf")


burstinesses = st.floats(0.05, 50)
profiles = st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=5).map(
    lambda steps: [point for i, (a, b) in enumerate(steps) for point in ((0.5 * i, a), (0.5 * i + 0.5, b + 1))]
)


@given(rate=rates, seconds=lengths, seed=seeds, burstiness=burstinesses, profile=profiles, workers=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_every_law_is_sorted_within_the_run_reproducible_and_shared_out(
    rate: float, seconds: float, seed: int, burstiness: float, profile: list[tuple[float, float]], workers: int
) -> None:
    for schedule, again in (
        (gamma(rate, seconds, seed, burstiness), gamma(rate, seconds, seed, burstiness)),
        (ramp(profile, seed), ramp(profile, seed)),
    ):
        assert np.all(np.diff(schedule.offsets) >= 0)
        assert np.all((schedule.offsets >= 0) & (schedule.offsets < schedule.seconds))
        assert schedule.digest == again.digest
        shares = [schedule.share(worker, workers) for worker in range(workers)]
        assert np.array_equal(np.sort(np.concatenate(shares)), schedule.offsets)
        played = replay(schedule.offsets, seconds=schedule.seconds) if len(schedule) else schedule
        assert np.array_equal(played.offsets, schedule.offsets)
        assert played.digest != schedule.digest or not len(schedule)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 6.0])
def test_gamma_gaps_follow_their_law_and_rate(burstiness: float) -> None:
    gaps = np.diff(gamma(500, 120, 5, burstiness).offsets)
    assert stats.kstest(gaps, "gamma", args=(burstiness, 0, 1 / (burstiness * 500))).pvalue > 1e-4
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(len(gaps))
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)
    counts = np.array([len(gamma(100, 5, seed, burstiness)) for seed in range(100)])
    assert abs(counts.mean() - 500) < 5 * np.sqrt(500 / burstiness / 100) + 2


def test_a_ramp_follows_its_profile() -> None:
    """On the scale of expected arrivals it is a Poisson process of rate 1, and each stretch has its own mean."""
    profile = [(0.0, 10.0), (30.0, 600.0), (30.0, 100.0), (60.0, 100.0)]
    schedule = ramp(profile, 4)
    assert schedule.peak_rate == 600
    assert schedule.rate == pytest.approx((30 * 305 + 30 * 100) / 60)
    assert stats.kstest(np.diff(schedule.expected(schedule.offsets)), "expon").pvalue > 1e-4
    counts = [np.histogram(ramp(profile, seed).offsets, bins=[0, 10, 20, 30, 60])[0] for seed in range(20)]
    for found, expected in zip(np.mean(counts, axis=0), (1083.3, 3050.0, 5016.7, 3000.0), strict=True):
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / 20))
    assert np.allclose(schedule.expected(np.array([0.0, 30.0, 60.0, 61.0])), [0, 9150, 12150, 12250])


def test_a_recording_is_played_as_it_was_or_scaled_or_clipped(tmp_path: Path) -> None:
    times = np.array([100.0, 100.5, 101.0, 103.0])
    (tmp_path / "log.csv").write_text("path,timestamp\n" + "".join(f"/a,{each}\n" for each in times[::-1]))
    (tmp_path / "gaps.csv").write_text("gap\n0.25\n0.5\n")
    (tmp_path / "plain.csv").write_text("\n".join(map(str, times)))
    log = recording.read(tmp_path / "log.csv")
    assert np.array_equal(log.schedule().offsets, [0, 0.5, 1, 3])
    assert np.array_equal(log.schedule(seconds=1).offsets, [0, 0.5])
    assert np.array_equal(recording.read(tmp_path / "plain.csv").times, np.sort(times) - 100)
    assert np.array_equal(recording.read(tmp_path / "gaps.csv").times, [0.25, 0.75])
    faster = log.schedule(rate=4)
    assert np.array_equal(faster.offsets, [0, 1 / 6, 1 / 3, 1])
    assert faster.rate == pytest.approx(4)
    assert faster.shape.source == log.digest
    poisson(100, 1, 3).save(tmp_path / "schedule.npz")
    assert np.array_equal(recording.read(tmp_path / "schedule.npz").schedule().offsets, poisson(100, 1, 3).offsets)


def test_what_is_no_recording_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        recording.read(tmp_path / "gone.csv")
    for text, said in (
        ("a,b\n1,2\n", "no known column of arrivals"),
        ("time\nsoon\n", "no number of seconds"),
        ("", "1 to 10000000 finite"),
    ):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(ConfigError, match=said):
            recording.read(tmp_path / "log.csv")
    (tmp_path / "log.npz").write_bytes(b"PK nothing")
    with pytest.raises(ConfigError, match="npz"):
        recording.read(tmp_path / "log.npz")


def test_laws_refuse_what_cannot_be() -> None:
    for burstiness in (0, -1, float("nan"), 1e6):
        with pytest.raises(ConfigError, match="burstiness"):
            gamma(10, 1, 0, burstiness)
    for profile in ([], [(0.0, 1.0)], [(1.0, 1.0), (2.0, 1.0)], [(0.0, 1.0), (1.0, -1.0)], [(0.0, 0.0), (1.0, 0.0)]):
        with pytest.raises(ConfigError):
            ramp(profile, 0)
    for times, speed in (([], 1.0), ([-1.0], 1.0), ([1.0], 0.0), ([float("nan")], 1.0)):
        with pytest.raises(ConfigError):
            replay(np.array(times), speed=speed)
    with pytest.raises(ConfigError, match="seed"):
        gamma(10, 1, -1, 1)


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
    with pytest.raises(ConfigError, match="the limit is"):
        poisson(MAX_ARRIVALS, 2, 0)
    with pytest.raises(ConfigError):
        poisson(1, 1, -1)
    with pytest.raises(ConfigError):
        poisson(1, 1, 1).share(2, 2)


def test_a_schedule_survives_the_disk(tmp_path: Path) -> None:
    for schedule in (ramp([(0, 5), (2, 50)], 1), gamma(50, 1, 1, 0.5), replay(np.arange(9.0)), poisson(100, 1, seed=3)):
        schedule.save(tmp_path / "schedule.npz")
        assert Schedule.read(tmp_path / "schedule.npz").digest == schedule.digest
    whole = (tmp_path / "schedule.npz").read_bytes()
    for broken in (b"", b"no schedule", whole[:100], whole[:-30]):
        (tmp_path / "other.npz").write_bytes(broken)
        with pytest.raises(IntegrityError):
            Schedule.read(tmp_path / "other.npz")
