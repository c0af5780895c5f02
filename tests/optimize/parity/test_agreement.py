"""What each kind of output is, which faults break the default contract, and which contracts are refused."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scripts.benchmarks.nets import DECIDED, KINDS, Made, drawn
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.parity.agreement import futile, measure
from seatrial.optimize.parity.measures import kind_of, relative_error, spread_of
from seatrial.optimize.parity.parity import compare
from seatrial.optimize.recipe.configs import CAST, ENGINE, QUANTIZED, Tolerance
from seatrial.optimize.samples import Array, Samples

RANDOM = np.random.default_rng(2)
LOGITS = RANDOM.normal(size=(256, 10)) * 3
PROBABILITY = 1 / (1 + np.exp(-RANDOM.normal(size=(256, 1))))
Change = Callable[[Array], Array]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (LOGITS[:, 0] * 100, "score"),
        (PROBABILITY, "probability"),
        (np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True), "probability"),
        (LOGITS, "logits"),
        (LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True), "embedding"),
        (LOGITS.reshape(16, 4, 4, 10), "map"),
        (LOGITS.argmax(axis=1), "integer"),
        (LOGITS > 0, "mask"),
        ((LOGITS > 0).astype(np.float32), "mask"),
        (np.array(["cat", "dog"], dtype=object), "text"),
        (np.where(np.arange(10) < 3, -np.inf, LOGITS), "logits"),
    ],
)
def test_the_kind_of_an_output(array: Array, kind: str) -> None:
    assert kind_of(array) == kind


@pytest.mark.parametrize("contract", [QUANTIZED, CAST, ENGINE], ids=["quantized", "cast", "engine"])
@pytest.mark.parametrize(
    ("array", "change"),
    [
        (PROBABILITY, lambda y: np.full_like(y, y.mean())),
        (PROBABILITY[:, 0], lambda y: np.full_like(y, y.mean())),
        (300 + PROBABILITY, lambda y: np.full_like(y, y.mean())),
        (300 + PROBABILITY, lambda y: y[::-1]),
        (300 + PROBABILITY, lambda y: 300 + (y - 300) * 0.5),
        (PROBABILITY * 1e-15, lambda y: y * 1.5),
        (LOGITS, lambda y: np.repeat(y[:1], len(y), axis=0)),
        (LOGITS, lambda y: y * 1.5),
        (LOGITS, lambda y: y[:, [1, 0, *range(2, 10)]]),
        (LOGITS, lambda y: np.where(np.arange(10) == 4, y.mean(), y)),
        (np.tile(LOGITS, 100), lambda y: np.where(np.arange(1000) == 4, y.mean(), y)),
        (np.hstack([LOGITS[:, :4] * 100, PROBABILITY]), lambda y: np.where(np.arange(5) == 4, 0, y)),
        (LOGITS.argmax(axis=1), lambda y: np.full_like(y, 3)),
        (np.arange(256) % 50 == 0, lambda y: np.zeros_like(y)),
        (np.array(["cat", "dog"] * 32, dtype=object), lambda y: np.full_like(y, "cat")),
    ],
)
def test_a_wrong_output_breaks_every_default_contract(array: Array, change: Change, contract: Any) -> None:
    assert measure("y", array, change(array), contract["*"]).broken
    assert not measure("y", array, array.copy(), contract["*"]).broken


@pytest.mark.parametrize("kind", [*KINDS, *DECIDED])
def test_a_good_int8_is_within_the_default_contract(kind: str) -> None:
    net = drawn(np.random.default_rng(11), kind)
    assert not [row.broken for row in compare(Made(net.float_), Made(net.int8), net.samples, QUANTIZED) if row.broken]


@pytest.mark.parametrize("limits", [Tolerance(cosine=0.9), Tolerance(agreement=0.97), Tolerance()])
def test_a_contract_that_says_nothing_of_one_number_a_row_is_refused(limits: Tolerance) -> None:
    samples = Samples(split="calibration", inputs={"x": PROBABILITY}, labels=None)
    with pytest.raises(ConfigError, match="cannot fail on output 'y'") as caught:
        compare(Made(lambda x: x), Made(lambda x: x * 0 + 0.5), samples, {"*": limits})
    assert "spread_error" in caught.value.next_step
    compare(Made(lambda x: x), Made(lambda x: x), samples, {"*": Tolerance(spread_error=0.2)})


def test_a_direction_that_a_constant_has_too_is_no_contract() -> None:
    offset = 1000 + LOGITS
    constant = np.broadcast_to(offset.mean(axis=0), offset.shape)
    row = measure("y", offset, constant, Tolerance(cosine=0.98))
    assert row.blind
    assert "one constant row" in futile([row])
    assert not futile([measure("y", LOGITS, LOGITS, Tolerance(cosine=0.98))])
    assert measure("y", offset, constant, Tolerance(cosine=0.98, spread_error=0.5)).broken


@pytest.mark.parametrize("limits", [{"cosine": -1.0}, {"agreement": 0.0}, {"spread_error": float("inf")}])
def test_a_limit_that_nothing_breaks_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="no output can break"):
        Tolerance(**limits)


@pytest.mark.parametrize(("rows", "flips", "broken"), [(4, 1, False), (4, 4, True), (64, 3, False), (64, 9, True)])
def test_few_rows_break_a_share_only_where_chance_does_not_explain_it(rows: int, flips: int, broken: bool) -> None:
    same = np.arange(rows)
    found = measure("y", same, same + (same < flips), Tolerance(agreement=0.97))
    assert bool(found.broken) is broken
    assert found.least <= found.agreement < 1


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, -1e4, -65504.0, -1e9, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("hidden", [np.arange(10) < 3, RANDOM.random((256, 10)) < 0.3], ids=["columns", "elements"])
def test_what_stands_beside_a_mask_is_still_compared(value: float, hidden: Array) -> None:
    right = np.where(hidden, value, LOGITS)
    noise = RANDOM.normal(size=LOGITS.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound = measure("y", right, np.where(hidden, value, LOGITS + 0.01 * noise), QUANTIZED["*"])
        off = measure("y", right, np.where(hidden, value, LOGITS + 1.2 * noise), QUANTIZED["*"])
        moved = measure("y", right, np.roll(right, 1, axis=1), QUANTIZED["*"])
    assert not sound.broken
    assert sound.spread_error == pytest.approx(0.01 / 3, rel=0.2)
    assert off.broken
    assert moved.broken


def test_values_that_are_not_finite_in_one_alone_have_no_relative_error() -> None:
    one = np.array([[1.0, -np.inf], [2.0, -np.inf]])
    assert relative_error(one, one) == 0
    assert relative_error(one, one * [[1.1, 1]]) == pytest.approx(0.1)
    assert relative_error(one, np.zeros_like(one)) == np.inf
    assert relative_error(np.zeros((2, 2)), one) == np.inf


def test_an_output_that_samples_do_not_vary_is_held_against_its_size() -> None:
    still = np.full((64, 4), 5.0) + RANDOM.normal(size=(64, 4)) * 1e-7
    assert spread_of(still).still
    assert not measure("y", still, still + 1e-6, QUANTIZED["*"]).broken
    assert measure("y", still, still * 1.1, QUANTIZED["*"]).broken
