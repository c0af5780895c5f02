"""Sums over rows: they add up, whatever the order and the cut; units do not matter; odd columns are named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.errors import ConfigError
from seatrial.serve.monitor.plan import Feature, Plan, Tolerance, load_plan
from seatrial.serve.monitor.quantities import Columns, Quantity
from seatrial.serve.monitor.sketch import Sketch, counted, learn_sketch
from seatrial.serve.monitor.window import Window, merged, of_enough_rows

PLAN = Plan(
    schema=1,
    model="m",
    features={"age": Feature(kind="number"), "pay": Feature(kind="number"), "land": Feature(kind="category", top=2)},
)


def rows(count: int, seed: int = 0) -> Columns:
    draw = np.random.default_rng(seed)
    age = draw.normal(40, 10, count)
    return {
        "age": np.where(draw.random(count) < 0.1, np.nan, age),
        "pay": np.exp(age / 20 + draw.normal(size=count)),
        "land": draw.choice(np.array(["DE", "FR", "IT", None], dtype=object), count, p=[0.5, 0.3, 0.15, 0.05]),
    }


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    return learn_sketch(PLAN, rows(5000))


def window(sketch: Sketch, columns: Columns) -> Window:
    return sketch.window(columns, start=0.0, seconds=3600.0)


def mean(sketch: Sketch, columns: Columns, text: str) -> float:
    found = window(sketch, columns)
    return float(found.sums[[str(each) for each in sketch.quantities].index(text)] / found.rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.randoms())
def test_windows_add_up_whatever_the_cut_and_the_order(sketch: Sketch, count: int, cut: int, random: object) -> None:
    columns = rows(count, seed=1)
    order = np.random.default_rng(cut).permutation(count)
    cut = min(cut, count)
    parts = [{name: column[order][part] for name, column in columns.items()} for part in (slice(cut), slice(cut, None))]
    whole, pieces = window(sketch, columns), merged([window(sketch, part) for part in parts])
    assert pieces.rows == whole.rows
    np.testing.assert_allclose(pieces.sums, whole.sums, rtol=1e-5, atol=1e-3)


def test_the_reference_itself_has_standard_scores_and_its_shares(sketch: Sketch) -> None:
    same = rows(5000)
    assert mean(sketch, same, "age: location") == pytest.approx(0.0, abs=0.01)
    assert mean(sketch, same, "age: scale") == pytest.approx(0.0, abs=0.03)
    assert mean(sketch, same, "age: missing") == pytest.approx(np.isnan(same["age"]).mean())
    assert mean(sketch, same, "age: outside") == 0.0
    assert mean(sketch, same, "land = DE") == pytest.approx(np.mean(same["land"] == "DE"))
    assert mean(sketch, same, "age with pay") > 0.3


def test_a_shift_counts_in_standard_deviations_and_a_unit_does_not(sketch: Sketch) -> None:
    shifted = dict(rows(5000, seed=2))
    shifted["age"] = shifted["age"] + 5  # half a standard deviation, in the nine rows of ten that are not missing
    assert mean(sketch, shifted, "age: location") == pytest.approx(0.45, abs=0.03)
    cents = {name: column * 100 if name == "pay" else column for name, column in rows(5000).items()}
    in_cents = learn_sketch(PLAN, cents)
    np.testing.assert_allclose(window(in_cents, cents).sums, window(sketch, rows(5000)).sums, rtol=1e-3, atol=1.0)


def test_what_is_new_absent_or_of_another_kind_is_counted_and_named(sketch: Sketch) -> None:
    columns = dict(rows(100))
    columns["land"] = np.full(100, "ES", dtype=object)
    columns["age"] = np.full(100, 1000.0)
    assert mean(sketch, columns, "land: unseen") == 1.0
    assert mean(sketch, columns, "age: outside") == 1.0
    columns["age"] = np.array(["old"] * 50 + ["41"] * 50, dtype=object)
    del columns["land"]
    found = window(sketch, columns)
    assert found.faults == ("age: values that are no numbers", "land: the column is absent")
    assert mean(sketch, columns, "age: missing") == 0.5
    assert mean(sketch, columns, "land: missing") == 1.0
    infinite = dict(rows(100)) | {"age": np.full(100, np.inf)}
    assert mean(sketch, infinite, "age: outside") == 1.0


def test_categories_are_text_and_nothing_is_missing() -> None:
    assert counted(np.array([3, 3, 4])) == {"3": 2, "4": 1}
    assert counted(np.array([3.0, np.nan])) == {"3": 1, None: 1}
    assert counted(np.array([True, None, "", "x"], dtype=object)) == {"True": 1, None: 2, "x": 1}


def test_what_cannot_be_learned_from_is_refused() -> None:
    for columns, message in (
        ({**rows(5000), "age": np.full(5000, np.nan)}, "age cannot be read as numbers: it has no finite value"),
        ({**rows(5000), "age": np.full(5000, "x", dtype=object)}, "age cannot be read as numbers: values that are no"),
        ({**rows(5000), "land": np.full(5000, None)}, "land has no value"),
        ({"age": np.ones(5000)}, "lacks pay, land"),
        (rows(20), "20 rows, and at least 500"),
    ):
        with pytest.raises(ValueError, match=message):
            learn_sketch(PLAN, columns)


def test_small_windows_wait_for_more_rows() -> None:
    def small(start: float, count: int) -> Window:
        return Window(start=start, seconds=1.0, rows=count, sums=np.array([float(count)]))

    found = of_enough_rows([small(2, 3), small(0, 5), small(1, 5), small(3, 20), small(4, 1)], 10)
    assert [(each.start, each.seconds, each.rows) for each in found] == [(0, 2, 10), (2, 2, 23)]
    with pytest.raises(ValueError, match="no windows"):
        merged([])


def test_a_plan_is_read_strictly_and_tolerances_fall_back(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "plan.toml"
    good = 'schema = 1\nmodel = "m"\n[tolerance]\nlocation = 0.1\n[features.age]\nkind = "number"\n'
    path.write_text(good + "tolerance = { location = 0.3 }\n[features.pay]\nkind = 'number'\n")
    plan = load_plan(path)
    assert plan.tolerated(Quantity(feature="age", what="location")) == 0.3
    assert plan.tolerated(Quantity(feature="pay", what="location")) == 0.1
    assert plan.tolerated(Quantity(feature="pay", what="missing")) == 0.005
    assert plan.threshold == pytest.approx(8766)
    assert plan.digest != Plan(schema=1, model="m", features=plan.features).digest
    assert Tolerance(share=0.1).of("share") == 0.1
    for text in (
        good.replace("number", "guess"),
        good.replace("0.1", "-0.1"),
        good.replace("schema = 1", "schema = 2"),
        'schema = 1\nmodel = "m"\nfeatures = {}\n',
        "false_alarms_per_year = 8000.0\n" + good,
        "colour = 1\n" + good,
    ):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_plan(path)


def test_the_example_plan_can_be_read() -> None:
    from pathlib import Path

    assert load_plan(Path(__file__).parents[3] / "serve" / "monitors" / "example.toml").model == "loans"
