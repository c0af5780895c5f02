"""Fixtures that every tier shares: a home of its own for each test, and one small build that real tests start from."""

import signal
from contextlib import suppress
from pathlib import Path

import pytest

from seatrial.optimize.building.build import build
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from tests.support.built import TINY, Built
from tests.support.gated import Gated, wide_against_tiny

with suppress(ImportError):  # tests/gpu runs where it is not installed
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)  # an example that is slow on a busy machine is no fault
    settings.load_profile("any machine")


def pytest_configure() -> None:
    """Take back the signals that ``nohup`` or a shell's ``&`` made this process, and so its children, ignore."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only report the warnings of tests with real servers, whose libraries warn in ways that no test chooses."""
    for item in items:
        if item.get_closest_marker("system") or item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.filterwarnings("default"))


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
