"""Rehearsals: times are those of the fault's story, nothing begins where it may not, and the record says it all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from scripts.benchmarks.monitor_streams import Stream
from seatrial.serve.errors import RehearsalError
from seatrial.serve.rehearsal.record import SCENARIOS, Rehearsal, keep, kept
from seatrial.serve.rehearsal.timing import timed
from seatrial.serve.release.trail_file import TrailFile
from tests.support.commands import within
from tests.support.exchanged import released
from tests.support.monitored import STREAM, learned_home, table


@dataclass
class Story:
    """A fault that is noticed and overcome at given times of a clock that moves with each sleep."""

    noticed_at: float
    works_again_at: float
    now: float = 0.0
    planted: bool = False
    undone: bool = False
    left: str = ""
    calls: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def state(self) -> str:
        return self.left if self.undone else ""

    def works(self) -> bool:
        return not self.planted or self.undone or self.now >= self.works_again_at

    def plant(self) -> None:
        self.planted = True
        self.calls.append("plant")

    def noticed(self) -> str:
        return "supervisor" if self.now >= self.noticed_at else ""

    def undo(self) -> None:
        self.undone = True
        self.calls.append("undo")


NEVER = 1e9


@pytest.mark.parametrize(
    ("noticed", "works", "detected", "recovered", "undone"),
    [
        (1.0, 3.0, 1.0, 3.0, False),
        (3.0, 1.0, 3.0, 1.0, False),
        (NEVER, 2.0, None, 2.0, False),
        (1.0, NEVER, 1.0, None, True),
        (NEVER, NEVER, None, None, True),
    ],
)
def test_the_times_are_those_of_the_story(
    noticed: float, works: float, detected: float | None, recovered: float | None, undone: bool
) -> None:
    story = Story(noticed_at=noticed, works_again_at=works)
    found = timed(story, longest=10.0, clock=story.clock, sleep=story.sleep)
    assert found.recovered == (None if recovered is None else pytest.approx(recovered, abs=0.11))
    if noticed < works:
        assert found.detected == (None if detected is None else pytest.approx(detected, abs=0.11))
    assert (found.undone, found.same, story.calls) == (undone, True, ["plant", "undo"])


def test_what_is_left_behind_is_said() -> None:
    story = Story(noticed_at=1.0, works_again_at=2.0, left="other routes")
    assert not timed(story, longest=10.0, clock=story.clock, sleep=story.sleep).same


def test_what_does_not_work_already_is_not_touched() -> None:
    story = Story(noticed_at=0.0, works_again_at=NEVER, planted=True)
    with pytest.raises(RehearsalError, match="before anything was done"):
        timed(story, longest=10.0, clock=story.clock, sleep=story.sleep)
    assert story.calls == []


def test_an_interrupt_takes_the_fault_back() -> None:
    story, looks = Story(noticed_at=NEVER, works_again_at=NEVER), count()

    def sleep(seconds: float) -> None:
        if next(looks) == 3:
            raise KeyboardInterrupt
        story.now += seconds

    with pytest.raises(KeyboardInterrupt):
        timed(story, longest=10.0, clock=story.clock, sleep=sleep)
    assert story.calls == ["plant", "undo"]


def rehearsal(**changes: object) -> Rehearsal:
    values = {
        "scenario": "model-killed",
        "model": "net",
        "subject": "version 1",
        "at": "2026-12-01T10:00:00+00:00",
        "detected": 1.0,
        "recovered": 2.0,
        "limit": 30.0,
        "unit": "seconds",
    }
    return Rehearsal(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"detected": None}, False),
        ({"detected": 31.0}, False),
        ({"recovered": None}, False),
        ({"same": False}, False),
        ({"undone": True}, False),
    ],
)
def test_it_passes_where_all_of_it_held(tmp_path: Path, changes: dict[str, object], passed: bool) -> None:
    found = rehearsal(**changes)
    assert found.passed == passed
    keep(tmp_path, found)
    assert kept(tmp_path, "net") == (found,)


def said(*words: object, code: int = 0) -> str:
    done = within("rehearse", *map(str, words))
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


@pytest.mark.parametrize("scenario", ["model-killed", "model-stalled", "server-killed", "edge-killed"])
def test_without_a_server_nothing_begins(scenario: str) -> None:
    assert "no server is running" in said("net", scenario, code=4)


def test_what_cannot_begin_says_why(tmp_path: Path) -> None:
    assert "unknown scenario" in said("net", "fire", code=2)
    assert "no plan is named" in said("net", "poisoned-feature", code=2)
    assert "there is no release" in said("net", "revoked-key", code=2)
    assert "invalid model name" in said("../net", "model-killed", "--here", code=2)


def test_scenarios_are_listed_with_what_was_rehearsed(home: Path) -> None:
    keep(home, rehearsal(model="net"))
    shown = json.loads(within("rehearse", "net", "--json").output)
    assert list(shown["scenarios"]) == list(SCENARIOS)
    assert list(shown["rehearsed"]) == ["model-killed"]
    assert shown["rehearsed"]["model-killed"]["passed"] is True


def test_a_revoked_key_no_longer_counts_and_counts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "site" / "home"
    monkeypatch.setenv("SEATRIAL_HOME", str(home))
    released(home)
    roles = home.parent / "roles.toml"
    before = roles.read_text()
    shown = json.loads(within("rehearse", "net@2", "revoked-key", "--roles", str(roles), "--json").output)["rehearsal"]
    assert (shown["passed"], "its key is revoked" in shown["evidence"]) == (True, True)
    assert roles.read_text() == before
    assert [each.event for each in TrailFile(home / "trail").entries()][-1] == "rehearsed"
    assert "no approval of net@1 counts" in said("net@1", "revoked-key", "--roles", roles, code=2)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home that has learned, and a table of 120 quiet hours."""
    folder = tmp_path_factory.mktemp("rehearsed")
    return learned_home(folder), table(folder / "traffic.parquet", STREAM, 0, 120)


@pytest.fixture
def watched(learned: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Sequence[object]:
    home, traffic = learned
    monkeypatch.setenv("SEATRIAL_HOME", str(home))
    return ("--plan", home.parent / "shop.toml", "--traffic", traffic)


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "evidence"), [("poisoned-feature", "f1"), ("dead-pipeline", "silent")])
def test_spoiled_traffic_is_noticed_and_nothing_of_the_monitor_changes(
    watched: Sequence[object], learned: tuple[Path, Path], scenario: str, evidence: str
) -> None:
    def monitor() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (learned[0] / "watch").rglob("*") if path.is_file()}

    before = monitor()
    feature = ("--feature", "f1") if scenario == "poisoned-feature" else ()
    shown = json.loads(said("shop", scenario, *watched, *feature, "--json"))["rehearsal"]
    assert shown["passed"] is True, shown
    assert shown["detected"] <= 3
    assert evidence in shown["evidence"]
    assert monitor() == before
    assert not list((learned[0] / "work").glob("*"))


@pytest.mark.slow
def test_a_feature_that_is_not_there_and_traffic_that_is_short_or_not_quiet(
    watched: Sequence[object], tmp_path: Path
) -> None:
    assert "is not a number that is watched" in said("shop", "poisoned-feature", *watched, "--feature", "f9", code=2)
    short = table(tmp_path / "short.parquet", STREAM, 0, 20)
    assert "windows, 90 are needed" in said("shop", "dead-pipeline", *watched[:2], "--traffic", short, code=2)
    other = Stream(features=3, rows=120, mode="season", seed=99)
    loud = table(tmp_path / "loud.parquet", other, 0, 120, names={"f0": "f1", "f1": "f0"})
    words = said("shop", "poisoned-feature", *watched[:2], "--traffic", loud, code=2)
    assert "alarms before anything was done to it" in words
