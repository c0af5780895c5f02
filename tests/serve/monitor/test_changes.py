"""Changes before an alarm: added, read from our own journals, held against it with reasons for and against."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.serve.monitor import changes
from seatrial.serve.monitor.alarms import Alarm
from seatrial.serve.monitor.changes import Change, Kind
from seatrial.serve.monitor.deploys import known_changes
from seatrial.serve.monitor.diagnosis import Advice, Cause
from seatrial.serve.monitor.suspects import diagnosed, suspects
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.trailed import trailed
from seatrial.serve.triton.repository import journal
from seatrial.serve.triton.repository.journal import Entry
from seatrial.serve.verbs import alerting
from tests.support.built import ROOT
from tests.support.commands import within

HOUR = 3600.0
NOW = 1_772_409_600.0
GOLDEN = ROOT / "tests" / "golden" / "rollouts" / "net"


def alarm(*, kind: Any = "pipeline", began: float = NOW, features: tuple[str, ...] = ("income",)) -> Alarm:
    advice: Any = "patch" if kind == "pipeline" else "label"
    cause = Cause(kind=kind, advice=advice, features=features, reasons=("income: outside: +50 percentage points",))
    return Alarm(began=began, renewed=began, times=1, cause=cause)


def change(hours: float, kind: Kind = "pipeline", text: str = "deployed the income job", **more: Any) -> Change:
    return Change(at=NOW - hours * HOUR, kind=kind, text=text, **more)


def switched(hours: float) -> Change:
    return change(hours, "deploy", "switched from 1 to 2", ours=True, moved_traffic=True, undo="seatrial switch m 1")


def test_only_what_came_before_within_a_day_of_windows_is_suspected() -> None:
    near = [change(-1.0), change(2.0), change(23.0), change(25.0)]
    found = suspects(alarm(), (), near, interval=HOUR)
    assert [each.seconds / HOUR for each in found] == [2.0, 23.0]
    assert len(suspects(alarm(), (), near, interval=60.0)) == 0


def test_a_change_of_the_pipeline_is_named_with_reasons_and_the_advice_stays_patch() -> None:
    found = diagnosed(alarm(), (), [change(1.0), change(2.0, "other", "lunch"), switched(3.0)], interval=HOUR)
    assert found.advice == "patch"
    first = found.suspects[0]
    assert first.change.text == "deployed the income job"
    assert first.supports == (
        "it came 60 minutes before the alarm",
        "a change of the kind pipeline can do this (pipeline)",
        "it names income",
    )
    assert first.against == ()
    assert "deployed the income job (pipeline) 60 minutes" in found.reason
    deploy = next(each for each in found.suspects if each.change.kind == "deploy")
    assert "what moved is made before the model: a version does not change what arrives" in deploy.against
    assert "another change lies closer to the alarm" in deploy.against


def test_a_deployment_of_ours_right_before_the_alarm_is_to_be_taken_back() -> None:
    found = diagnosed(alarm(kind="data"), (), [switched(1.0), change(20.0)], interval=HOUR)
    assert (found.advice, found.command) == ("rollback", "seatrial switch m 1")
    assert "switched from 1 to 2" in found.reason
    assert diagnosed(alarm(kind="data"), (), [switched(9.0)], interval=HOUR).advice == "label"
    placed = change(1.0, "deploy", "placed", ours=True)
    assert diagnosed(alarm(kind="data"), (), [placed], interval=HOUR).advice == "label"
    theirs = change(1.0, "deploy", "of another team", moved_traffic=True)
    assert diagnosed(alarm(kind="data"), (), [theirs], interval=HOUR).advice == "label"
    assert diagnosed(alarm(), (), [], interval=HOUR).suspects == ()


def test_every_advice_has_a_text() -> None:
    assert set(alerting._ADVICE) == set(get_args(Advice))


def test_what_happened_earlier_counts_against_a_change() -> None:
    before = alarm(began=NOW - 5 * 24 * HOUR)
    [found] = suspects(alarm(), (before,), [change(1.0)], interval=HOUR)
    assert found.against == ("the same features had alarmed before it",)
    other = alarm(began=NOW - 5 * 24 * HOUR, features=("age",))
    earlier = [change(24.0 * days, text="nightly job") for days in (3, 9, 15)]
    [found] = suspects(alarm(), (), [change(1.0), *earlier], interval=HOUR)
    assert found.against == ("3 earlier changes of its kind were followed by no alarm",)
    followed = [*earlier, change(5 * 24.0 + 1)]
    [found] = suspects(alarm(), (other,), [change(1.0), *followed], interval=HOUR)
    assert found.against == ()


def test_changes_are_added_once_and_listed(home: Path) -> None:
    add = ("changes", "add", "m", "the feature store was filled anew: income", "--at", "2026-03-02T10:00")
    assert "added" in within(*add, "--kind", "feature-store", home=home).output
    again = json.loads(within(*add, "--kind", "feature-store", "--json", home=home).output)
    assert again["added"] is False
    assert again["change"]["at"] == NOW + 10 * HOUR
    listed = json.loads(within("changes", "list", "m", "--json", home=home).output)
    assert [each["kind"] for each in listed["changes"]] == ["feature-store"]
    assert "2026-03-02 10:00 UTC" in within("changes", "list", "m", home=home).output
    assert "no change" in within("changes", "list", "other", home=home).output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m", "x", "--at", "soon"), "not a time"),
        (("m", "x", "--kind", "magic"), "not a kind"),
        (("m", " "), "printable characters"),
        (("m", "a\nb"), "printable characters"),
        (("../m", "x"), "invalid model name"),
    ],
)
def test_what_is_no_change_is_refused(words: tuple[str, ...], message: str, home: Path) -> None:
    done = within("changes", "add", *words, home=home)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert not list(home.rglob("changes.jsonl"))


def test_deployments_are_read_from_our_own_journals(tmp_path: Path) -> None:
    repository, home = tmp_path / "models", tmp_path / "home"
    (repository / "net" / "2").mkdir(parents=True)
    record = {"schema": 1, "name": "net", "version": 2, "digest": f"sha256:{'a' * 64}", "backend": "python"}
    (repository / "net" / "2" / "placement.json").write_text(
        json.dumps(record | {"artifact": "net", "at": "2026-03-02T08:00:00+00:00"})
    )
    journal.write(
        repository,
        Entry(model="net", state="verified", before=(1,), after=(2,), at="2026-03-02T09:00:00+00:00"),
    )
    shutil.copytree(GOLDEN, home / "rollouts" / "net")
    log = home / "rollouts" / "net" / "2-1700000000.000" / "log.jsonl"
    start, decision = (json.loads(log.read_text().splitlines()[at]) for at in (0, -1))
    for at, phase, step in ((100.0, "step", 0), (200.0, "promoting", 0), (300.0, "rolling_back", 0)):
        decision["before"], decision["after"] = dict(decision["after"]), dict(decision["after"])
        decision["after"] |= {"phase": phase, "step": step}
        decision["observation"] |= {"at": start["rollout"]["started"] + at}
        with log.open("a") as stream:
            stream.write(json.dumps(decision) + "\n")
    found, unread = known_changes(tmp_path, home=home, repository=repository, model="net")
    assert unread == []
    texts = [each.text for each in found]
    share = start["rollout"]["plan"]["steps"][0]["share"]
    assert f"rollout of version 2: step at {share:.0%}" in texts
    assert texts[-2:] == ["version 2 was placed", "the served versions were switched from 1 to 2"]
    undo = {each.text: each.undo for each in found}
    assert undo["the served versions were switched from 1 to 2"] == "seatrial switch net 1"
    assert undo["rollout of version 2: promoting"] == "seatrial rollout rollback net"
    assert undo["rollout of version 2: rolling back"] == ""
    assert all(each.ours for each in found)
    log.write_text('{"kind": "decision", "schema": 1}\n{"schema": 1}\n')
    changes.add(tmp_path, Change(at=1.0, kind="other", text="kept"))
    found, unread = known_changes(tmp_path, home=home, repository=repository, model="net")
    assert len(unread) == 1
    assert found[0].text == "kept"
    assert len(found) == 3


def test_routes_that_were_set_are_read_from_the_trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    enter = trailed(lambda model: {}, lambda said: pytest.fail(said))
    for routes in (
        Routes(model="m", stable=1),
        Routes(model="m", stable=1, candidate=2, share=0.2),
        Routes(model="m", stable=1, candidate=2, share=0.2, mirror=0.5),
        Routes(model="other", stable=7),
        Routes(model="m", stable=2),
    ):
        enter(routes, datetime.now(UTC))
    found, unread = known_changes(tmp_path, home=tmp_path, repository=tmp_path, model="m")
    assert unread == []
    assert [(each.text, each.undo) for each in found] == [
        ("routes: 100% to version 1", ""),
        ("routes: 80% to version 1, 20% to version 2", "seatrial routes set m --stable 1"),
        ("routes: 100% to version 2", "seatrial routes set m --stable 1"),
    ]
    trail = tmp_path / "trail" / "trail.jsonl"
    trail.write_bytes(trail.read_bytes()[:-40] + b"torn\n")
    found, unread = known_changes(tmp_path, home=tmp_path, repository=tmp_path, model="m")
    assert len(found) >= 2
    assert len(unread) == 1


def test_a_time_beyond_the_calendar_is_no_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        changes.add(tmp_path, Change(at=float("nan"), kind="other", text="x"))
    with pytest.raises(ValueError, match="calendar"):
        changes.moment(1e300)
