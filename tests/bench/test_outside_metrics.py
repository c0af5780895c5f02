"""Metrics and checks of another package, through its entry points: in a gate's verdict and in `seatrial quality`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.bench.budget import Budget, Limit, load_budget
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.report.advice import next_steps
from seatrial.optimize.errors import ConfigError
from tests.support.commands import within
from tests.support.installed import BUDGET, command, distribution, install, seen
from tests.support.linear_recipe import linear_recipe


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed package, which this process sees."""
    folder = install(tmp_path / "site")
    seen(monkeypatch, folder)
    return folder


def written(folder: Path, text: str = BUDGET) -> Path:
    path = folder / "budget.toml"
    path.write_text(text)
    return path


def refused(*words: str) -> str:
    """The message, on one line, with which the command refuses what is given to it."""
    done = within(*words)
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


def test_a_gate_limits_a_metric_of_another_package(
    site: Path, make_run: Callable[..., GateRun], budget: Budget, tmp_path: Path
) -> None:
    named = load_budget(written(tmp_path))
    assert Budget.from_json(json.loads(json.dumps(named.to_json()))) == named
    limits = replace(budget, limits=(Limit(metric="p90", max_regression=0.10),))
    assert judge(make_run(), limits).outcome == "PASS"
    verdict = judge(make_run(latency=1.5), limits)
    assert verdict.outcome == "FAIL", verdict.summary
    found = next(finding for finding in verdict.findings if finding.metric == "p90")
    assert found.unit == "s"
    assert found.ratio == pytest.approx(1.5, rel=0.05)
    assert next_steps(verdict)[0] == "p90: ask the package that counts to ninety"


def test_without_the_package_its_names_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown metric 'p90'") as caught:
        load_budget(written(tmp_path))
    assert "known: quality, p50" in caught.value.next_step
    with pytest.raises(ConfigError, match=r"unknown kind 'margin' at 'checks\.0'"):
        load_budget(written(tmp_path, BUDGET.replace('"p90"', '"p99"').replace('"balanced"', '"score"')))
    with pytest.raises(ConfigError, match="unknown metric 'balanced'"):
        load_budget(written(tmp_path, BUDGET.replace('"p90"', '"p99"').replace('kind = "margin"', 'kind = "segments"')))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("at_least = 0.5", "at_leest = 0.5", "unknown key 'checks.0.at_leest'"),
        ("at_least = 0.5", "at_least = 'much'", "'checks.0.at_least'"),
        ("at_least = 0.5", "", "the check has no rule"),
        ("at_least = 0.5", "at_most = 0.5", "at_most would forbid improvement"),
        ('metric = "balanced"', 'metric = "p90"', "metric 'p90' has the wrong form: it is the class P90"),
        ('metric = "p90"', 'metric = "balanced"', "metric 'balanced' has the wrong form: it is the class Balanced"),
    ],
)
def test_its_keys_are_read_as_strictly_as_any_checks(site: Path, tmp_path: Path, old: str, new: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_budget(written(tmp_path, BUDGET.replace(old, new)))
    assert what in caught.value.what
    assert "budget.toml" in caught.value.where


def test_a_check_survives_the_file(site: Path, tmp_path: Path) -> None:
    budget = load_budget(written(tmp_path))
    assert budget.checks
    assert Budget.from_json(json.loads(json.dumps(budget.to_json()))).checks == budget.checks


@pytest.mark.slow
def test_quality_asks_a_check_of_another_package(tmp_path: Path, site: Path) -> None:
    recipe = linear_recipe(tmp_path / "mine")
    budget, page = written(tmp_path), tmp_path / "page.html"
    assert within("build", str(recipe)).exit_code == 0
    words = ("quality", "linear", "--recipe", str(recipe), "--budget", str(budget))
    done = command(*words, "--json", "--html", str(page), path=site)
    found = {each["metric"]: each for each in json.loads(done.stdout)["findings"]}
    assert {each["outcome"] for each in found.values()} == {"PASS"}
    assert list(found) == ["margin", "metric balanced"]
    assert found["margin"]["reason"].endswith("Seen from outside.")
    assert "<p>400 margins</p>" in page.read_text()
    written(tmp_path, BUDGET.replace("at_least = 0.5", "at_least = 500.0"))
    assert within(*words).exit_code == 1


def test_a_package_that_is_broken_or_clashes_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = linear_recipe(tmp_path / "mine")
    assert within("build", str(recipe)).exit_code == 0
    budget = written(tmp_path, BUDGET.replace('"p90"', '"p99"'))
    words = ("quality", "linear", "--recipe", str(recipe), "--budget", str(budget))
    points = "[seatrial.checks]\nmargin = nowhere.at:All\n[seatrial.metrics]\np99 = json:loads\n"
    seen(monkeypatch, distribution(tmp_path / "site", "broken-checks", "0.3", points))
    told = refused(*words)
    assert "metric 'p99' is defined more than once: by seatrial and by broken-checks 0.3" in told
    written(tmp_path, BUDGET.replace('"p90"', '"p50"'))
    told = refused(*words)
    assert "check 'margin' cannot be imported: ModuleNotFoundError" in told
    assert "broken-checks 0.3" in told
