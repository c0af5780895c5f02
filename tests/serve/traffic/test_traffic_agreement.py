"""How two answers differ, and when many of them are enough to say so."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seatrial.optimize.errors import ConfigError
from seatrial.serve.traffic.shadow.agreement import KEPT, AgreementLimits, agreement, worst
from seatrial.serve.traffic.shadow.differing import Differing, differing

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-20, 20, width=32)
)
SAME = Differing(output="y", rows=1, same=1.0, cosine=1.0, drift=0.0)
OTHER = replace(SAME, same=0.0, cosine=0.9, drift=0.1, largest=2.0, relative=0.5, tops=(0, 1, 2, 0.6, 0.7))


def many(count: int, wrong: int = 0, *, wrongly: Differing = OTHER) -> list[Differing]:
    """So many requests, the last ones wrong."""
    return [replace(wrongly if number >= count - wrong else SAME, request=str(number)) for number in range(count)]


@given(LOGITS)
def test_an_answer_agrees_with_itself(logits: Any) -> None:
    (found,) = differing({"y": logits}, {"y": logits.copy()})
    assert (found.same, found.drift, found.largest, found.relative, found.broken) == (1.0, 0.0, 0.0, 0.0, "")
    assert found.cosine == pytest.approx(1.0)


@given(LOGITS, st.floats(0.5, 4))
def test_sharper_logits_are_the_same_class_with_more_confidence(logits: Any, factor: float) -> None:
    shifted = logits - logits.max() - 1  # below zero, so that they cannot be taken for probabilities
    (found,) = differing({"y": shifted}, {"y": (shifted * np.float32(factor)).astype(np.float32)})
    assert found.drift is not None
    assert found.drift >= -1e-6 if factor >= 1 else found.drift <= 1e-6
    assert found.cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ({}, "only the stable version"),
        ({"y": np.zeros((2, 3), np.float64)}, "type float64"),
        ({"y": np.zeros((2, 4), np.float32)}, "shape"),
        ({"y": np.full((2, 3), np.nan, np.float32)}, "NaN"),
        ({"y": np.zeros((2, 3), np.float32), "z": np.zeros(1, np.float32)}, "only the candidate"),
    ],
)
def test_what_no_tolerance_excuses_is_broken_and_fails_at_once(candidate: Any, said: str) -> None:
    found = differing({"y": np.zeros((2, 3), np.float32)}, candidate, request="r7")
    (broken,) = (each for each in found if each.broken)
    assert said in broken.broken
    verdict = agreement([*many(5000), *found], {})
    assert verdict.outcome == "FAIL"
    assert "r7" in verdict.reasons[0]
    assert verdict.worst[0].broken


def test_nan_in_both_is_no_difference_and_in_the_stable_answer_alone_neither() -> None:
    one = np.array([[np.nan, 1.0]], np.float32)
    for other in (one, np.array([[0.0, 1.0]], np.float32)):
        assert differing({"y": one}, {"y": other})[0].broken == ""


@pytest.mark.parametrize(
    ("one", "other", "same", "largest"),
    [
        (np.array([1, 2, 3]), np.array([1, 2, 5]), 2 / 3, 2.0),
        (np.array([[b"cat"], [b"dog"]], object), np.array([[b"cat"], [b"cow"]], object), 0.5, 1.0),
        (np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.6, 0.4], [0.8, 0.2]]), 0.5, 0.5),
    ],
)
def test_labels_text_and_probabilities_are_compared_by_row(one: Any, other: Any, same: float, largest: float) -> None:
    (found,) = differing({"y": one}, {"y": other})
    assert found.same == pytest.approx(same)
    assert found.largest == pytest.approx(largest)


def test_the_first_row_that_disagrees_is_kept_with_both_confidences() -> None:
    one, other = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0.9, 0.1], [0.3, 0.7]])
    assert differing({"y": one}, {"y": other})[0].tops == (1, 0, 1, 0.8, 0.7)


def test_an_output_that_is_empty_or_a_single_number_says_what_it_can() -> None:
    (empty,) = differing({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))})
    (single,) = differing({"y": np.ones(1)}, {"y": np.full(1, 1.5)})
    assert (empty.rows, empty.same, empty.broken) == (0, None, "")
    assert (single.same, single.cosine, single.largest) == (None, None, 0.5)


def test_identical_answers_pass_when_there_are_enough_and_the_forecast_says_when() -> None:
    early = agreement(many(100), {})
    assert early.outcome == "INCONCLUSIVE"
    assert early.needed is not None
    assert agreement(many(100 + early.needed), {}).outcome == "PASS"
    assert agreement(many(90 + early.needed), {}).outcome == "INCONCLUSIVE"


def test_one_in_twenty_wrong_fails_and_a_thousandth_passes() -> None:
    assert agreement(many(1000, 50), {}).outcome == "FAIL"
    assert agreement(many(3000, 3), {}).outcome == "PASS"


@pytest.mark.slow
def test_a_candidate_at_its_limit_hardly_ever_fails_however_often_one_looks() -> None:
    """100 candidates that disagree in 1 % of 2000 requests, looked at 6 times; alpha 5 %, chance makes it 13."""
    random, failed = np.random.default_rng(3), 0
    limits = {"*": AgreementLimits(top1_at_least=0.99, alpha=0.05)}
    bare = Differing(output="y", rows=1, same=1.0)
    for _ in range(100):
        wrong = random.random(2000) < 0.01
        found = [replace(bare, same=1.0 - bad, request=str(number)) for number, bad in enumerate(wrong)]
        failed += any(
            agreement(found[:look], limits).outcome == "FAIL" for look in np.geomspace(50, 2000, 6).astype(int)
        )
    assert failed <= 13


def test_every_limit_judges_its_own_measure() -> None:
    drifting = [replace(SAME, request=str(n), drift=0.2, largest=1.0, cosine=0.8) for n in range(3000)]
    for limits, outcome in (
        (AgreementLimits(top1_at_least=0.99), "PASS"),
        (AgreementLimits(cosine_at_least=0.9), "FAIL"),
        (AgreementLimits(cosine_at_least=0.7), "PASS"),
        (AgreementLimits(drift_at_most=0.05), "FAIL"),
        (AgreementLimits(drift_at_most=0.3), "PASS"),
        (AgreementLimits(max_error_at_most=0.99), "FAIL"),
        (AgreementLimits(max_error_at_most=1.0), "PASS"),
        (AgreementLimits(), "INCONCLUSIVE"),
    ):
        assert agreement(drifting, {"y": limits}).outcome == outcome, limits
        assert agreement(drifting, {"*": limits}).outcome == outcome, limits


def test_what_was_not_compared_keeps_a_candidate_from_passing_but_never_fails_it() -> None:
    verdict = agreement(many(3000), {}, unmatched={"the candidate did not answer in time": 1000})
    assert verdict.outcome == "INCONCLUSIVE"
    assert "3000 of 4000" in verdict.reasons[0]
    assert agreement(many(3000), {}, aside={"the request id came again": 1000}).outcome == "PASS"
    assert agreement([], {}).outcome == "INCONCLUSIVE"


@settings(max_examples=40)
@given(st.lists(st.floats(0, 10), max_size=80))
def test_disagreements_for_review_are_bounded_and_the_worst_come_first(errors: list[float]) -> None:
    found = [replace(SAME, relative=error, request=str(number)) for number, error in enumerate(errors)]
    kept = worst(found)
    assert len(kept) == min(KEPT, sum(error > 0 for error in errors))
    assert [each.relative for each in kept] == sorted((e for e in errors if e > 0), reverse=True)[:KEPT]


@pytest.mark.parametrize(
    "wrong", [{"top1_at_least": 1.0}, {"cosine_at_least": 2.0}, {"alpha": 0.0}, {"drift_at_most": 0.0}]
)
def test_a_limit_that_nothing_can_prove_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AgreementLimits(**wrong)
