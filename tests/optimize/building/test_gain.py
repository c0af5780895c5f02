from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.building.gain import Change, Gain, changes, dropped, judge, rule
from seatrial.optimize.recipe.recipe import OnNoGain, Resource
from seatrial.optimize.timing.memory import Memory
from seatrial.optimize.timing.pace import LatencyRatio
from tests.support.made_by import MADE_BY


def artifact(size: int, format_: str = "onnx") -> Artifact:
    file = File(path="model.onnx", digest="sha256:" + "0" * 64, size=size)
    made = Artifact(name="m", format="onnx", files=(file,), inputs=(), outputs=(), requires={}, made_by=MADE_BY)
    return replace(made, format=format_)  # type: ignore[arg-type]


def pace(low: float, high: float) -> LatencyRatio:
    middle = (low * high) ** 0.5
    return LatencyRatio(ratio=middle, low=low, high=high, seconds=middle, reference_seconds=1.0, batch=32, pairs=12)


@pytest.mark.parametrize(
    ("low", "high", "size", "verdict"),
    [
        (0.4, 0.5, 1000, "pays"),
        (0.4, 0.5, 2000, "pays"),
        (0.9, 1.1, 1000, "no gain"),
        (0.9, 1.0, 1000, "no gain"),
        (1.2, 1.3, 1200, "slower"),
        (1.2, 1.3, 500, "slower"),
        (1.01, 1.3, 500, "pays"),
        (1.01, 1.3, 1000, "no gain"),
        (0.9, 1.1, 999, "no gain"),
    ],
)
def test_a_stage_pays_by_time_beyond_the_interval_or_by_size(low: float, high: float, size: int, verdict: Gain) -> None:
    assert judge(artifact(1000), artifact(size), pace(low, high)) == verdict


@given(low=st.floats(0.01, 10), width=st.floats(1, 3), size=st.integers(1, 10**6))
def test_a_stage_that_changes_the_format_is_needed_whatever_it_costs(low: float, width: float, size: int) -> None:
    assert judge(artifact(1000, "torch"), artifact(size), pace(low, low * width)) == "needed"


@given(low=st.floats(0.01, 10), width=st.floats(1, 3), size=st.integers(1, 10**6))
def test_a_wider_interval_or_a_bigger_file_never_makes_a_stage_pay(low: float, width: float, size: int) -> None:
    if judge(artifact(1000), artifact(size), pace(low, low * width)) in ("no gain", "slower"):
        assert judge(artifact(1000), artifact(size + 1), pace(low, low * width * 1.5)) in ("no gain", "slower")


def memory(bytes_: int) -> Memory:
    return Memory(bytes=bytes_, low=bytes_ - 10, high=bytes_ + 10, batch=32, processes=3)


def test_memory_alone_can_pay_and_does_not_make_up_for_time() -> None:
    lighter = (memory(2000), memory(1000))
    assert judge(artifact(1000), artifact(1000), pace(0.9, 1.1), lighter) == "pays"
    assert judge(artifact(1000), artifact(1000), pace(0.9, 1.1), (memory(2000), memory(1990))) == "no gain"
    assert judge(artifact(1000), artifact(500), pace(1.2, 1.3), lighter) == "slower"
    assert "memory" not in changes(artifact(1000), artifact(500), pace(1.2, 1.3), (memory(2000), None))


RULES = {
    "report": "report",
    "drop": "drop",
    "latency": OnNoGain(latency="drop"),
    "size": OnNoGain(size="drop"),
    "memory": OnNoGain(memory="drop"),
    "all": OnNoGain(latency="drop", size="drop", memory="drop"),
}


@pytest.mark.parametrize(
    ("latency", "size", "memory", "by"),
    [
        ("better", "better", "better", set()),
        ("better", "worse", "same", {"size", "all"}),
        ("worse", "better", "better", {"drop", "latency", "all"}),
        ("worse", "same", "same", {"drop", "latency", "size", "memory", "all"}),
        ("same", "same", "same", {"drop", "latency", "size", "memory", "all"}),
        ("same", "better", "worse", {"memory", "all"}),
        ("same", "same", "better", set()),
    ],
)
def test_each_resource_is_judged_apart(latency: Change, size: Change, memory: Change, by: set[str]) -> None:
    found: dict[Resource, Change] = {"latency": latency, "size": size, "memory": memory}
    assert {name for name, given in RULES.items() if dropped(found, rule(given))} == by  # type: ignore[arg-type]
