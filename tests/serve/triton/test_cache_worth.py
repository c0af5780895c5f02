"""When Triton's response cache is worth its lookups."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.server_statistics import ModelStatistics, statistics_of
from seatrial.serve.triton.supervision.cache_worth import LEAST, Stretches, Worth, response_cache_pays
from seatrial.serve.triton.supervision.uncaching import Caches

MICROSECONDS = 1_000


def counted_of(hits: int, misses: int, *, lookup_us: int = 100, compute_us: int = 1000) -> ModelStatistics:
    """Of a version that looked up so often; both kinds of lookup take the same."""
    counted = {
        "success": {"count": hits + misses},
        "fail": {},
        "queue": {},
        "compute_input": {},
        "compute_infer": {"count": misses, "ns": misses * compute_us * MICROSECONDS},
        "compute_output": {},
        "cache_hit": {"count": hits, "ns": hits * lookup_us * MICROSECONDS},
        "cache_miss": {"count": misses, "ns": misses * lookup_us * MICROSECONDS},
    }
    return statistics_of({"name": "m", "version": "1", "inference_stats": counted})


def worth(hits: int, misses: int, *, lookup_us: int = 100, compute_us: int = 1000) -> Worth | None:
    return response_cache_pays(counted_of(hits, misses, lookup_us=lookup_us, compute_us=compute_us))


def test_it_pays_where_hits_save_more_than_lookups_cost() -> None:
    good, bad = worth(1000, 1000), worth(100, 4900)
    assert good is not None
    assert bad is not None
    assert (good.pays, bad.pays) == (True, False)
    assert (round(good.saved, 6), round(good.spent, 6)) == (1.0, 0.2)
    assert "it pays" in str(good)
    assert str(bad).endswith("it does not pay")


def test_nothing_is_said_of_a_cache_that_is_not_there_and_little_of_one_just_begun() -> None:
    assert worth(0, 0) is None
    few, unknown = worth(10, 10), worth(LEAST, 0)
    assert few is not None
    assert unknown is not None
    assert (few.pays, unknown.pays) == (None, None), "without a computed request no hit has a price"
    assert "too few to judge" in str(few)


@given(hits=st.integers(0, 10_000), misses=st.integers(1, 10_000), lookup=st.integers(1, 500))
def test_a_dearer_model_never_makes_a_cache_worth_less(hits: int, misses: int, lookup: int) -> None:
    cheap = worth(hits, misses, lookup_us=lookup, compute_us=100)
    dear = worth(hits, misses, lookup_us=lookup, compute_us=1000)
    assert cheap is not None
    assert dear is not None
    assert dear.saved >= cheap.saved
    assert dear.pays or not cheap.pays
    assert replace(dear, saved=cheap.saved, pays=cheap.pays) == cheap


def test_a_cache_that_paid_once_is_judged_by_what_it_did_since() -> None:
    stretches = Stretches()
    assert stretches.judge(counted_of(10, 10)) is None
    first = stretches.judge(counted_of(2000, 500))
    assert first is not None
    assert first.pays
    assert stretches.judge(counted_of(2000, 500 + LEAST - 1)) is None, "too few since"
    since = stretches.judge(counted_of(2000, 500 + LEAST))
    assert since is not None
    assert (since.hits, since.misses, since.pays) == (0, LEAST, False)
    anew = stretches.judge(counted_of(1500, 1000))
    assert anew is not None
    assert (anew.hits, anew.misses) == (1500, 1000), "counters that fell are those of a fresh load"


class Counting:
    """A server's statistics, as they are told."""

    def statistics(self, model: str, version: int) -> ModelStatistics:
        return counted_of(0, 5000) if model == "changing" else counted_of(4000, 1000)


def test_only_a_cache_of_a_model_with_one_version_is_judged_and_only_one_that_costs_is_told() -> None:
    control: Any = Counting()
    told = Caches().look(control, [("changing", 3), ("repeating", 1)])
    assert {model: worth.hits for model, worth in told.items()} == {"changing": 0}
    assert Caches().look(control, [("changing", 3), ("changing", 4)]) == {}
