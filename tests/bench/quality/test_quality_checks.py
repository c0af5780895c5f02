"""Checks in a budget: read from TOML, refused where they make no sense, kept beside a run, absent where none are."""

from pathlib import Path

import pytest

from seatrial.bench.budget import Budget, load_budget
from seatrial.bench.quality.corruption import CorruptionCheck
from seatrial.bench.quality.fairness import FairnessCheck
from seatrial.bench.quality.segments import SegmentsCheck
from seatrial.optimize.errors import ConfigError
from tests.support.built import ROOT

HEAD = """
[design]
rate = 100.0
seconds = 2.0
[[limits]]
metric = "quality"
max_drop = 0.01
"""


def read(tmp_path: Path, checks: str) -> Budget:
    (tmp_path / "b.toml").write_text(HEAD + checks)
    return load_budget(tmp_path / "b.toml")


def test_a_budget_with_checks_comes_back_from_its_json(tmp_path: Path) -> None:
    budget = read(
        tmp_path,
        """
[[checks]]
kind = "corruption"
corruption = "blur"
severities = [1, 3]
max_drop = 0.02
[[checks]]
kind = "fairness"
by = "site"
at_least = 0.8
gating = false
[[checks]]
kind = "segments"
columns = ["site", "hour"]
max_drop = 0.1
""",
    )
    assert budget.checks == (
        CorruptionCheck(corruption="blur", severities=(1, 3), max_drop=0.02),
        FairnessCheck(by="site", at_least=0.8, gating=False),
        SegmentsCheck(columns=("site", "hour"), max_drop=0.1),
    )
    assert Budget.from_json(budget.to_json()) == budget
    assert Budget.from_json(budget.to_json()).digest == budget.digest


def test_a_budget_without_checks_says_nothing_of_them() -> None:
    budget = load_budget(ROOT / "bench" / "budgets" / "scenes.toml")
    assert "checks" not in budget.to_json()
    assert Budget.from_json(budget.to_json()) == budget


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ('kind = "calibration"', "the check has no rule"),
        ('kind = "calibration"\nat_least = 0.1', "forbid improvement"),
        ('kind = "metric"\nmetric = "accuracy"\nat_most = 0.1', "forbid improvement"),
        ('kind = "drift"\nmax_drop = 0.1', "already relative to the base"),
        ('kind = "fairness"\nrate = "fpr"\nby = "site"\nat_least = 0.1', "worst"),
        ('kind = "fairness"\nrate = "tpr"\nat_least = 0.1', "by class"),
        ('kind = "corruption"\ncorruption = "blur"\nseverities = [6]\nmax_drop = 0.1', "severities"),
        ('kind = "corruption"\ncorruption = "blur"\nseverities = [1, 1]\nmax_drop = 0.1', "each once"),
        ('kind = "corruption"\ncorruption = "fog"\nmax_drop = 0.1', "corruption"),
        ('kind = "adversarial"\nepsilon = 0.0\nat_least = 0.1', "epsilon"),
        ('kind = "drift"\nstatistik = "ks"\nat_most = 0.1', "did you mean 'statistic'"),
        ('kind = "metric"\nmax_drop = -0.1', "not negative"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, check: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"[[checks]]\n{check}\n")
    assert says in f"{raised.value.what} {raised.value.where} {raised.value.next_step}"


def test_the_same_check_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is defined twice"):
        read(tmp_path, '[[checks]]\nkind = "metric"\nmax_drop = 0.1\n' * 2)
