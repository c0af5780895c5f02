"""The winner of candidates that were compared whole: never slower than fp32, never below a floor, calm within noise."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.recipe.space import Objective
from seatrial.optimize.search.ranking import SECOND_TIMINGS, contenders, gains, winner
from seatrial.optimize.search.search import Candidate


def candidate(number: int, ratio: float | None, *, width: float = 0.01, snr: float = 40.0, **more: Any) -> Candidate:
    values: Mapping[Objective, float | None] = {"quality": 0.9, "latency": ratio, "snr": snr}
    interval = None if ratio is None else (ratio * (1 - width), ratio * (1 + width))
    return Candidate(number=number, **({"chosen": {}, "values": values, "interval": interval} | more))


FP32 = candidate(0, 1.0, width=0.0, snr=150.0)
RATIO = st.floats(0.05, 3.0) | st.none() | st.sampled_from([float("nan"), float("inf")])
ROWS = st.lists(
    st.tuples(
        RATIO,
        st.floats(0.0, 0.4),
        st.sampled_from([5.0, 20.0, 40.0]),
        st.sampled_from([0.0, 0.0, 0.0, 0.5]),
        st.sampled_from(["", "", "", "refused"]),
    ),
    max_size=8,
)


def drawn(rows: list[tuple[float | None, float, float, float, str]]) -> list[Candidate]:
    made = [
        candidate(number, ratio, width=width, snr=snr, violation=violation, failure=failure)
        for number, (ratio, width, snr, violation, failure) in enumerate(rows, start=1)
    ]
    return [FP32, *made]


@given(ROWS, st.floats(0.01, 0.3))
def test_the_winner_is_never_slower_than_fp32_and_never_below_a_floor(rows: Any, noise: float) -> None:
    candidates = drawn(rows)
    found = winner(candidates, noise)
    assert found.violation <= 0
    assert not found.failure
    if found.number:
        assert found.interval is not None
        assert found.interval[1] < 1
        assert (found.values["latency"] or 9.0) * (1 + noise) < 1
    for other in candidates[1:]:
        if gains(other, noise):
            assert found.number, "something gains, and fp32 was chosen"
            assert (found.values["latency"] or 9.0) <= (other.values["latency"] or 9.0) * (1 + noise)


@given(ROWS, st.floats(0.01, 0.3))
def test_only_gains_are_timed_again_and_the_fastest_always_is(rows: Any, noise: float) -> None:
    candidates = drawn(rows)
    able = sorted((each for each in candidates[1:] if gains(each, noise)), key=lambda each: each.values["latency"] or 9)
    found = contenders(candidates, noise)
    assert len(found) <= SECOND_TIMINGS
    assert all(each in able for each in found)
    assert found[:1] == able[:1]


def test_within_the_noise_the_more_accurate_one_wins_and_beyond_it_the_faster_one() -> None:
    rough, close = candidate(1, 0.500, snr=19.0), candidate(2, 0.505, snr=45.0)
    assert winner([FP32, rough, close], 0.02) == close
    assert winner([FP32, rough, close], 0.005) == rough
    better = candidate(3, 0.504, snr=19.0, values={"quality": 0.95, "latency": 0.504, "snr": 19.0})
    assert winner([FP32, rough, close, better], 0.02) == better, "quality comes before the signal"


@pytest.mark.parametrize(
    "other",
    [
        candidate(1, 0.97, width=0.05),  # its interval reaches 1
        candidate(1, 0.985, width=0.001),  # within the noise
        candidate(1, 1.2),
        candidate(1, 0.3, violation=0.001),
        candidate(1, None, failure="OpenVINO is not installed"),
        candidate(1, 0.3, interval=None),
    ],
)
def test_what_is_no_gain_leaves_fp32(other: Candidate) -> None:
    assert winner([FP32, other], 0.02) == FP32
    assert contenders([FP32, other], 0.02) == []
