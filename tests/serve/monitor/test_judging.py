"""Learn, estimate, add outcomes, judge, queue and export as a user does: exit codes, names, each outcome once."""

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from seatrial.serve.cli import app
from seatrial.serve.monitor.quantities import Columns

ROWS = 40  # an hour
PLAN = """
schema = 1
model = "loans"
rows = 30
[features.age]
kind = "number"
[features.region]
kind = "category"
[estimate]
label = "label"
probabilities = { yes = "p" }
[outcomes]
request = "request"
groups = ["region"]
"""


def drawn(first: int, last: int, *, wrong: str = "") -> dict[str, Any]:
    """Traffic of these hours with its right classes; in one region half of the answers may be wrong."""
    draw = np.random.default_rng([7, first + 10_000])
    rows = (last - first) * ROWS
    age, region = draw.normal(size=rows), draw.choice(["north", "south", "east"], rows, p=[0.2, 0.4, 0.4])
    chance = 1 / (1 + np.exp(-4 * age))
    truth = draw.random(rows) < chance
    truth = np.where((region == wrong) & (draw.random(rows) < 0.5), chance < 0.5, truth)
    return {
        "time": MONDAY + (first + np.arange(rows) / ROWS) * HOUR,
        "request": np.array([f"r{first}-{at}" for at in range(rows)], dtype=object),
        "age": age,
        "region": region.astype(object),
        "p": chance,
        "label": np.where(truth, "yes", "no").astype(object),
    }


def table(path: Path, columns: Columns, *without: str) -> Path:
    with duckdb.connect() as connection:
        connection.register("rows", {name: each for name, each in columns.items() if name not in without})
        connection.execute(f"copy rows to '{path}' (format parquet)")
    return path


def labels(path: Path, columns: Columns, count: int, *, chosen_by: str = "random") -> Path:
    """Write the labels of the first requests."""
    rows = [
        f"{request},{label},{chosen_by}" for request, label in zip(columns["request"], columns["label"], strict=True)
    ]
    path.write_text("\n".join(["request,value,chosen_by", *rows[:count]]))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in words])


def reported(*words: object, code: int) -> dict[str, Any]:
    found = run(*words, "--json")
    assert found.exit_code == code, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the baseline and the labelled reference of `PLAN` were learned."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "loans.toml").write_text(PLAN)
    reference = table(folder / "reference.parquet", drawn(-400, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        assert run("learn", folder / "loans.toml", reference).exit_code == 0
    return folder / "home"


@pytest.fixture
def plan(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEATRIAL_HOME", str(shutil.copytree(learned, tmp_path / "home")))
    path = tmp_path / "loans.toml"
    path.write_text(PLAN)
    return path


@pytest.mark.slow
def test_without_labels_nothing_is_fine(plan: Path, tmp_path: Path) -> None:
    quiet = table(tmp_path / "quiet.parquet", drawn(0, 30), "label")
    found = reported("estimate", plan, quiet, code=3)
    guess = found["estimate"]
    assert guess["low"] < found["reference_accuracy"] < guess["high"]
    assert (found["tells"], guess["labels"], guess["checked"]) == (True, 0, None)
    shown = run("estimate", plan, quiet)
    assert shown.exit_code == 3
    text = " ".join(shown.stdout.split())
    assert "assumes that the answer to the same input has not changed; last checked with 0 labels" in text
    assert f"{found['labels_needed']} random labels of these requests would show a fall by 5.0%" in text
    judged = reported("outcomes", "judge", plan, quiet, code=3)
    assert judged["labels_needed"] == found["labels_needed"] > 100
    assert "cannot tell" in run("outcomes", "judge", plan, quiet).stdout
    far = drawn(30, 40)
    far["age"] = far["age"] * 0.1 + 6.0
    assert reported("estimate", plan, table(tmp_path / "far.parquet", far, "label"), code=3)["tells"] is False


@pytest.mark.slow
def test_outcomes_are_judged_once_and_a_wrong_segment_is_named(plan: Path, tmp_path: Path) -> None:
    quiet, wrong = drawn(0, 30), drawn(30, 60, wrong="north")
    first, second = (table(tmp_path / f"{name}.parquet", each, "label") for name, each in (("a", quiet), ("b", wrong)))
    run("outcomes", "add", "loans", labels(tmp_path / "a.csv", quiet, 1100))
    found = reported("outcomes", "judge", plan, first, code=0)
    assert (found["judged"], found["alarms"], found["tells"]) == (1100, [], True)
    assert reported("outcomes", "judge", plan, first, code=0)["judged"] == 1100
    assert reported("estimate", plan, first, code=0)["contradicted"] is False
    run("outcomes", "add", "loans", labels(tmp_path / "b.csv", wrong, 1200))
    waits = reported("outcomes", "judge", plan, first, code=0)
    assert (waits["judged"], len(waits["orphans"])) == (1100, 1200)
    found = reported("outcomes", "judge", plan, first, second, code=1)
    assert found["judged"] == 2300
    [alarm] = found["alarms"]
    assert alarm["cause"]["features"][0] == "region = north"
    assert (alarm["cause"]["kind"], alarm["cause"]["advice"]) == ("concept", "retrain")
    shown = run("outcomes", "judge", plan, first, second)
    assert shown.exit_code == 1
    assert "retrain: the model got worse" in shown.stdout
    assert reported("estimate", plan, second, code=1)["contradicted"] is True


@pytest.mark.slow
def test_a_version_that_began_shortly_before_is_to_be_rolled_back(plan: Path, tmp_path: Path) -> None:
    wrong = drawn(30, 60, wrong="north")
    run("outcomes", "add", "loans", labels(tmp_path / "b.csv", wrong, 1200))
    requests = table(tmp_path / "b.parquet", wrong, "label")
    found = reported("outcomes", "judge", plan, requests, "--released", "2026-03-03T06:00", code=1)
    assert found["alarms"][0]["cause"]["advice"] == "rollback"
    assert run("outcomes", "judge", plan, requests, "--released", "soon").exit_code == 2


@pytest.mark.slow
def test_labels_of_another_selection_say_nothing_of_the_model(plan: Path, tmp_path: Path) -> None:
    wrong = drawn(30, 60, wrong="north")
    run("outcomes", "add", "loans", labels(tmp_path / "b.csv", wrong, 1200, chosen_by="complaint"))
    requests = table(tmp_path / "b.parquet", wrong, "label")
    found = reported("outcomes", "judge", plan, requests, code=3)
    assert (found["judged"], found["labels"], found["alarms"]) == (0, 0, [])
    to = tmp_path / "train.csv"
    exported = reported("outcomes", "export", "loans", "--to", to, "--plan", plan, "--traffic", requests, code=0)
    assert exported["rows"] == 1200
    lines = to.read_text().splitlines()
    assert lines[0] == "request,label,chosen_by,age,region,time"
    assert lines[1].split(",")[2] == "complaint"


@pytest.mark.slow
def test_the_queue_is_kept_and_hands_its_selection_to_the_labels(plan: Path, tmp_path: Path) -> None:
    quiet = drawn(0, 10)
    requests = table(tmp_path / "a.parquet", quiet, "label")
    words = ("outcomes", "queue", "loans", "--plan", plan, "--traffic", requests, "--seed", 5)
    found = reported(*words, "--number", 100, "--to", tmp_path / "cases.json", code=0)
    assert found["chosen_by"] == {"random": 70, "unsure": 30}
    tasks = json.loads((tmp_path / "cases.json").read_text())
    assert set(tasks[0]["data"]) == {"request", "chosen_by", "time", "age", "region"}
    again = reported(*words, "--number", 100, code=0)
    assert not {each["request"] for each in found["cases"]} & {each["request"] for each in again["cases"]}
    (tmp_path / "back.csv").write_text(
        "request,value\n" + "\n".join(f"{each['request']},yes" for each in found["cases"])
    )
    run("outcomes", "add", "loans", tmp_path / "back.csv")
    shown = reported("outcomes", "show", "loans", "--plan", plan, "--traffic", requests, code=0)
    counts = {each["chosen_by"]: each["count"] for each in shown["outcomes"]}
    assert counts == {"random": 70, "unsure": 30}
    assert (shown["requests"], shown["orphans"], shown["early"]) == (400, [], [])
    assert reported(*words, "--number", 1000, code=0)["cases"]
    assert run(*words, "--number", 10).exit_code == 3


def test_what_is_wrong_is_said(plan: Path, tmp_path: Path) -> None:
    quiet = table(tmp_path / "a.parquet", drawn(0, 3), "label")
    nameless = table(tmp_path / "b.parquet", drawn(0, 3), "request")
    other, plain, unlike = (tmp_path / f"{name}.toml" for name in ("other", "plain", "unlike"))
    other.write_text(PLAN.replace("loans", "other"))
    plain.write_text(PLAN[: PLAN.index("[estimate]")])
    unlike.write_text(
        PLAN.replace('groups = ["region"]', "") + '[[kpi]]\nname = "x"\noutcome = "revenue"\nunit = "$"\n'
    )
    for words, message in (
        (("outcomes", "queue", "loans", "--number", "5"), "the requests are needed"),
        (("outcomes", "show", "loans", "--plan", other, "--traffic", quiet), "the plan is of 'other'"),
        (("outcomes", "judge", plan, nameless), "no column 'request'"),
        (("outcomes", "judge", plain, quiet), "the plan has no [outcomes]"),
        (("outcomes", "judge", unlike, quiet), "was learned by another [estimate] or other groups"),
        (("estimate", plain, quiet), "does not say what the model answered"),
        (("estimate", other, quiet), "no baseline was learned"),
        (("outcomes", "export", "loans", "--to", "x.xml", "--plan", plan), "the requests are needed"),
    ):
        found = run(*words)
        assert found.exit_code == 2, found.output
        assert message in " ".join(found.output.split()), found.output
        assert "Traceback" not in found.output
    unlike.write_text(PLAN.replace('probabilities = { yes = "p" }', ""))
    assert "does not say what the model answered" in run("estimate", unlike, quiet).output


@pytest.mark.slow
def test_too_few_labels_in_the_reference_are_a_note_and_drift_still_runs(tmp_path: Path) -> None:
    few = drawn(-400, 0)
    few["label"][100:] = None
    (tmp_path / "loans.toml").write_text(PLAN)
    found = reported("learn", tmp_path / "loans.toml", table(tmp_path / "a.parquet", few), code=0)
    assert any("100 rows have a label and an answer" in each for each in found["doubts"])
    quiet = table(tmp_path / "b.parquet", drawn(0, 10), "label")
    assert run("watch", tmp_path / "loans.toml", quiet).exit_code == 0
    assert "too few labelled rows" in run("estimate", tmp_path / "loans.toml", quiet).output
    assert run("outcomes", "judge", tmp_path / "loans.toml", quiet).exit_code == 2


@pytest.mark.slow
def test_damaged_records_are_named(plan: Path, tmp_path: Path) -> None:
    quiet = table(tmp_path / "a.parquet", drawn(0, 3), "label")
    assert run("outcomes", "judge", plan, quiet).exit_code == 3
    for name in ("labelled.npz", "outcomes/judged.json"):
        file = tmp_path / "home" / "watch" / "loans" / name
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        found = run("outcomes", "judge", plan, quiet)
        assert found.exit_code == 5, found.output
        assert Path(name).name in found.output.replace("\n", "")
        file.write_bytes(whole)
    assert run("outcomes", "judge", plan, quiet).exit_code == 3
