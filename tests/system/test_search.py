"""Searches with the real build and the real Optuna: shared, resumed, refused, and what they leave behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.optimize.building.build import build
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.search.explore import explore
from seatrial.optimize.store import Store
from tests.support.built import ROOT, TINY, Built

pytestmark = pytest.mark.system
SEARCH = """
[search]
objectives = ["quality", "latency", "size"]
[search.stages.quantize.ranges]
choices = ["minmax", "percentile"]
[search.stages.quantize.per_channel]
choices = [true, false]
"""


@pytest.fixture
def recipe(tiny: Built, tmp_path: Path) -> Path:
    """An ONNX file, and how to quantize it left open."""
    shutil.copy(tiny.store.path(tiny.build.steps[2].artifact, "model.onnx"), tmp_path / "net.onnx")
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    head = TINY.read_text().split("[[stages]]", 1)[0]
    head = head.replace('factory = "tiny.py:teacher"\noutputs = ["logits"]', 'onnx = "net.onnx"')
    path = tmp_path / "net.toml"
    path.write_text(head + '[[stages]]\nkind = "quantize"\nparity = { "*" = { spread_error = 0.5 } }\n' + SEARCH)
    return path


def seatrial(*arguments: str, home: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"SEATRIAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "seatrial.serve.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "journal:{}/study.journal"])
def test_two_workers_share_one_study_and_leave_recipes(recipe: Path, tmp_path: Path, storage: str) -> None:
    url = storage.format(tmp_path)
    workers = [
        seatrial("search", str(recipe), "--trials", "4", "--storage", url, "--json", home=tmp_path / f"home{number}")
        for number in (1, 2)
    ]
    ended = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], ended
    found = [json.loads(out) for out, _ in ended]
    for each in found:
        assert 4 <= len(each["candidates"]) <= 5  # both may have taken the last one
        assert each["front"]
        assert all(len(candidate["values"]) == 3 for candidate in each["candidates"] if not candidate["failure"])
    numbers = [candidate["number"] for candidate in found[-1]["candidates"]]
    assert numbers == sorted(set(numbers))
    assert found[0]["candidates"][0]["chosen"] == {"0.ranges": "minmax", "0.per_channel": True}
    store = Store(tmp_path / "home1" / "store")
    for name in found[0]["files"].values():
        point = load_recipe(recipe.with_name(name))
        assert point.search is None
        assert build(point, store).artifact.format == "onnx"


def test_a_study_goes_on_and_is_refused_for_another_recipe(recipe: Path, tmp_path: Path) -> None:
    storage, store = f"journal:{tmp_path / 'study.journal'}", Store(tmp_path / "here" / "store")
    first = explore(load_recipe(recipe), store, storage, 2)
    assert len(first.candidates) == 2
    texts: list[str] = []
    second = explore(load_recipe(recipe), store, storage, 4, lambda label, share, text: texts.append(text))
    assert second.candidates[:2] == first.candidates
    assert len(second.candidates) == 4
    assert any("on the front; best quality" in text for text in texts)
    assert not build(load_recipe(next(iter(second.files.values()))), store).worked
    recipe.write_text(recipe.read_text().replace("calibration = 128", "calibration = 64"))
    with pytest.raises(ConfigError, match="a different recipe"):
        explore(load_recipe(recipe), store, storage, 6)
    with pytest.raises(MachineError, match="cannot be opened"):
        explore(load_recipe(recipe), store, "nosuch://x", 6)


def test_what_fails_or_breaks_the_floor_is_kept_apart(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text.replace("spread_error = 0.5", "relative_error = 1e-9"))
    found = explore(load_recipe(recipe), Store(tmp_path / "a" / "store"), f"journal:{tmp_path / 'a.journal'}", 2)
    assert not found.front
    assert all("disagrees with the parent" in candidate.failure for candidate in found.candidates)
    recipe.write_text(text.replace("[search]", "[floors]\nmax_quality_drop = -1.0\n[search]"))
    found = explore(load_recipe(recipe), Store(tmp_path / "b" / "store"), f"journal:{tmp_path / 'b.journal'}", 2)
    assert not found.front
    assert all(candidate.violation > 0 for candidate in found.candidates)
