from collections.abc import Callable, Mapping

import numpy as np
import pytest

from optimize.errors import ConfigError, ParityError
from optimize.parity import compare, cosines, enforce
from optimize.samples import Array, Samples
from optimize.stages.configs import EXACT, QUANTIZED, Tolerance

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
