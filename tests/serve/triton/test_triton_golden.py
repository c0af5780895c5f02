"""Comparing answers with a reference: what is equal passes, and what differs is named by sample and output."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples
from seatrial.serve.errors import RequestError
from seatrial.serve.triton.proof.golden import Answer, Difference, GoldenReport, compare, lengths

Array = np.ndarray[Any, np.dtype[Any]]
X = (TensorSpec(name="x", dtype="float32", shape=("n", 2)),)
SAMPLES = Samples(split="golden", inputs={"x": np.arange(10, dtype=np.float32).reshape(5, 2)}, labels=None)


def double(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2, "first": (inputs["x"][:, 0] > 4).astype(np.int64)}


def failures(serve: Answer, batch: int, samples: Samples = SAMPLES) -> list[Difference]:
    return [each for _, found in compare(serve, double, samples, X, batch) for each in found if each.why]


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
def test_the_same_answers_agree_at_every_batch(batch: int) -> None:
    asked = list(compare(double, double, SAMPLES, X, batch))
    assert failures(double, batch) == []
    assert all(len(rows) == batch for rows, _ in asked), "every request must be full"
    assert {row for rows, _ in asked for row in rows} == set(range(5))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_wrong_row_is_named(batch: int) -> None:
    def wrong(inputs: Mapping[str, Array]) -> dict[str, Array]:
        answer = double(inputs)
        answer["y"][inputs["x"][:, 0] == 6] += 0.5
        return answer

    (found,) = failures(wrong, batch)
    assert (found.sample, found.output, found.batch) == (3, "y", batch)
    assert found.largest == pytest.approx(0.5)


def test_rows_that_changed_places_are_found() -> None:
    assert {each.output for each in failures(lambda inputs: {k: v[::-1] for k, v in double(inputs).items()}, 5)} == {
        "y",
        "first",
    }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: {"y": answer["y"]},
        lambda answer: answer | {"y": answer["y"].astype(np.float64)},
        lambda answer: answer | {"y": answer["y"][:, :1]},
        lambda answer: answer | {"y": answer["y"] * np.nan},
        lambda answer: answer | {"y": np.full_like(answer["y"], np.inf)},
        lambda answer: answer | {"first": answer["first"] + 1},
    ],
)
def test_what_is_missing_or_of_another_kind_differs(spoil: Any) -> None:
    assert failures(lambda inputs: spoil(double(inputs)), 5)


def test_a_scalar_per_item_may_come_as_an_axis_of_one_and_equal_infinities_are_equal() -> None:
    assert failures(lambda inputs: double(inputs) | {"first": double(inputs)["first"][:, None]}, 5) == []

    def endless(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.array([np.inf, -np.inf, np.nan])}

    assert [each.largest for _, found in compare(endless, endless, SAMPLES, X, 5) for each in found] == [0.0]


def test_a_refused_request_is_a_difference_and_not_the_end() -> None:
    def refusing(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"][0, 0] == 4:
            raise RequestError("no", status=500)
        return double(inputs)

    (found,) = failures(refusing, 1)
    assert (found.sample, found.why, found.largest) == (2, "no", float("inf"))


def test_samples_without_the_models_input_are_refused() -> None:
    with pytest.raises(ConfigError, match="lack the inputs"):
        list(compare(double, double, Samples(split="golden", inputs={"z": np.zeros(1)}, labels=None), X, 1))


def test_a_report_of_nothing_has_not_passed() -> None:
    report = GoldenReport(model="m", version="1", batch_sizes=(1,), requests=0, largest=0.0, differences=())
    assert not report.passed
    assert "no answer was compared" in str(report)


@pytest.mark.parametrize(
    ("shape", "fits"),
    [(("n", 2), True), (("n", "y.1"), True), (("n", 3), False), ((5, 2), False), (("n", 1, 2), False), (("n",), False)],
)
def test_an_answer_of_another_shape_than_declared_is_a_difference(shape: tuple[int | str, ...], fits: bool) -> None:
    declared = (TensorSpec(name="y", dtype="float32", shape=shape),)
    found = [
        each.why
        for batch in (1, 5)
        for _, rows in compare(double, double, SAMPLES, X, batch, declared=declared)
        for each in rows
        if each.why
    ]
    assert (found == []) is fits
    assert all("the model declares" in why for why in found)


def test_a_length_that_is_declared_fixed_is_found_at_another_length() -> None:
    def tag(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.repeat(inputs["x"][:, :, None], 12, axis=2)}

    given = (TensorSpec(name="x", dtype="float32", shape=("batch", "length")),)
    samples = Samples(split="golden", inputs={"x": np.ones((4, 8), np.float32)}, labels=None)
    (other,) = lengths(given, samples, tag, 1).values()
    assert other.inputs["x"].shape[1] != 8
    for shape, fits in (((("batch", 8, 12)), False), (("batch", "length", 12), True)):
        declared = (TensorSpec(name="y", dtype="float32", shape=shape),)
        found = [each.why for _, rows in compare(tag, tag, other, given, 1, declared=declared) for each in rows]
        assert any(found) is not fits


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_mixed_up_rows_are_seen_whatever_the_size_of_an_output(scale: float, offset: float) -> None:
    def right(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": ((np.sin(inputs["x"]) + offset) * scale).astype(np.float32)}

    def rounded(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.nextafter(right(inputs)["y"], np.float32(np.inf))}

    def mixed(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": right(inputs)["y"][::-1].copy()}

    def reasons(serve: Answer) -> list[str]:
        return [each.why for _, found in compare(serve, right, SAMPLES, X, 5) for each in found if each.why]

    assert not reasons(rounded)
    assert reasons(mixed)


def test_texts_are_equal_whether_they_come_as_bytes_or_not() -> None:
    def served(*texts: str | bytes) -> Answer:
        return lambda inputs: {"y": np.array(texts, dtype=np.object_)}

    def wrong(serve: Answer) -> list[int]:
        right = served(*"aabba")
        return [each.sample for _, found in compare(serve, right, SAMPLES, X, 5) for each in found if each.why]

    assert wrong(served(b"a", b"a", b"b", b"b", b"a")) == []
    assert wrong(served(b"a", b"a", b"b", b"b", b"b")) == [4]
