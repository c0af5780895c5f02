"""One request's outputs in both arms, beside values that are not finite."""

import warnings

import numpy as np
import pytest

from seatrial.serve.traffic.shadow.differing import differing

RANDOM = np.random.default_rng(4)
LOGITS = RANDOM.normal(size=(16, 8))
MASK = np.arange(8) < 3


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan, -1e9, float(np.finfo(np.float32).min)])
def test_infinities_are_compared_by_position_and_the_rest_by_number(value: float) -> None:
    right = np.where(MASK, value, LOGITS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same, off, moved = (
            differing({"y": right}, {"y": other})[0]
            for other in (right, np.where(MASK, value, LOGITS * 1.4), np.roll(right, 1, axis=1))
        )
    assert (same.largest, same.same, same.broken) == (0.0, 1.0, "")
    assert same.cosine == pytest.approx(1)
    assert off.relative == pytest.approx(0.4)
    assert "where the other has numbers" in moved.broken
