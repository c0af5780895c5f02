import json
from collections.abc import Callable, Mapping
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import ConfigError, ParityError, StageError
from seatrial.optimize.parity.parity import Agreement, compare, cosines, enforce, measure
from seatrial.optimize.parity.sweep import Point
from seatrial.optimize.recipe.configs import EXACT, QUANTIZED, Tolerance
from seatrial.optimize.samples import Array, Samples

RANDOM = np.random.default_rng(1)
SAMPLES = Samples(split="calibration", inputs={"x": RANDOM.normal(size=(64, 5)).astype(np.float32)}, labels=None)


class Made:
    """A session around a function of x."""

    def __init__(self, answer: Callable[[Array], Array]) -> None:
        self.answer = answer

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self.answer(inputs["x"])}


SAME = Made(lambda x: x * 2)


def nan_at_the_end(x: Array) -> Array:
    y = x * 2
    y[-1, 0] = np.nan
    return y


def test_equal_sessions_agree_exactly() -> None:
    agreements = compare(SAME, SAME, SAMPLES, EXACT)
    enforce(agreements, "here")
    assert {row.batch for row in agreements} == {1, 2, 32}
    assert all(row.relative_error == 0 and row.cosine == pytest.approx(1) for row in agreements)


@pytest.mark.parametrize(
    ("answer", "contract", "what"),
    [
        (lambda x: x * 2 + 0.01, EXACT, "relative error"),
        (lambda x: -x, QUANTIZED, "cosine"),
        (nan_at_the_end, {"*": Tolerance()}, "NaN"),
        (lambda x: x[:, :4], {"*": Tolerance()}, "shape"),
        (lambda x: np.roll(x * 2, 1, axis=1), {"y": Tolerance(agreement=0.9)}, "argmax agreement"),
        # right at batch 32 and wrong for a single sample: what a constant in the graph does
        (lambda x: x * 2 if len(x) > 1 else x, EXACT, "batch 1"),
    ],
)
def test_a_broken_contract_fails_with_measure_and_limit(
    answer: Callable[[Array], Array], contract: Mapping[str, Tolerance], what: str
) -> None:
    with pytest.raises(ParityError) as caught:
        enforce(compare(SAME, Made(answer), SAMPLES, contract), "quantize of net")
    assert what in caught.value.what
    assert caught.value.where == "quantize of net"
    assert caught.value.exit_code == 1


def test_a_contract_for_an_unknown_output_is_refused() -> None:
    with pytest.raises(ConfigError, match="z"):
        compare(SAME, SAME, SAMPLES, {"z": Tolerance()})


def test_cosines_of_zero_rows() -> None:
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert cosines(zero, zero) == [1.0]
    assert cosines(zero, one) == [0.0]


floats = st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=40).map(lambda row: np.array(row).reshape(1, -1))


@given(floats)
def test_identity_agrees_with_infinite_ratio_of_signal_to_noise(array: Array) -> None:
    found = measure("y", array, array.copy(), Tolerance(relative_error=0, snr=200.0, agreement=1, cosine=0.999999))
    assert (found.relative_error, found.snr, found.flips, found.top, found.broken) == (0, inf, 0, 1, ())


@given(floats.filter(lambda array: bool(np.abs(array).max() > 1e-3)), st.floats(1e-6, 0.9))
def test_an_error_of_scale_is_measured_as_what_it_is(array: Array, error: float) -> None:
    found = measure("y", array, array * (1 + error), Tolerance())
    assert found.relative_error == pytest.approx(error, rel=1e-6)
    assert found.snr == pytest.approx(-20 * np.log10(error), abs=1e-3)
    assert found.cosine == pytest.approx(1)
    assert found.flips == 0


@given(st.integers(1, 6), st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_noise_of_known_energy_has_its_ratio(rows: int, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    signal, noise = random.normal(size=(2, rows, 50))
    noise *= share * np.linalg.norm(signal) / np.linalg.norm(noise)
    found = measure("y", signal, signal + noise, Tolerance())
    assert found.snr == pytest.approx(-20 * np.log10(share), abs=1e-6)


def test_flips_and_the_greatest_in_common_are_counted() -> None:
    expected = np.array([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]] * 4)
    got = expected.copy()
    got[0, [0, 1]] = got[0, [1, 0]]  # another winner, the same five
    got[1, [4, 5]] = got[1, [5, 4]]  # the same winner, one of five replaced
    found = measure("y", expected, got, Tolerance())
    assert (found.flips, found.agreement) == (1, 0.75)
    assert found.top == pytest.approx(0.95)
    numbers = measure("y", np.arange(40), np.arange(40) + (np.arange(40) < 10), Tolerance(agreement=0.97))
    assert (numbers.flips, numbers.agreement) == (10, 0.75)
    assert "agreement" in numbers.broken[0]


@pytest.mark.parametrize(
    "found",
    [
        measure("y", np.ones((2, 3)), np.ones((2, 3)), Tolerance(snr=10.0)),
        measure("y", np.ones((2, 3)), np.full((2, 3), np.nan), Tolerance()),
        measure("y", np.ones((2, 3)), np.ones((2, 4)), Tolerance(cosine=0.5)),
        measure("y", np.ones((2, 3)), np.ones((2, 3)) * 1.1, EXACT["*"]),
    ],
)
def test_agreements_go_through_json_and_earlier_ones_are_read(found: Agreement) -> None:
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Agreement.from_json(json.loads(text)) == found
    earlier = {key: value for key, value in json.loads(text).items() if key not in ("snr", "flips", "top", "lengths")}
    earlier["tolerance"] = {"relative_error": None, "cosine": 0.9, "agreement": None}
    assert Agreement.from_json(earlier).tolerance == Tolerance(cosine=0.9)


def short(x: Array) -> Array:
    if x.shape[1] < 2:
        raise StageError("too short")
    return np.asarray(x.mean(axis=1))


@pytest.mark.parametrize(
    ("reference", "candidate", "broken"),
    [
        (short, short, {}),  # length 1 is refused by both: left out
        (lambda x: x.mean(axis=1), short, {1: "the candidate cannot run it, the reference can"}),
        (lambda x: x.mean(axis=1), lambda x: x.sum(axis=1) / 5, {1: "relative error", 2: "relative error"}),
    ],
)
def test_lengths_are_tried(
    reference: Callable[[Array], Array], candidate: Callable[[Array], Array], broken: Mapping[int, str]
) -> None:
    inputs = (TensorSpec(name="x", dtype="float32", shape=("n", "steps")),)
    points = [Point(batch=8, lengths={"steps": size}) for size in (1, 2)]
    rows = compare(Made(reference), Made(candidate), SAMPLES, EXACT, inputs=inputs, points=[Point(batch=64), *points])
    said = {row.lengths["steps"]: row.broken[0] for row in rows if row.broken}
    assert said.keys() == broken.keys()
    assert all(text in said[size] for size, text in broken.items())
