import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.recipe.space import Objective, Space, Value, put
from seatrial.optimize.search.search import Candidate, Worth, best_so_far, chosen, declared, front, own_values, run
from tests.support.built import TINY

BOTH: tuple[Objective, ...] = ("quality", "latency")
TABLE = """
[search.stages.1.ratio]
low = 0.1
high = 0.6
step = 0.1
[search.stages.quantize.ranges]
choices = ["minmax", "percentile"]
[search.stages.distill."training.epochs"]
low = 1
high = 9
"""


def recipe(tmp_path: Path, table: str = TABLE, floor: str = "") -> Recipe:
    (tmp_path / "tiny.py").write_text((TINY.parent / "tiny.py").read_text())
    (tmp_path / "tiny.toml").write_text(TINY.read_text() + floor + table)
    return load_recipe(tmp_path / "tiny.toml")


def candidate(number: int, quality: float | None, latency: float | None, **more: object) -> Candidate:
    return Candidate(number=number, chosen={}, values={"quality": quality, "latency": latency}, **more)  # type: ignore[arg-type]


FIGURE = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers(0, 4).map(float)
CANDIDATES = st.lists(st.tuples(FIGURE, FIGURE, st.sampled_from([0.0, 0.0, 0.1])), max_size=12).map(
    lambda rows: [candidate(number, *row[:2], violation=row[2]) for number, row in enumerate(rows)]
)


@given(CANDIDATES)
def test_nothing_on_the_front_is_beaten_and_everything_off_it_is(candidates: list[Candidate]) -> None:
    def values(each: Candidate) -> tuple[float, float]:
        return -float(each.values["quality"] or 0), float(each.values["latency"] or 0)

    def beats(one: Candidate, other: Candidate) -> bool:
        (a, b), (c, d) = values(one), values(other)
        return a <= c and b <= d and (a, b) != (c, d)

    kept = front(candidates, BOTH)
    able = [each for each in candidates if each.ranks(BOTH)]
    assert all(each in able for each in kept)
    assert not any(beats(one, other) for one in able for other in kept)
    for other in able:
        assert any(beats(one, other) or values(one) == values(other) for one in kept)


@pytest.mark.parametrize(
    "missing",
    [
        candidate(0, 0.9, None),
        candidate(0, None, 0.1),
        candidate(0, math.nan, 0.1),
        candidate(0, 0.9, -math.inf),
        candidate(0, 0.99, 0.01, failure="stage fell over"),
        candidate(0, 0.99, 0.01, violation=0.001),
        Candidate(number=0, chosen={}),
    ],
)
def test_a_missing_figure_a_failure_or_a_broken_floor_never_ranks(missing: Candidate) -> None:
    poor = candidate(1, 0.1, 9.0)
    assert front([missing, poor], BOTH) == [poor]
    assert front([missing], BOTH) == []
    assert "none can be ranked yet" in best_so_far([missing], BOTH)


def test_a_recipe_with_a_search_table_is_ordinary_and_its_values_can_be_changed(tmp_path: Path) -> None:
    searched = recipe(tmp_path)
    search, spaces = declared(searched)
    assert search.objectives == BOTH
    assert list(spaces) == ["1.ratio", "3.ranges", "0.training.epochs"]
    assert own_values(searched, spaces) == {"1.ratio": 0.4, "3.ranges": "minmax", "0.training.epochs": 6}
    same = chosen(searched, own_values(searched, spaces))
    assert same.digest == load_recipe(TINY).digest
    assert same.search is None
    other = chosen(searched, {"1.ratio": 0.2, "0.training.epochs": 3})
    assert other.stages[1].ratio == 0.2  # type: ignore[attr-defined]
    assert other.stages[0].training.epochs == 3  # type: ignore[attr-defined]
    assert other.stages[2:] == searched.stages[2:]


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("", "no [search] table"),
        ("[search.stages.9.ratio]\nlow = 0.1\nhigh = 0.2\n", "no stage is called '9'"),
        ("[search.stages.compile.x]\nlow = 0.1\nhigh = 0.2\n", "no stage is called 'compile'"),
        ("[search.stages.prune.rate]\nlow = 0.1\nhigh = 0.2\n", "no field 'rate'"),
        ("[search.stages.prune.ratio]\nlow = 0.1\nhigh = 1.2\n", "ratio"),
        ("[search.stages.prune.ratio]\nlow = 0.1\n", "either low and high, or choices"),
        ("[search.stages.prune.ratio]\nlow = 0.3\nhigh = 0.1\n", "not below"),
        ("[search.stages.quantize.ranges]\nchoices = ['minmax', 'magic']\n", "ranges"),
        ("[search]\nobjectives = ['beauty']\n[search.stages.prune.ratio]\nlow = 0.1\nhigh = 0.2\n", "objectives"),
    ],
)
def test_a_wrong_search_table_is_refused_before_any_work(tmp_path: Path, table: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(recipe(tmp_path, table))
    assert what in caught.value.what
    assert caught.value.next_step


@given(ratio=st.floats(0, 1), epochs=st.integers(0, 99))
def test_values_land_at_their_addresses_and_nowhere_else(ratio: float, epochs: int) -> None:
    stages: list[dict[str, Any]] = [{"kind": "a", "ratio": 0.5}, {"kind": "b", "training": {"epochs": 1, "rate": 2}}]
    changed = put(stages, {"0.ratio": ratio, "1.training.epochs": epochs})
    assert changed == [{"kind": "a", "ratio": ratio}, {"kind": "b", "training": {"epochs": epochs, "rate": 2}}]
    assert stages[1] == {"kind": "b", "training": {"epochs": 1, "rate": 2}}


class Listed:
    """A study in memory that walks a list of values: the protocol's smallest keeper."""

    def __init__(self, values: list[dict[str, Value]]) -> None:
        self.values, self.told = values, list[Candidate]()

    def ask(self, spaces: Mapping[str, Space]) -> tuple[int, dict[str, Value]]:
        return len(self.told), self.values[len(self.told)]

    def tell(self, candidate: Candidate) -> None:
        self.told.append(candidate)

    def candidates(self) -> list[Candidate]:
        return self.told


def law(latency: Callable[[float], float | None]) -> Callable[[Recipe], Worth]:
    def evaluate(tried: Recipe) -> Worth:
        ratio = float(tried.stages[1].ratio)  # type: ignore[attr-defined]
        if ratio == 0.3:
            raise StageError("it fell over")
        return Worth(values={"quality": 1 - ratio, "latency": latency(ratio)}, quality_drop=ratio)

    return evaluate


def test_the_loop_counts_ended_trials_keeps_failures_apart_and_holds_the_floor(tmp_path: Path) -> None:
    searched = recipe(tmp_path, floor="[floors]\nmax_quality_drop = 0.45\n")
    study = Listed([{"1.ratio": ratio} for ratio in (0.1, 0.2, 0.3, 0.4, 0.5)])
    texts: list[str] = []
    evaluate = law(lambda ratio: None if ratio == 0.2 else 1 - ratio)
    found = run(searched, study, evaluate, 3, lambda label, share, text: texts.append(text))
    assert [each.failure for each in found] == ["", "missing figures: latency", "it fell over"]
    found = run(searched, study, evaluate, 5)
    assert [each.chosen["1.ratio"] for each in front(found, BOTH)] == [0.1, 0.4]
    assert found[-1].violation == pytest.approx(0.05)
    assert "1 on the front; best quality 0.9, latency 0.9" in texts[-1]
    assert run(searched, study, evaluate, 5) == found
