"""The rollout verbs on a simulated world: what people and scripts are told, and wrong usage."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seatrial.serve.cli import app
from seatrial.serve.traffic.rollout.controller import Controller
from seatrial.serve.traffic.rollout.machine import Rollout
from seatrial.serve.traffic.rollout.plan import load_plan
from seatrial.serve.traffic.rollout.records import Records
from tests.support.rollout_world import Candidate, Simulated

START = ["rollout", "start", "m", "--stable", "1", "--candidate", "2", "--digest", "sha256:new"]
PLAN = """
schema = 1
memory = 1073741824
warmup = 1.0
[[steps]]
share = 0.2
requests = 200
needs = "requests"
[[steps]]
share = 0.5
requests = 20000
"""


def good(rollout: Rollout) -> Any:
    return Simulated(rate=20, now=rollout.started, begun=rollout.started).world()


def greedy(rollout: Rollout) -> Any:
    return Simulated(now=rollout.started, begun=rollout.started, candidate=Candidate(memory=1 << 40)).world()


def nothing(rollout: Rollout) -> int:
    return 1


@pytest.fixture
def plan(tmp_path: Path) -> list[str]:
    (tmp_path / "plan.toml").write_text(PLAN)
    return ["--plan", str(tmp_path / "plan.toml")]


def seatrial(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_rollback_is_told_explained_and_lifted(plan: list[str]) -> None:
    code, told = seatrial(*START, *plan, "--world", f"{__name__}:greedy")
    assert code == 1
    assert "rolled back: version 2 uses 1099511627776 bytes" in told
    code, text = seatrial("rollout", "status", "m", "--json")
    assert (code, json.loads(text)["phase"]) == (0, "rolled_back")
    code, told = seatrial("rollout", "explain", "m")
    assert code == 0
    assert "golden -> rolling back: version 2 uses" in told
    code, text = seatrial("rollout", "explain", "m", "--every", "--json")
    explained = json.loads(text)
    assert explained["replayed"] == explained["agree"] == len(explained["decisions"])
    code, told = seatrial(*START, *plan, "--world", f"{__name__}:good")
    assert (code, "was rolled back" in told) == (2, True)
    assert seatrial("rollout", "lift", "m", "sha256:new")[0] == 0
    assert seatrial("rollout", "lift", "m", "sha256:new")[0] == 2


def test_words_are_written_down_where_nobody_runs(plan: list[str]) -> None:
    assert seatrial(*START, *plan, "--world", f"{__name__}:greedy")[0] == 1
    code, told = seatrial("rollout", "pause", "m")
    assert code == 0
    assert "pause has no effect while it is rolled back" in told
    assert "no controller is running" in told


def test_a_promotion_shows_its_steps(plan: list[str]) -> None:
    Path(plan[1]).write_text(PLAN.replace("requests = 20000", 'requests = 400\nneeds = "requests"'))
    code, told = seatrial(*START, *plan, "--world", f"{__name__}:good", "--json")
    assert code == 0
    told_json = json.loads(told)
    assert [step["state"] for step in told_json["steps"]] == ["done"] * 4
    code, told = seatrial("rollout", "status", "m")
    assert code == 0
    assert "50%" in told
    assert "10% mirrored" in told


@pytest.mark.slow
def test_an_open_question_is_shown_with_its_forecast(plan: list[str]) -> None:
    made = Rollout(
        model="m",
        stable=1,
        candidate=2,
        digest="d",
        plan=load_plan(Path(plan[1])),
        started=1e6,
        entered=1e6,
        resumed=1e6,
    )
    records, world = Records(Path(plan[1]).parent / "home" / "rollouts", "m"), good(made)
    records.start(made)
    controller = Controller(records, world)
    for _ in range(100):
        controller.tick()
        world.sleep(5.0)
    code, told = seatrial("rollout", "status", "m")
    assert code == 0
    assert "step 50%" in told
    assert "more requests of each version before it may pass" in told
    assert "no controller is running" in told
    assert "evidence against" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*START, "--world", "nowhere"], "invalid reference"),
        ([*START, "--world", f"{__name__}:nothing"], "the function returned a int"),
        ([*START, "--world", f"{__name__}:good", "--plan", "gone.toml"], "no such file"),
        ([*START[:5], "--candidate", "1", "--digest", "d", "--world", f"{__name__}:good"], "two different versions"),
        (["rollout", "status", "m"], "no rollout of m"),
        (["rollout", "explain", "../m"], "invalid model name"),
        (["rollout", "run", "m", "--world", f"{__name__}:good"], "no rollout of m"),
    ],
)
def test_wrong_usage_is_one_message_and_nothing_written(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    code, told = seatrial(*arguments)
    assert code == 2
    assert said in told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("*.json*"))
