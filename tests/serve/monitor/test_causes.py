"""The kind of shift that labels point at, and the advice that follows; queues of cases that would decide."""

from functools import cache

import numpy as np
import pytest

from scripts.benchmarks.monitor_tasks import PLAN, Task
from seatrial.serve.monitor.attribution import Attributed, Residual, Shift, Signs, attributed
from seatrial.serve.monitor.diagnosis import advised
from seatrial.serve.monitor.labelling import UNSURE, chosen
from seatrial.serve.monitor.on_sklearn_causes import CauseFinder, Correctness
from seatrial.serve.monitor.segments import members, segments_of

BAD = Residual(segment="region = north", labels=80, observed=0.5, expected=0.2, chance=1e-8)
FINE = Residual(segment="all requests", labels=400, observed=0.2, expected=0.2, chance=0.5)


def signs(**changed: float) -> Signs:
    values = {"inputs": 0.5, "given_classes": 0.4, "classes": 0.8, "outcomes": 0.7, "labels": 500, "supported": 450}
    return Signs(residuals=(FINE,), **(values | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "shift"),
    [
        (signs(), "none"),
        (signs(inputs=9.0, given_classes=8.0), "covariate"),
        (signs(inputs=9.0, given_classes=8.0, classes=6.0), "covariate"),
        (signs(inputs=9.0, given_classes=1.0, classes=6.0), "label"),
        (signs(labels=60), "unknown"),
    ],
)
def test_the_signs_name_the_shift(found: Signs, shift: Shift) -> None:
    assert attributed(found).shift == shift


def test_a_wrong_segment_is_concept_drift_only_where_the_reference_has_support() -> None:
    kwargs = {"given_classes": 0.4, "classes": 0.8, "outcomes": 4.0, "labels": 500}
    wrong = Signs(residuals=(FINE, BAD), inputs=0.5, supported=450, **kwargs)  # type: ignore[arg-type]
    found = attributed(wrong)
    assert (found.shift, found.segment) == ("concept", "region = north")
    assert "50.0% of 80 labels" in found.reasons[0]
    outside = Signs(residuals=(FINE, BAD), inputs=30.0, supported=40, **kwargs)  # type: ignore[arg-type]
    assert attributed(outside).shift == "covariate"
    assert "not excluded" in attributed(outside).against[0]


@pytest.mark.parametrize(
    ("shift", "harmed", "released", "advice"),
    [
        ("none", False, False, "wait"),
        ("none", True, False, "unknown"),
        ("none", True, True, "rollback"),
        ("covariate", False, True, "wait"),
        ("covariate", True, False, "retrain"),
        ("label", True, True, "retrain"),
        ("concept", True, False, "retrain"),
        ("concept", True, True, "rollback"),
        ("unknown", True, False, "unknown"),
    ],
)
def test_the_advice_follows_from_the_cause(shift: Shift, harmed: bool, released: bool, advice: str) -> None:
    found = advised(Attributed(shift=shift, segment="x"), harmed=harmed, released=released)
    assert (found.kind, found.advice) == (shift, advice)


@cache
def task() -> Task:
    return Task(seed=31, rows=8000)


@cache
def finder() -> CauseFinder:
    columns = task().reference.columns
    known = task().labelled(columns, columns["label"].astype(np.int64))
    segments = segments_of(PLAN, columns)
    return CauseFinder(known, segments, members(segments, columns), Correctness(known))


@pytest.mark.parametrize(
    ("scenario", "shift"),
    [("none", "none"), ("covariate 1", "covariate"), ("covariate 3", "covariate"), ("concept 1", "concept")],
)
@pytest.mark.slow
def test_labels_of_a_window_point_at_what_happened(scenario: str, shift: str) -> None:
    columns, truth = task().window(1000, scenario)
    window = task().labelled(columns, truth)
    masks = members(segments_of(PLAN, task().reference.columns), columns)
    found = attributed(finder().signs(window.at(slice(0, 500)), masks[:, :500], window.features[500:]))
    assert found.shift == shift
    if shift == "concept":
        assert found.segment.startswith("x6 above")


def test_a_model_that_is_always_right_can_be_learned_from() -> None:
    columns = task().reference.columns
    known = task().labelled(columns, columns["label"].astype(np.int64))
    right = type(known)(features=known.features, predicted=known.truth, confidence=known.confidence, truth=known.truth)
    assert Correctness(right).chance(known.features[:5], known.confidence[:5]).tolist() == [1.0] * 5


def test_a_queue_is_random_but_for_what_would_decide() -> None:
    draw = np.random.default_rng(1)
    inside = np.arange(1000) < 100
    cases = chosen(100, 1000, draw, suspects={"region = north": (50.0, inside)}, chance=None)
    by = {name: [each.place for each in cases if each.chosen_by == name] for name in {each.chosen_by for each in cases}}
    assert {name: len(places) for name, places in by.items()} == {"random": 70, "segment: region = north": 30}
    assert max(by["segment: region = north"]) < 100
    assert len({each.place for each in cases}) == 100
    chance = np.linspace(0.5, 1.0, 1000)
    unsure = [each.place for each in chosen(100, 1000, draw, suspects={}, chance=chance) if each.chosen_by == UNSURE]
    assert len(unsure) == 30
    assert max(unsure) < 60
    assert {each.chosen_by for each in chosen(10, 50, draw, suspects={}, chance=None)} == {"random"}
    assert len(chosen(80, 50, draw, suspects={}, chance=None)) == 50
