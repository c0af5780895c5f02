"""Learn and watch as a user does: tables in, alarms, silence and exit codes out; each interval judged once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from tests.support.monitored import PLAN, STREAM, run, table


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table(tmp_path_factory.mktemp("reference") / "reference.parquet", STREAM, -500, 0)


@pytest.fixture(scope="module")
def learned(reference: Path) -> Path:
    """A home in which the baseline of `PLAN` was learned."""
    (reference.parent / "shop.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(reference.parent / "home"))
        assert run("learn", reference.parent / "shop.toml", reference).exit_code == 0
    return reference.parent / "home"


@pytest.fixture
def plan(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan whose baseline was learned, in a home of its own."""
    monkeypatch.setenv("SEATRIAL_HOME", str(shutil.copytree(learned, tmp_path / "home")))
    path = tmp_path / "shop.toml"
    path.write_text(PLAN)
    return path


def watched(plan: Path, *words: object, code: int) -> dict[str, Any]:
    found = run("watch", plan, *words, "--json")
    assert found.exit_code == code, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


@pytest.mark.slow
def test_learning_says_what_will_be_found(plan: Path, reference: Path) -> None:
    found = json.loads(run("learn", plan, reference, "--json").stdout)
    assert found["seasonal"] is True
    assert found["windows"] == 500
    assert found["replayed"] == []
    [location] = [each for each in found["smallest_changes"] if each["quantity"] == "f0: location"]
    assert location["an hour"] > location["a day"] > location["a week"] > 0.05
    shown = run("learn", plan, reference)  # a second time, which forgets nothing that is needed
    assert "with its season" in shown.stdout
    assert "standard deviations" in shown.stdout
    assert "note: 20.8 of 28 days of reference" in shown.stdout


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_each_interval_is_judged_once_in_any_kind_of_table(plan: Path, tmp_path: Path, kind: str) -> None:
    first = watched(plan, table(tmp_path / f"a{kind}", STREAM, 0, 10), code=0)
    assert len(first["judged"]) == 10
    again = watched(plan, tmp_path / f"a{kind}", code=0)
    assert again["judged"] == []
    more = watched(plan, table(tmp_path / f"b{kind}", STREAM, 5, 15), code=0)
    assert [each["start"] for each in more["judged"]] == [MONDAY + hour * HOUR for hour in range(10, 15)]
    assert more["watched"]["windows"] == 15
    assert more["watched"]["alarms"] == []


def test_an_alarm_holds_and_ends(plan: Path, tmp_path: Path) -> None:
    broken = replace(STREAM, drift="unit", size=1000.0, begin=5)
    found = watched(plan, table(tmp_path / "a.parquet", broken, 0, 12), code=1)
    [alarm] = found["watched"]["alarms"]
    assert alarm["began"] == MONDAY + 6 * HOUR
    assert alarm["times"] > 1
    assert (alarm["cause"]["kind"], alarm["cause"]["advice"], alarm["cause"]["features"][0]) == (
        "pipeline",
        "patch",
        "f0",
    )
    shown = run("watch", plan, tmp_path / "a.parquet")
    assert shown.exit_code == 1
    assert "patch it" in shown.stdout
    after = watched(plan, table(tmp_path / "b.parquet", STREAM, 12, 48), code=0)
    [alarm] = after["watched"]["alarms"]
    assert alarm["ended"] - alarm["renewed"] == pytest.approx(86_400, abs=HOUR)


def test_a_column_that_vanishes_or_turns_to_text_alarms_by_itself(plan: Path, tmp_path: Path) -> None:
    renamed = table(tmp_path / "a.csv", STREAM, 0, 3, names={"f1": "income"})
    cause = watched(plan, renamed, code=1)["watched"]["alarms"][0]["cause"]
    assert cause["reasons"][0] == "f1: the column is absent"
    lines = table(tmp_path / "b.csv", STREAM, 3, 6).read_text().splitlines()
    at = lines[0].split(",").index("f2")
    text = [
        ",".join("n/a" if place == at else cell for place, cell in enumerate(line.split(","))) for line in lines[1:]
    ]
    (tmp_path / "c.csv").write_text("\n".join([lines[0], *text]))
    found = run("watch", plan, tmp_path / "c.csv")
    assert found.exit_code == 1


def test_silence_is_a_state_of_its_own(plan: Path, tmp_path: Path) -> None:
    some = table(tmp_path / "a.parquet", STREAM, 0, 4)
    found = watched(plan, some, "--until", "2026-03-02T08:00", code=3)
    assert found["watched"]["silent_since"] == MONDAY + 4 * HOUR
    assert "silent" in run("watch", plan, some, "--until", "2026-03-02T09:00").stdout
    back = watched(plan, table(tmp_path / "b.parquet", STREAM, 9, 12), code=0)
    assert back["watched"]["silent_since"] is None
    late = watched(plan, table(tmp_path / "c.parquet", STREAM, 4, 13), code=0)
    assert len(late["judged"]) == 1


@pytest.mark.slow
def test_what_is_wrong_is_said_and_nothing_is_lost(plan: Path, tmp_path: Path) -> None:
    good = table(tmp_path / "a.parquet", STREAM, 0, 3)
    (tmp_path / "x.csv").write_text("f0,when\n1,2\n")
    (tmp_path / "y.csv").write_text("f0,f1,f2,time\n1,1,1,yesterday\n")
    (tmp_path / "z.parquet").write_bytes(b"PAR1 nothing")
    for words, message in (
        ((tmp_path / "none.csv",), "no such file"),
        ((tmp_path / "x.csv",), "no column 'time'"),
        ((tmp_path / "y.csv",), "have no time"),
        ((tmp_path / "z.parquet",), "cannot be read as a table"),
        ((good, tmp_path / "x.csv"), "tables of one kind"),
        ((good, "--until", "soon"), "is not a time"),
    ):
        found = run("watch", plan, *words)
        assert found.exit_code == 2, found.output
        assert message in found.output
        assert "Traceback" not in found.output
    assert len(watched(plan, good, code=0)["judged"]) == 3
    plan.write_text(PLAN + "tolerance = { location = 0.2 }\n")
    assert "learn again" in run("watch", plan, good).output
    plan.write_text(PLAN.replace("shop", "other"))
    assert run("watch", plan, good).exit_code == 2
    few = table(tmp_path / "few.parquet", STREAM, 0, 5)
    assert "at least 48" in run("learn", plan, few).output.replace("\n", " ")


@pytest.mark.slow
def test_a_state_of_another_baseline_counts_for_nothing(plan: Path, reference: Path, tmp_path: Path) -> None:
    good, state = table(tmp_path / "a.parquet", STREAM, 0, 3), tmp_path / "home" / "watch" / "shop" / "state.npz"
    watched(plan, good, code=0)
    before = state.read_bytes()
    plan.write_text(PLAN.replace("[features.f2]", "[features.f2]\ntolerance = { location = 0.1 }"))
    assert run("learn", plan, reference).exit_code == 0
    state.write_bytes(before)  # as after a kill between the two files
    assert len(watched(plan, good, code=0)["judged"]) == 3


def test_a_damaged_record_is_named(plan: Path, tmp_path: Path) -> None:
    good = table(tmp_path / "a.parquet", STREAM, 0, 3)
    watched(plan, good, code=0)
    for name in ("state.npz", "baseline.npz"):
        file = tmp_path / "home" / "watch" / "shop" / name
        whole = file.read_bytes()
        for damage in (b"", whole[: len(whole) // 2], whole[:100] + b"\0" * 50 + whole[150:], b"PK\x03\x04"):
            file.write_bytes(damage)
            found = run("watch", plan, good)
            assert found.exit_code == 5, (name, found.output)
            assert "learn it again" in found.output
        file.write_bytes(whole)
    assert run("watch", plan, good).exit_code == 0
