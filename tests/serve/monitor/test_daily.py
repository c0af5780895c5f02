"""The page of a day: alarms with the changes before them, silence, evidence, and what was not seen."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from seatrial.serve.monitor import daily, history
from seatrial.serve.monitor.alarms import Watched
from seatrial.serve.monitor.history import History
from seatrial.serve.monitor.watching import Judged
from tests.support.monitored import PLAN, STREAM, learned_home, run, table

BROKEN = replace(STREAM, drift="unit", size=1000.0, begin=5)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose traffic was judged until ten, and then fell silent; an alarm holds."""
    folder = tmp_path_factory.mktemp("watched")
    home = learned_home(folder)
    (folder / "shop.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(home))
        words = ("the unit of f0 was changed", "--at", "2026-03-02T04:30", "--kind", "pipeline")
        assert run("changes", "add", "shop", *words).exit_code == 0
        traffic = table(folder / "a.parquet", BROKEN, 0, 10)
        assert run("watch", folder / "shop.toml", traffic, "--until", "2026-03-02T14:00").exit_code == 1
    return home


@pytest.fixture
def home(tmp_path: Path, watched: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(watched, tmp_path / "home")
    monkeypatch.setenv("SEATRIAL_HOME", str(folder))
    return folder


@pytest.mark.slow
def test_the_page_tells_what_happened_why_and_what_was_not_seen(home: Path, tmp_path: Path) -> None:
    assert run("daily", "shop", "--out", tmp_path / "day.md").exit_code == 0
    page = (tmp_path / "day.md").read_text()
    for part in (
        "# shop: 2026-03-02 (UTC)",
        "- 10 windows of 1199 rows were judged.",
        "- Silent for 4.0 hours: 2026-03-02 10:00 UTC to 2026-03-02 14:00 UTC.",
        "**Alarm (critical)** since 2026-03-02 06:00 UTC, holds",
        "features: f0",
        "advice: **patch**: the unit of f0 was changed (pipeline) 90 minutes before the alarm",
        "    - for: it names f0",
        "- 2026-03-02 04:30 UTC: the unit of f0 was changed (pipeline)",
        "- The rest of the day: judged until 2026-03-02 14:00 UTC.",
        "- Whether the answers were right",
        "| 2026-03-02 05:00 UTC | 120 |",
    ):
        assert part in page, page
    assert "Could not be read" not in page


def test_the_page_as_json_and_of_another_day(home: Path) -> None:
    found = json.loads(run("daily", "shop", "--json").stdout)
    assert (found["windows"], found["rows"], found["silent"]) == (10, 1199, 4 * 3600)
    [happened] = found["alarms"]
    assert happened["alarm"]["state"] == "holds"
    assert happened["diagnosed"]["advice"] == "patch"
    assert happened["diagnosed"]["suspects"][0]["change"]["text"] == "the unit of f0 was changed"
    before = run("daily", "shop", "--date", "2026-03-01").stdout
    assert "0 windows" in before
    assert "Nothing was judged, so no alarm says nothing." in before
    assert "No window was judged." in before
    assert run("daily", "shop", "--date", "today").exit_code == 0
    assert run("daily", "shop", "--date", "monday").exit_code == 2
    assert run("daily", "other").exit_code == 2


def test_watch_names_the_change_too(home: Path, watched: Path) -> None:
    traffic, plan = watched.parent / "a.parquet", watched.parent / "shop.toml"
    shown = run("watch", plan, traffic)
    assert shown.exit_code == 1
    assert "before it: 2026-03-02 04:30 UTC, the unit of f0 was changed (pipeline)" in shown.stdout
    assert "alarm (critical) since" in shown.stdout
    assert "patch it (the unit of f0 was changed" in shown.stdout.replace("\n", " ")
    found = json.loads(run("watch", plan, traffic, "--json").stdout)
    assert found["diagnosed"]["advice"] == "patch"
    assert found["watched"]["alarms"][0]["tier"] == "critical"
    assert found["watched"]["alarms"][0]["harmed"] > 0.5


def test_damage_is_named_and_journals_that_cannot_be_read_are_on_the_page(home: Path) -> None:
    folder = home / "watch" / "shop"
    (folder / "changes.jsonl").write_text('{"schema": 1, "kind": 3}\n{"schema": 1}\n')
    done = run("daily", "shop")
    assert done.exit_code == 0
    assert "Could not be read" in done.stdout
    (folder / "windows.jsonl").write_text('{"schema": 1, "judged": [{"rows": 1}], "silent": []}\n{"schema": 1}\n')
    assert run("daily", "shop").exit_code == 5


def test_a_look_that_was_killed_between_its_files_counts_once(home: Path) -> None:
    folder = home / "watch" / "shop"
    text = (folder / "windows.jsonl").read_text()
    (folder / "windows.jsonl").write_text(text + text)
    assert json.loads(run("daily", "shop", "--json").stdout)["windows"] == 10
    assert len(history.read(folder).silent) == 4


def judged(hour: int) -> Judged:
    start = MONDAY + hour * HOUR
    return Judged(start=start, end=start + HOUR, rows=10, evidence=1.0, threshold=10.0, feature="f0", alarms=False)


def test_hours_without_a_judgement_are_said_to_be_unseen() -> None:
    past = History(judged=(judged(0), judged(5)), silent=())
    known = daily.Known(
        model="m", interval=HOUR, watched=Watched(until=MONDAY + 6 * HOUR, late=2), history=past, changes=()
    )
    page = daily.markdown(daily.day_of(known, date(2026, 3, 2)))
    assert "About 4.0 hours without a judgement of their own" in page
    assert "2 intervals in all came after they had been passed over." in page
    assert "No silence." in page
    assert "No alarm." in page


def test_days() -> None:
    today = datetime.now(UTC).date()
    assert daily.read_day("yesterday") in (today - timedelta(days=1), today)
    assert daily.newest(Watched(), MONDAY) == date(2026, 3, 2)
    assert daily.newest(Watched(until=MONDAY), 0.0) == date(2026, 3, 1)
    assert daily.joined([(0.0, 1.0), (1.0, 2.0), (3.0, 4.0)]) == ((0.0, 2.0), (3.0, 4.0))
