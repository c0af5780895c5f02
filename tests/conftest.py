"""Fixtures that every tier shares: a home of its own for each test, and one small build that real tests start from."""

from pathlib import Path

import pytest

from optimize.build import build
from optimize.recipe import load_recipe
from optimize.store import Store
from tests.models.built import TINY, Built
from tests.models.gated import Gated, wide_against_tiny


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SEATRIAL_HOME that nothing else uses."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SEATRIAL_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The tiny model through all four stages (about twenty seconds, once)."""
    folder = tmp_path_factory.mktemp("tiny")
    store = Store(folder / "store")
    return Built(build=build(load_recipe(TINY), store), store=store, home=folder)


@pytest.fixture(scope="session")
def gated(tiny: Built, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """A real gate that passes (a minute and a half, once); copy its folder before changing it."""
    return wide_against_tiny(tiny, tmp_path_factory.mktemp("gated"))
