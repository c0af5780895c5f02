"""How many units stay, and which: laws of the arithmetic that pruning rests on."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seatrial.optimize.pruning.widths import Scope, choose, kept, rungs

widths = st.integers(1, 600)
multiples = st.integers(1, 32)
shares = st.floats(0.001, 0.999)


@given(widths, shares, multiples)
def test_what_stays_is_a_multiple_or_all_there_is_and_at_least_the_share_goes(
    width: int, share: float, multiple: int
) -> None:
    count = kept(width, share, multiple)
    assert 1 <= count <= width
    assert count % multiple == 0 or count == width < multiple
    assert count <= max(width * (1 - share) + 1e-6, min(multiple, width))


@given(widths, shares, shares, multiples)
def test_a_greater_share_never_keeps_more(width: int, one: float, other: float, multiple: int) -> None:
    assert kept(width, max(one, other), multiple) <= kept(width, min(one, other), multiple)


@given(st.lists(st.tuples(widths, multiples), min_size=1, max_size=4), shares)
def test_every_reachable_model_is_reached_at_a_rung(layers: list[tuple[int, int]], share: float) -> None:
    found = rungs(layers)
    assume(found and min(abs(rung - share) for rung in found) > 1e-6)
    at = min((rung for rung in found if rung > share), default=found[-1])
    assert [kept(width, at, step) for width, step in layers] == [kept(width, share, step) for width, step in layers]


@given(st.lists(st.lists(st.floats(0.01, 100), min_size=8, max_size=40), min_size=1, max_size=4), shares)
@pytest.mark.slow
def test_the_highest_scores_stay(rows: list[list[float]], share: float) -> None:
    scores = [np.array(row) for row in rows]
    counts = [kept(len(row), share, 4) for row in rows]
    scopes: tuple[Scope, ...] = ("layer", "global")
    for scope in scopes:
        for score, stays in zip(scores, choose(scores, counts, 4, scope), strict=True):
            assert len(set(stays)) == len(stays) > 0
            assert list(stays) == sorted(stays)
            gone = np.setdiff1d(np.arange(len(score)), stays)
            assert not len(gone) or score[gone].max() <= score[stays].min()
            assert len(stays) % 4 == 0 or len(stays) == len(score)


def test_across_layers_the_less_important_layer_loses_more() -> None:
    even = np.ones(16)
    peaked = np.r_[np.full(4, 10.0), np.full(12, 0.1)]
    one, other = choose([even, peaked], [8, 8], 1, "global")
    assert len(one) > len(other)
    assert list(other[:4]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("width", "share", "multiple", "count"), [(64, 0.5, 8, 32), (12, 0.25, 1, 9), (10, 0.3, 8, 8)])
def test_known_widths(width: int, share: float, multiple: int, count: int) -> None:
    assert kept(width, share, multiple) == count
