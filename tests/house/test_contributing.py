"""The sections of CONTRIBUTING.md on what can be added: the code of the page is installed as a package, and run."""

import json
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.findings import slot_value
from seatrial.bench.gating.pairs import Slot, SlotRecord
from tests.house.test_floors import ROOT
from tests.support.commands import within
from tests.support.installed import BUDGET, answer, install, seen
from tests.support.linear_recipe import linear_recipe

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
STAGES = '[[stages]]\nkind = "{kind}"\ntext = "sea"\n'


def section(title: str) -> str:
    """The text of one section of the page."""
    return next(text for text in PAGE.split("\n## ") if text.startswith(f"{title}\n"))


def blocks(title: str, language: str) -> list[str]:
    """The blocks of one language in a section."""
    found = BLOCK.findall(section(title))
    return [textwrap.dedent(text) for _, name, text in found if name == language]


def points(title: str) -> Iterator[tuple[str, str, str]]:
    """Every entry point that a section declares: group, name and value."""
    for text in blocks(title, "toml"):
        for group, entries in tomllib.loads(text)["project"]["entry-points"].items():
            yield from ((group, name, value) for name, value in entries.items())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The page's code as an installed package: each block is the module that its section's entry point names."""
    project = tmp_path / "project"
    (project / "my_package").mkdir(parents=True)
    groups: dict[str, dict[str, str]] = {}
    for title in ("Add a stage", "Add a metric", "Add a check", "Add an engine"):
        declared = list(points(title))
        codes = blocks(title, "python")
        assert len(codes) == len(declared) >= 1, title
        for code, (group, name, value) in zip(codes, declared, strict=True):
            module = value.partition(":")[0].removeprefix("my_package.")
            (project / "my_package" / f"{module}.py").write_text(code)
            groups.setdefault(group, {})[name] = value
    text = '[project]\nname = "my-package"\nversion = "1"\n'
    for group, entries in groups.items():
        text += f'[project.entry-points."{group}"]\n'
        text += "".join(f'{name} = "{value}"\n' for name, value in entries.items())
    (project / "pyproject.toml").write_text(text)
    return install(tmp_path / "site", project)


@pytest.mark.slow
def test_the_stage_is_built_from_the_package_and_from_beside_the_recipe(tmp_path: Path, site: Path) -> None:
    installed = linear_recipe(tmp_path / "installed", STAGES.format(kind="stamp"))
    assert "stamp" in json.dumps(answer("build", str(installed), path=site)["steps"])
    beside = linear_recipe(tmp_path / "beside", STAGES.format(kind="stamping.py:stamp"))
    (beside.parent / "stamping.py").write_text(blocks("Add a stage", "python")[0])
    done = within("build", str(beside), "--json")
    assert "stamping.py:stamp" in json.dumps(json.loads(done.stdout)["steps"])


@pytest.mark.slow
def test_the_metrics_and_the_check_judge(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, budget = linear_recipe(tmp_path / "mine"), tmp_path / "budget.toml"
    budget.write_text(BUDGET)
    assert within("build", str(recipe)).exit_code == 0
    words = ("quality", "linear", "--recipe", str(recipe), "--budget", str(budget))
    findings = answer(*words, path=site)["findings"]
    assert [each["metric"] for each in findings] == ["margin", "metric balanced"]
    assert {each["outcome"] for each in findings} == {"PASS"}
    seen(monkeypatch, site)
    slot = SlotRecord(slot=Slot(index=0, pair=0, arm="base", position=0, seed=1), attempt=0)
    assert slot_value(slot, "p90", 1.0) is None
    assert slot_value(replace(slot, latency=slot.latency.__class__((11,))), "p90", 1.0) is not None
    limited = Budget(design=Design(rate=120.0, seconds=9.0), limits=(Limit(metric="p90", max_regression=0.1),))
    assert limited.limits[0].of.unit == "s"


@pytest.mark.slow
def test_the_engine_measures(tmp_path: Path, site: Path) -> None:
    recipe = linear_recipe(tmp_path / "mine")
    words = ("measure", str(recipe.parent / "linear.onnx"), "--engine", "reference", "--seconds", "0.1")
    run = Path(answer(*words, path=site)["run"])
    assert any('"provider": "onnx.reference"' in path.read_text() for path in run.glob("*.json"))


def test_the_lint_rule_finds_what_it_says() -> None:
    (code,) = blocks("Add a lint rule", "python")
    found: dict[str, Any] = {}
    exec(code, found)
    rules: Callable[[Any], Iterator[Any]] = found["broken_rules"]
    assert [each.severity for each in rules(SimpleNamespace(name="Scenes"))] == ["warning"]
    assert list(rules(SimpleNamespace(name="scenes"))) == []
