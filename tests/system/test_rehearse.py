"""Rehearsals on the real Triton and Envoy, with the real supervisor and the real watch of the edge."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.attack_world import NAME, World, up
from tests.support.commands import within

pytestmark = pytest.mark.system
ROLES = """
schema = 1
[roles.r]
members = {{ a = "a.pub" }}
[environments.{name}]
repositories = ["{repository}"]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rehearsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with up(folder) as found:
            yield found


@pytest.fixture(autouse=True)
def at_home(world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(world.folder / "home"))


@pytest.mark.parametrize("scenario", ["model-killed", "model-stalled", "server-killed", "edge-killed"])
def test_a_fault_is_noticed_and_overcome_and_all_is_as_before(world: World, scenario: str) -> None:
    done = within("rehearse", NAME, scenario, "--here", "--json")
    found = json.loads(done.output)["rehearsal"]
    assert (done.exit_code, found["passed"], found["undone"]) == (0, True, False), found
    assert 0 < found["detected"] <= found["limit"]


def test_outside_a_rehearsal_environment_nothing_is_planted(world: World, tmp_path: Path) -> None:
    roles = tmp_path / "roles.toml"
    assert within("rehearse", NAME, "model-killed", "--roles", str(roles)).exit_code == 2
    roles.write_text(ROLES.format(name="prod", repository=world.server.repository))
    done = within("rehearse", NAME, "model-killed", "--roles", str(roles))
    assert (done.exit_code, "is of the environment prod" in " ".join(done.output.split())) == (2, True)
    assert world.health.count("stub") == 0


def test_in_a_rehearsal_environment_it_begins(world: World, tmp_path: Path) -> None:
    roles = tmp_path / "roles.toml"
    text = ROLES.format(name="trial", repository=world.server.repository)
    roles.write_text(text + "rehearsal = true\n")
    assert within("rehearse", NAME, "model-killed", "--roles", str(roles)).exit_code == 0
