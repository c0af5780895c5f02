"""The latency search on staircases: exact without noise, within three times the noise with it, few readings."""

from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.pruning.latency import Reading, search

falls = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=60)
targets = st.floats(0.05, 0.95)


class Staircase:
    """Latency that falls with the ratio in steps, read with bounded noise."""

    def __init__(self, levels: list[float], noise: float = 0.0, seed: int = 0) -> None:
        self.levels = sorted(levels, reverse=True)
        self.rungs = tuple((number + 1) / (len(levels) + 1) for number in range(len(levels)))
        self.noise, self.random = noise, np.random.default_rng(seed)
        self.asked: list[float] = []

    def truth(self, ratio: float) -> float:
        return self.levels[bisect_right(self.rungs, ratio) - 1]

    def measure(self, ratio: float) -> Reading:
        self.asked.append(ratio)
        share = self.truth(ratio) + self.random.uniform(-1, 1) * self.noise
        return Reading(ratio=ratio, share=share, low=share - self.noise, high=share + self.noise)


@given(falls, targets)
def test_without_noise_the_nearest_reachable_is_found(levels: list[float], target: float) -> None:
    stairs = Staircase(levels)
    found = search(stairs.measure, stairs.rungs, target)
    assert abs(found.best.share - target) <= min(abs(level - target) for level in levels) + 1e-12


@given(falls, targets, st.floats(0, 0.1), st.integers(0, 1000))
def test_with_noise_it_is_within_three_times_the_noise_of_the_nearest(
    levels: list[float], target: float, noise: float, seed: int
) -> None:
    stairs = Staircase(levels, noise, seed)
    found = search(stairs.measure, stairs.rungs, target)
    nearest = min(abs(level - target) for level in levels)
    assert abs(stairs.truth(found.best.ratio) - target) <= nearest + 3 * noise + 1e-9


@given(falls, targets, st.floats(0, 0.1))
def test_it_reads_each_rung_at_most_once_and_few_of_them(levels: list[float], target: float, noise: float) -> None:
    stairs = Staircase(levels, noise)
    found = search(stairs.measure, stairs.rungs, target)
    assert len(set(stairs.asked)) == len(stairs.asked) <= int(np.log2(len(levels))) + 1
    assert [reading.ratio for reading in found.tries] == stairs.asked
    assert found.best in found.tries


def test_a_target_beyond_reach_gives_the_end_and_says_how_far_off_it_is() -> None:
    stairs = Staircase([0.9, 0.8, 0.7])
    found = search(stairs.measure, stairs.rungs, 0.1)
    assert found.best.share == 0.7
    assert found.best.misses(0.1) > 5


def test_a_target_is_surely_met_only_where_both_ends_of_the_interval_are_near() -> None:
    sure = Reading(ratio=0.3, share=0.5, low=0.49, high=0.52)
    unsure = Reading(ratio=0.3, share=0.5, low=0.45, high=0.51)
    assert sure.misses_at_most(0.5) == pytest.approx(0.04)
    assert unsure.misses(0.5) == 0
    assert unsure.misses_at_most(0.5) == pytest.approx(0.1)
