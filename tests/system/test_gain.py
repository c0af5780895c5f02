"""Stages that do not pay: kept and marked, or left out, by one measurement that build and figures share."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from seatrial.optimize.building import gain
from seatrial.optimize.building.build import build, plan
from seatrial.optimize.building.figures import figures, worth
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ParityError
from seatrial.optimize.parity.parity import Agreement, compare
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.report.show import gain_lines
from seatrial.optimize.store import Store
from tests.support.built import TINY, Built

pytestmark = pytest.mark.system


@pytest.fixture
def store(tiny: Built, tmp_path: Path) -> Store:
    shutil.copytree(tiny.home, tmp_path / "copy")
    return Store(tmp_path / "copy" / "store")


def dropping() -> Recipe:
    return replace(load_recipe(TINY), on_no_gain="drop").at(TINY)


def test_what_is_left_out_is_what_the_figures_mark(tiny: Built, store: Store) -> None:
    made = build(dropping(), store)
    rows = figures(made, store)
    assert [row.gain for row in rows[:2]] == [None, None]
    assert rows[4].gain == "needed"
    assert [step.dropped for step in made.steps] == [row.gain == "no gain" for row in rows[2:]]
    again = build(dropping(), store)
    assert not again.worked
    assert [step.dropped for step in again.steps] == [step.dropped for step in made.steps]


def test_a_stage_that_disagrees_is_left_out_only_where_the_recipe_says_so(store: Store, tmp_path: Path) -> None:
    for name in ("tiny.toml", "tiny.py"):
        shutil.copy(TINY.parent / name, tmp_path / name)
    recipe = tmp_path / "tiny.toml"
    strict = 'kind = "quantize"\nparity = { logits = { relative_error = 1e-7 } }'
    recipe.write_text(recipe.read_text().replace('kind = "quantize"', strict))
    with pytest.raises(ParityError, match="logits"):
        build(load_recipe(recipe), store)
    lenient = replace(load_recipe(recipe), on_disagreement="drop").at(recipe)
    for _ in range(2):  # made, then remembered
        made = build(lenient, store)
        assert [each.label for each in made.refused] == ["quantize"]
        assert "'logits' disagrees" in made.refused[0].why
        assert made.artifact == made.steps[-1].artifact
        assert made.artifact.made_by.stage == "export"
        assert store.get("tiny") == made.artifact
    assert not made.worked
    assert any("quantize was left out" in line for line in gain_lines(made, figures(made, store)))
    assert [bool(row.refused) for row in plan(lenient, store)][-1]
    with pytest.raises(ParityError, match="logits"):
        build(load_recipe(recipe), store)


@pytest.mark.parametrize("policy", ["fail", "drop"])
def test_a_stage_is_judged_anew_on_other_samples(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: Literal["fail", "drop"]
) -> None:
    """Dynamic quantization reads no samples, so that the samples of its comparison alone tell two builds apart."""
    for name in ("tiny.toml", "tiny.py"):
        shutil.copy(TINY.parent / name, tmp_path / name)
    limit = "1e-7" if policy == "drop" else "0.9"
    stage = f'kind = "quantize"\nmethod = "dynamic"\nparity = {{ logits = {{ relative_error = {limit} }} }}'
    file = tmp_path / "tiny.toml"
    file.write_text(file.read_text().replace('kind = "quantize"', stage))
    recipe = replace(load_recipe(file), on_disagreement=policy).at(file)
    compared = []

    def counted(*given: Any, **named: Any) -> tuple[Agreement, ...]:
        compared.append(given)
        return compare(*given, **named)

    monkeypatch.setattr("seatrial.optimize.building.build.compare", counted)
    build(recipe, store)
    compared.clear()
    build(recipe, store)
    assert not compared
    build(replace(recipe, data=replace(recipe.data, calibration=64)).at(file), store)
    assert compared


def test_a_stage_without_gain_is_left_out_and_the_build_goes_on_from_its_parent(tiny: Built, store: Store) -> None:
    """The int8 file of a very small model is bigger than the float one; the timing is set to a plain tie."""
    exported, quantized = (step.artifact for step in tiny.build.steps[2:])
    smaller = quantized.size < gain.SMALLER * exported.size
    data = Data(load_recipe(TINY), store, environment())
    digest = data.digest("evaluation") or ""
    against = gain.pace_to(exported, quantized, store, lambda: data.samples("evaluation"), digest)
    tie = replace(against, ratio=1.0, low=0.9, high=1.1)
    for step, parent in zip(
        tiny.build.steps, (tiny.build.source, *tiny.build.steps[:-1]), strict=True
    ):  # the machine's own figures may not decide a test
        known = tie if step.label == "quantize" else replace(tie, ratio=0.5, low=0.4, high=0.6)
        store.remember("pace", gain._key(parent.artifact, step.artifact, digest), asdict(known))
    made = build(dropping(), store)
    rows = figures(made, store)
    assert made.steps[-1].dropped != smaller
    assert made.artifact == (quantized if smaller else exported)
    assert store.get("tiny") == made.artifact
    assert worth(made, rows).label == ("quantize" if smaller else "export")
    assert bool(gain_lines(made, rows)) != smaller
    assert all(planned.artifact is not None for planned in plan(dropping(), store))
