"""Trends of synthetic series: a step is found at its place, a spike is none, drift is drift, and noise stays quiet."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.records.trend import LEAST, NEEDED, Trend, sparkline, spread, trend

Array = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Array]
NOISE: dict[str, Noise] = {
    "normal": lambda random, n: random.normal(0, 0.02, n),
    "heavy": lambda random, n: 0.02 * random.standard_t(3, n),
}


def many(
    n: int, change: Callable[[Array, np.random.Generator], None], kind: str = "normal", runs: int = 40
) -> list[Trend]:
    found = []
    for seed in range(runs):
        random = np.random.default_rng(seed)
        logs = NOISE[kind](random, n)
        change(logs, random)
        found.append(trend((0.002 * np.exp(logs)).tolist()))
    return found


def add(start: int, stop: int | None, by: float) -> Callable[[Array, np.random.Generator], None]:
    def change(logs: Array, random: np.random.Generator) -> None:
        logs[start:stop] += by

    return change


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("n", [NEEDED, 30, 60])
def test_noise_alone_is_neither_step_nor_drift(n: int, kind: str) -> None:
    found = many(n, lambda logs, random: None, kind, runs=50)
    assert sum(bool(each.steps) or each.drift is not None for each in found) <= 3


@pytest.mark.parametrize(("n", "at", "by"), [(20, 10, 0.12), (40, 20, 0.10), (40, 30, -0.15), (60, 8, 0.10)])
def test_a_step_is_found_where_it_is(n: int, at: int, by: float) -> None:
    found = many(n, add(at, None, by))
    right = [each for each in found if len(each.steps) == 1 and abs(each.steps[0].index - at) <= 1]
    assert len(right) >= 0.9 * len(found)
    assert np.median([each.steps[0].ratio for each in right]) == pytest.approx(math.exp(by), rel=0.02)


@pytest.mark.parametrize("size", [0.3, -0.3, 2.0])
def test_one_spike_is_no_step(size: float) -> None:
    def spike(logs: Array, random: np.random.Generator) -> None:
        logs[random.integers(0, logs.size)] += size

    assert sum(bool(each.steps) or each.pending is not None for each in many(40, spike, runs=50)) <= 2


def test_two_levels_there_and_back_are_two_steps() -> None:
    found = many(60, add(20, 40, 0.15))
    assert (
        sum(
            [abs(step.index - at) <= 1 for step, at in zip(each.steps, (20, 40), strict=False)] == [True, True]
            for each in found
        )
        >= 36
    )


def test_drift_is_called_drift_and_no_staircase() -> None:
    def rise(logs: Array, random: np.random.Generator) -> None:
        logs += np.linspace(0, 0.3, logs.size)

    found = many(40, rise)
    assert sum(each.drift is not None and not each.steps for each in found) >= 36
    assert np.median([each.drift for each in found if each.drift]) == pytest.approx(math.exp(0.3), rel=0.05)
    assert any("drift of" in note for each in found for note in each.notes)


@pytest.mark.parametrize("newest", range(1, LEAST))
def test_the_newest_points_are_pending_until_there_are_enough(newest: int) -> None:
    found = many(40, add(40 - newest, None, 0.25))
    assert sum(bool(each.steps) for each in found) <= 1
    assert sum(each.pending is not None for each in found) >= (36 if newest > 1 else 0)
    confirmed = many(40, add(40 - LEAST, None, 0.25))
    assert sum(len(each.steps) == 1 for each in confirmed) >= 36


@pytest.mark.parametrize("n", range(NEEDED))
def test_few_points_say_that_they_are_few(n: int) -> None:
    found = trend([1.0] * (n // 2) + [9.0] * (n - n // 2))
    assert (found.steps, found.drift, found.pending) == ((), None, None)
    assert f"{n}, {NEEDED} are needed" in found.notes[0]


@given(st.lists(st.floats(1e-6, 1e6), min_size=NEEDED, max_size=40))
@pytest.mark.slow
def test_whatever_the_series_every_step_has_both_its_sides(values: list[float]) -> None:
    found = trend(values)
    places = [0, *(step.index for step in found.steps), len(values)]
    assert all(after - before >= LEAST for before, after in pairwise(places))
    assert all(step.p <= 0.01 for step in found.steps)
    assert found.drift is None or not found.steps


def test_a_series_without_noise_is_taken_for_what_it_is() -> None:
    assert trend([5.0] * 30) == Trend(noise=spread(np.zeros(30)))
    assert [step.index for step in trend([5.0] * 15 + [6.0] * 15).steps] == [15]
    assert trend([5.0] * 29 + [9.0]).steps == ()


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_values_that_have_no_logarithm_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite, positive"):
        trend([1.0] * 20 + [wrong])


def test_a_sparkline_spans_its_bars() -> None:
    assert sparkline([1, 2, 3]) == "▁▅█"
    assert sparkline([4.0, 4.0]) == "▁▁"
    assert len(sparkline(list(range(100)))) == 100
