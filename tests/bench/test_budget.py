"""Budgets: the demo's file reads, and what cannot be is refused with its place."""

import json
from pathlib import Path

import pytest

from seatrial.bench.budget import Budget, Design, Limit, load_budget
from seatrial.bench.measurement import Measurement
from seatrial.bench.metrics import metric_of
from seatrial.bench.stats import MIN_SIGNED_RANK
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.units import format_value

SCENES = Path(__file__).parents[2] / "bench" / "budgets" / "scenes.toml"
PLAIN = """
[design]
rate = 100.0
seconds = 10.0

[[limits]]
metric = "p50"
max_regression = 0.05
"""


def test_the_demo_budget_gates_what_it_says() -> None:
    budget = load_budget(SCENES)
    gating = {limit.metric for limit in budget.limits if limit.gating}
    assert gating == {"quality", "p50", "p99", "throughput", "peak_memory", "file_size", "cost", "errors"}
    assert budget.design.pairs >= MIN_SIGNED_RANK  # one spoiled pair leaves the rank interval to decide
    assert budget.design.rate * budget.design.seconds >= 1000


@pytest.mark.parametrize("path", sorted(SCENES.parent.glob("*.toml")), ids=lambda path: path.name)
def test_a_budget_survives_json(path: Path) -> None:
    budget = load_budget(path)
    again = Budget.from_json(json.loads(json.dumps(budget.to_json())))
    assert again == budget
    assert again.digest == budget.digest


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ('metric = "p50"', 'metric = "speed"'),
        ("max_regression = 0.05", "max_drop = 0.05"),
        ("max_regression = 0.05", ""),
        ("max_regression = 0.05", "max_regression = -0.1"),
        ("max_regression = 0.05", "max_regression = 0.05\ngating = false"),
        ("max_regression = 0.05", "at_least = 0.05"),
        ("max_regression = 0.05", "at_most = 0.05\nfloor = 0.1"),
        ("max_regression = 0.05", 'max_regression = 0.05\n[[limits]]\nmetric = "p50"\nat_most = 1.0'),
        ("max_regression = 0.05", "max_regresion = 0.05"),
        ("rate = 100.0", "rate = 0.0"),
        ("rate = 100.0", "rate = 100.0\npairs = 5"),
        ("rate = 100.0", "rate = 100.0\npairs = 2"),
        ("rate = 100.0", "rate = 100.0\ncontrol_limit = 0.0"),
        ("rate = 100.0", 'rate = 100.0\ncontrol_rule = "loose"'),
        ("rate = 100.0", "rate = 100.0\npairs = 12\nlooks = [6, 10]"),
        ("[design]", '[ledger]\nname = "x"\nat_most = { p99 = 0.1 }\n[design]'),
        ("[design]", '[ledger]\nname = "a/b"\nat_most = { p50 = 0.1 }\n[design]'),
        ("[design]", "alpha_fail = 0.7\n[design]"),
        ("rate = 100.0", "rate = 1.0\n"),
    ],
)
def test_what_cannot_be_is_refused_with_its_file(tmp_path: Path, change: str, complaint: str) -> None:
    path = tmp_path / "budget.toml"
    text = PLAIN.replace(change, complaint)
    path.write_text(text.replace('"p50"', '"p99"') if "rate = 1.0\n" in text else text)
    with pytest.raises(ConfigError) as caught:
        load_budget(path)
    assert "budget.toml" in caught.value.where


def test_the_plain_budget_itself_is_legal(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(PLAIN)
    assert load_budget(path).limits[0].of.direction == "lower"
    with pytest.raises(MissingError):
        load_budget(tmp_path / "other.toml")


@pytest.mark.parametrize("metric", ["quality", "errors"])
def test_absolute_metrics_have_no_relative_rule(metric: str) -> None:
    with pytest.raises(ConfigError):
        Limit(metric=metric, max_regression=0.1)


def test_a_budget_that_could_not_fail_is_refused() -> None:
    with pytest.raises(ConfigError, match="gating"):
        Budget(design=Design(rate=1.0, seconds=1.0), limits=())


def test_a_foreign_budget_is_refused() -> None:
    with pytest.raises(IntegrityError, match="the stored budget cannot be read"):
        Budget.from_json({"design": {}})


def test_a_measurement_survives_json_and_refuses_another_schema() -> None:
    measurement = Measurement(
        subject="sha256:00",
        metric=metric_of("p50"),
        scenario="poisson 120/s",
        values=(0.001, 0.002),
        environment={"cores": 2},
        at="2026-11-02T10:00:00+00:00",
    )
    value = json.loads(json.dumps(measurement.to_json()))
    assert Measurement.from_json(value) == measurement
    with pytest.raises(IntegrityError):
        Measurement.from_json(value | {"schema": 2})
    with pytest.raises(IntegrityError):
        Measurement.from_json(value | {"metric": {"name": "p50"}})


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00231, "s", "2.31 ms"),
        (1.5, "s", "1.5 s"),
        (312.4 * 2**20, "B", "312.4 MiB"),
        (12, "B", "12 B"),
        (412.3, "1/s", "412/s"),
        (0.0614, "$/1M", "$0.0614"),
        (0.0005, "share", "0.05%"),
        (0.91234, "score", "0.9123"),
    ],
)
def test_values_are_spelled_for_people(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text
