"""Intervals of held-out halves: they cover, and few rare events prove no more than they can."""

import numpy as np
import pytest

from seatrial.optimize.stages.halves import bound


@pytest.mark.parametrize("count", [20, 100, 1000])
def test_no_loss_among_n_decisions_still_allows_three_of_n(count: int) -> None:
    found = bound(np.zeros(count), 0.95)
    assert found.mean == 0.0
    assert found.high == pytest.approx(3 / count, rel=0.15)
    assert found.low == -found.high


def test_numbers_that_are_no_decisions_have_no_width_where_they_are_equal() -> None:
    found = bound(np.full(50, 0.25), 0.95)
    assert (found.low, found.high) == (0.25, 0.25)


@pytest.mark.parametrize("truth", [0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("count", [40, 400])
def test_the_upper_end_covers_rare_losses(truth: float, count: int) -> None:
    random = np.random.default_rng(int(truth * 1e4) + count)
    covered = sum(bound((random.random(count) < truth).astype(float), 0.95).high >= truth for _ in range(400))
    assert covered >= 370
