"""The search for layers to keep in float, on laws that are known exactly."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.stages.sensitivity import Layers, Measure, Point, front, search, search_by_noise

NAMES = ("a", "b", "c", "d", "e")
COSTS = st.fixed_dictionaries({name: st.floats(0, 0.05) for name in NAMES})
TIMES = st.fixed_dictionaries({name: st.floats(-0.05, 0.15) for name in NAMES})


def additive(lost: Mapping[str, float], gained: Mapping[str, float]) -> Measure:
    """Every layer loses so much quality in integers, and saves so much of the parent's time."""

    def measure(kept: Layers) -> Point:
        latency = 1 - sum(time for name, time in gained.items() if name not in kept)
        drop = sum(cost for name, cost in lost.items() if name not in kept)
        return Point(kept=kept, drop=drop, latency=latency, low=latency - 1e-6, high=latency + 1e-6)

    return measure


@given(lost=COSTS, gained=TIMES, floor=st.floats(0, 0.2), most=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_what_is_chosen_was_measured_and_keeps_the_floor(
    lost: dict[str, float], gained: dict[str, float], floor: float, most: int
) -> None:
    asked: list[Layers] = []
    law = additive(lost, gained)

    def measure(kept: Layers) -> Point:
        asked.append(kept)
        return law(kept)

    choice = search(NAMES, measure, floor=floor, most=most)
    assert len(asked) == len(set(asked)) == len(choice.points) <= most
    if choice.chosen is not None:
        assert choice.chosen in choice.points
        assert choice.chosen.drop <= floor
        assert not any(point.drop <= floor and point.latency < choice.chosen.latency for point in choice.points)
        assert set(choice.reasons) <= set(choice.chosen.kept)


@given(lost=COSTS, gained=TIMES, floor=st.floats(1e-6, 0.2))
@settings(max_examples=100, deadline=None)
def test_with_room_to_measure_a_choice_within_the_floor_is_found(
    lost: dict[str, float], gained: dict[str, float], floor: float
) -> None:
    assert search(NAMES, additive(lost, gained), floor=floor, most=40).chosen is not None


points = st.builds(
    lambda drop, latency: Point(kept=frozenset(), drop=drop, latency=latency, low=latency, high=latency),
    st.floats(0, 1),
    st.floats(0.1, 2),
)


@given(st.lists(points, max_size=20))
@settings(deadline=None)
def test_the_front_holds_no_beaten_point_and_misses_none(found: list[Point]) -> None:
    best = front(found)
    for point in found:
        beaten = any(
            (other.drop, other.latency) != (point.drop, point.latency)
            and other.drop <= point.drop
            and other.latency <= point.latency
            for other in found
        )
        same = any((other.drop, other.latency) == (point.drop, point.latency) for other in best)
        assert same != beaten


def test_one_sensitive_layer_is_the_one_that_is_kept() -> None:
    law = additive({name: 0.05 if name == "c" else 0.0005 for name in NAMES}, dict.fromkeys(NAMES, 0.1))
    choice = search(NAMES, law, floor=0.01, most=30)
    assert choice.chosen is not None
    assert choice.chosen.kept == {"c"}
    assert choice.sensitivities[0].layer == "c"
    assert choice.sensitivities[0].regained == pytest.approx(0.05)
    assert "regains 0.05" in choice.reasons["c"]


def test_a_layer_that_is_slower_in_integers_stays_in_float_though_quality_does_not_ask() -> None:
    law = additive(dict.fromkeys(NAMES, 0.0), {name: -0.05 if name == "b" else 0.1 for name in NAMES})
    choice = search(NAMES, law, floor=0.01, most=30)
    assert choice.chosen is not None
    assert choice.chosen.kept == {"b"}
    assert "faster in float" in choice.reasons["b"]


def test_no_choice_within_the_floor_is_none() -> None:
    def hopeless(kept: Layers) -> Point:
        return Point(kept=kept, drop=0.5, latency=0.4, low=0.39, high=0.41)

    choice = search(NAMES, hopeless, floor=0.01, most=30)
    assert choice.chosen is None
    assert choice.reasons == {}


@given(lost=COSTS, gained=TIMES, noise=COSTS, floor=st.floats(0, 0.2), most=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
@pytest.mark.slow
def test_by_noise_what_is_chosen_was_measured_and_keeps_the_floor_whatever_the_order(
    lost: dict[str, float], gained: dict[str, float], noise: dict[str, float], floor: float, most: int
) -> None:
    asked: list[Layers] = []
    law = additive(lost, gained)

    def measure(kept: Layers) -> Point:
        asked.append(kept)
        return law(kept)

    choice = search_by_noise(noise, measure, floor=floor, most=most)
    assert len(asked) == len(set(asked)) == len(choice.points) <= most
    if choice.chosen is not None:
        assert choice.chosen in choice.points
        assert choice.chosen.drop <= floor
        assert not any(point.drop <= floor and point.latency < choice.chosen.latency for point in choice.points)
        assert set(choice.reasons) == set(choice.chosen.kept)
    elif most >= 2 * len(NAMES) + 2:
        assert all(point.drop > floor for point in choice.points)


@given(
    lost=st.dictionaries(st.integers(0, 10**6), st.floats(1e-4, 0.05), min_size=1, max_size=64),
    share=st.floats(0.001, 0.999),
)
@settings(max_examples=200, deadline=None)
@pytest.mark.slow
def test_where_noise_tells_the_loss_as_few_layers_stay_in_float_as_the_floor_lets(
    lost: dict[int, float], share: float
) -> None:
    law = {str(name): cost for name, cost in lost.items()}
    floor = share * sum(law.values())
    choice = search_by_noise(law, additive(law, dict.fromkeys(law, 0.5 / len(law))), floor=floor, most=200)
    assert choice.chosen is not None
    costs = sorted(law.values(), reverse=True)
    least = next(count for count in range(len(costs) + 1) if sum(costs[count:]) <= floor)
    assert len(choice.chosen.kept) <= least + 1  # the sums of floats may differ in the last bit
    assert len(choice.points) <= 2 * len(law).bit_length() + 2 + least


def test_by_noise_few_choices_are_measured_of_many_layers() -> None:
    law = {f"layer {number}": 0.05 if number < 4 else 0.0001 for number in range(48)}
    choice = search_by_noise(law, additive(law, dict.fromkeys(law, 0.01)), floor=0.01, most=20)
    assert choice.chosen is not None
    assert choice.chosen.kept == {f"layer {number}" for number in range(4)}
    assert len(choice.points) <= 10
    assert "of 48" in choice.reasons["layer 0"]
