"""Stages that do not pay: kept and marked, or left out, by one measurement that build and figures share."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from optimize import gain
from optimize.build import build, plan
from optimize.data import Data
from optimize.environment import environment
from optimize.figures import figures, worth
from optimize.recipe import Recipe, load_recipe
from optimize.show import gain_lines
from optimize.store import Store
from tests.models.built import TINY, Built

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
