"""Real servers that several modules ask and none changes: each is started once, and leaves with the session."""

from collections.abc import Iterator

import pytest

from scripts.benchmarks.teller import telling
from seatrial.serve.triton.server import Server
from tests.support.echo import echoing


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Triton with two models that return their input and refuse negative values."""
    with echoing(tmp_path_factory.mktemp("echo")) as server:
        yield server


@pytest.fixture(scope="session")
def teller_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Triton with models that return the version that answered."""
    folder = tmp_path_factory.mktemp("teller")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with telling(folder) as server:
            yield server
