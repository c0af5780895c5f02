"""Answers as numbers, by any of the columns that a plan may name, and the segments of a reference."""

import numpy as np
import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.serve.monitor.answering import Coder, answered, class_name, coder_of, encoded, reference_of
from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.plan_answers import Answers, Outcomes
from seatrial.serve.monitor.quantities import Columns
from seatrial.serve.monitor.segments import members, segments_of, supported
from seatrial.serve.monitor.sketch import learn_sketch

ROWS = 2000


def plan(**said: object) -> Plan:
    return Plan(
        schema=1,
        model="m",
        features={"age": Feature(kind="number"), "region": Feature(kind="category")},
        estimate=Answers(label="label", **said),  # type: ignore[arg-type]
        outcomes=Outcomes(request="request", groups=("region",)),
    )


def columns() -> Columns:
    draw = np.random.default_rng(1)
    chances = draw.dirichlet(np.ones(3), ROWS)
    names = np.array(["cat", "dog", "owl"], dtype=object)
    return {
        "age": draw.normal(size=ROWS),
        "region": draw.choice(np.array(["north", "south", "3"], dtype=object), ROWS),
        "p1": chances[:, 0],
        "p2": chances[:, 1],
        "p3": chances[:, 2],
        "answer": names[chances.argmax(axis=1)],
        "label": names[draw.integers(0, 3, ROWS)],
        "request": np.array([f"r{at}" for at in range(ROWS)], dtype=object),
    }


def test_every_way_to_name_an_answer_gives_the_same() -> None:
    table, every = columns(), {"cat": "p1", "dog": "p2", "owl": "p3"}
    most = np.stack([table[name] for name in every.values()], axis=1)
    table = {**table, "sure": most.max(axis=1)}
    for said in (
        {"probabilities": every},
        {"probabilities": every, "answer": "answer"},
        {"answer": "answer", "confidence": "sure"},
    ):
        chosen = plan(**said)
        assert chosen.estimate is not None
        coder = coder_of(chosen.estimate, table)
        assert coder.classes == ("cat", "dog", "owl")
        predicted, confidence = answered(chosen.estimate, table, coder)
        assert predicted.tolist() == most.argmax(axis=1).tolist()
        assert confidence == pytest.approx(most.max(axis=1))


def test_one_probability_is_of_a_class_or_not() -> None:
    said = Answers(label="label", probabilities={"cat": "p1"})
    coder = coder_of(said, columns())
    assert coder.codes(["cat", "dog", None, "", "cat"]).tolist() == [1, 0, -1, -1, 1]
    predicted, confidence = answered(said, {"p1": np.array([0.9, 0.2, np.nan])}, coder)
    assert predicted.tolist() == [1, 0, -1]
    assert confidence[:2].tolist() == [0.9, 0.8]
    assert Coder(classes=("a", "b")).codes(["b", "new"]).tolist() == [1, 2]


def test_a_class_has_one_name_whatever_the_file_made_of_it() -> None:
    assert [class_name(each) for each in (3, 3.0, "3.0", "3", np.float64(3), None, float("nan"), "03")] == [
        *["3"] * 5,
        "",
        "",
        "03",
    ]


def test_a_reference_keeps_what_judging_needs_and_no_ids() -> None:
    table = dict(columns())
    table["label"] = table["label"].copy()
    table["label"][:100] = None
    found = reference_of(plan(answer="answer"), table)
    assert found.rows == ROWS - 100
    assert set(found.columns) == {"age", "region", "label", "answer"}
    with pytest.raises(ValueError, match="lacks answer"):
        reference_of(plan(answer="answer"), {name: each for name, each in table.items() if name != "answer"})
    table["label"][:1500] = None
    with pytest.raises(ValueError, match="500 rows have a label"):
        reference_of(plan(answer="answer"), table)


def test_segments_are_groups_tails_and_everything_and_share_one_budget() -> None:
    chosen, table = plan(answer="answer"), columns()
    found = segments_of(chosen, table)
    names = [str(each) for each in found]
    assert names[0] == "all requests"
    assert {"region = north", "region = south", "region = 3"} < set(names)
    assert sum(name.startswith("age ") for name in names) == 4
    assert sum(each.weight for each in found) == pytest.approx(1.0)
    assert [each.group for each in found].count(True) == 3
    masks = members(found, table)
    assert masks[0].all()
    shares = dict(zip(names, masks.mean(axis=1), strict=True))
    assert sorted(round(share, 2) for name, share in shares.items() if name.startswith("age ")) == [
        0.1,
        0.1,
        0.25,
        0.25,
    ]


def test_support_and_encoding_follow_the_reference() -> None:
    chosen, table = plan(answer="answer"), columns()
    sketch = learn_sketch(chosen, table)
    assert supported(sketch, table).all()
    strange = {
        "age": np.array([0.0, 99.0, np.nan, 0.0]),
        "region": np.array(["north", "north", None, "moon"], dtype=object),
    }
    assert supported(sketch, strange).tolist() == [True, False, True, False]
    numbers = encoded(sketch, strange)
    assert numbers.shape == (4, 4)
    assert numbers[2].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert numbers[1, 0] > 2 > numbers[0, 0]


def test_a_plan_that_says_too_little_is_refused() -> None:
    with pytest.raises(ConfigError, match="what the model answered"):
        plan()
