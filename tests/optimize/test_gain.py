from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.artifact import Artifact, File
from optimize.gain import Gain, judge
from optimize.pace import Pace
from tests.models.made_by import MADE_BY


def artifact(size: int, format_: str = "onnx") -> Artifact:
    file = File(path="model.onnx", digest="sha256:" + "0" * 64, size=size)
    made = Artifact(name="m", format="onnx", files=(file,), inputs=(), outputs=(), requires={}, made_by=MADE_BY)
    return replace(made, format=format_)  # type: ignore[arg-type]


def pace(low: float, high: float) -> Pace:
    middle = (low * high) ** 0.5
    return Pace(ratio=middle, low=low, high=high, seconds=middle, reference_seconds=1.0, batch=32, pairs=12)


@pytest.mark.parametrize(
    ("low", "high", "size", "verdict"),
    [
        (0.4, 0.5, 1000, "pays"),
        (0.4, 0.5, 2000, "pays"),
        (0.9, 1.1, 1000, "no gain"),
        (0.9, 1.0, 1000, "no gain"),
        (1.2, 1.3, 1200, "no gain"),
        (1.2, 1.3, 500, "pays"),
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
    if judge(artifact(1000), artifact(size), pace(low, low * width)) == "no gain":
        assert judge(artifact(1000), artifact(size + 1), pace(low, low * width * 1.5)) == "no gain"
