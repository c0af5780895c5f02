"""Outcomes as a user adds them: any kind of file, twice, in conflict, wrong, killed; nothing of them is lost."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from seatrial.serve.cli import app
from seatrial.serve.monitor.joining import joined, maturity
from seatrial.serve.monitor.outcome_shelf import OutcomeShelf, shelf_of
from seatrial.serve.monitor.outcomes import Outcome, added, outcome_of, standing, truths

ROWS = [
    {"request": "a", "value": "yes", "at": 100.0, "chosen_by": "random"},
    {"request": "b", "value": "no", "at": 200.0, "chosen_by": "complaint"},
]
TASKS = [
    {
        "id": 7,
        "data": {"request": row["request"], "chosen_by": row["chosen_by"], "text": "x"},
        "predictions": [],
        "annotations": [
            {
                "created_at": f"1970-01-01T00:0{minute}:40Z",
                "completed_by": {"id": 3, "email": "ann@example.test"},
                "was_cancelled": False,
                "result": [{"type": "choices", "from_name": "answer", "value": {"choices": [row["value"]]}}],
            }
        ],
    }
    for minute, row in ((1, ROWS[0]), (2, ROWS[1]))
] + [
    {"id": 8, "data": {"request": "c"}, "annotations": []},
    {"id": 9, "data": {"request": "d"}, "annotations": [{"was_cancelled": True, "result": []}]},
]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in words])


def reported(*words: object, code: int = 0) -> dict[str, Any]:
    found = run(*words, "--json")
    assert found.exit_code == code, found.output
    document: dict[str, Any] = json.loads(found.stdout)
    return document


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def file_of(kind: str, folder: Path) -> Path:
    path = folder / f"outcomes{kind}"
    if kind == ".jsonl":
        return lines(path, *ROWS)
    if kind == ".json":
        path.write_text(json.dumps(TASKS))
    elif kind == ".csv":
        path.write_text(
            "\ufeffrequest_id,label,time,chosen_by\na,yes,1970-01-01T00:01:40Z,random\nb,no,200,complaint\n"
        )
    else:
        with duckdb.connect() as connection:
            columns = {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
            connection.register("rows", columns)
            connection.execute(f"copy rows to '{path}' (format parquet)")
    return path


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet", ".json"])
def test_any_kind_of_file_gives_the_same_outcomes_once(kind: str, tmp_path: Path) -> None:
    path = file_of(kind, tmp_path)
    assert reported("outcomes", "add", "shop", path)["added"] == 2
    again = reported("outcomes", "add", "shop", path)
    assert (again["added"], again["same"], again["conflicts"]) == (0, 2, [])
    found = shelf_of("shop").outcomes()
    assert [(each.request, each.kind, each.value, each.chosen_by) for each in found] == [
        ("a", "label", "yes", "random"),
        ("b", "label", "no", "complaint"),
    ]
    assert found[1].at == (160.0 if kind == ".json" else 200.0)
    assert found[0].by == ("ann@example.test" if kind == ".json" else "")


def test_a_conflict_is_kept_apart_until_it_is_settled(tmp_path: Path) -> None:
    reported("outcomes", "add", "shop", lines(tmp_path / "a.jsonl", *ROWS))
    other = lines(tmp_path / "b.jsonl", {"request": "a", "value": "no"}, {"request": "c", "value": "yes"})
    found = reported("outcomes", "add", "shop", other, code=1)
    assert (found["added"], len(found["conflicts"])) == (1, 1)
    assert reported("outcomes", "add", "shop", other, code=1)["added"] == 0
    shown = run("outcomes", "show", "shop")
    assert shown.exit_code == 1
    assert "a: label 'no', but 'yes' stands" in shown.stdout.replace("\n", " ")
    assert truths(shelf_of("shop").outcomes())["a"].value == "yes"
    assert len(shelf_of("shop").conflicts()) == 1
    assert reported("outcomes", "add", "shop", other, "--replace")["added"] == 1
    assert truths(shelf_of("shop").outcomes())["a"].value == "no"
    assert shelf_of("shop").conflicts() == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"value": "yes"}, "names no request"),
        ({"request": "a"}, "it has no value"),
        ({"request": "a", "value": "1", "kind": "guess"}, "'guess' is not a kind"),
        ({"request": "a", "value": "many", "kind": "revenue"}, "is not a number"),
        ({"request": "a", "value": "2", "kind": "conversion"}, "a conversion is 0 or 1"),
        ({"request": "a", "value": "1e999", "kind": "revenue"}, "is not a finite number"),
        ({"request": "a", "value": "yes", "at": "soon"}, "is not a time"),
        ({"request": "a", "value": ["yes", "no"]}, "value is a list or an object"),
        ({"request": "a\ud800", "value": "yes"}, "half of a surrogate pair"),
        ({"request": "a\0", "value": "yes"}, "a NUL"),
    ],
)
def test_a_wrong_row_refuses_the_file_and_names_the_place(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS[0], row)
    found = run("outcomes", "add", "shop", path)
    assert found.exit_code == 2
    assert message in found.output.replace("\n       ", " ")
    assert "line 2" in found.output
    assert shelf_of("shop").outcomes() == ()
    assert reported("outcomes", "add", "shop", path, "--skip")["added"] == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("a.xml", "<a/>", "is not a kind of file"),
        ("a.csv", "request,value\na\n", "another number of cells"),
        ("a.jsonl", "[1]\n", "not a JSON object"),
        ("a.jsonl", "{\n", "not JSON"),
        ("a.json", "{}", "not a list of tasks"),
        ("a.json", '[{"data": {"request": "a"}, "annotations": [{"result": [{"value": {}}]}]}]', "0 values"),
        ("a.json", "[5]", "not a task"),
        ("a.parquet", "PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    found = run("outcomes", "add", "shop", tmp_path / name)
    assert found.exit_code == 2
    assert message in found.output
    assert "Traceback" not in found.output


def test_a_name_cannot_leave_its_folder(tmp_path: Path) -> None:
    assert run("outcomes", "add", "../x", lines(tmp_path / "a.jsonl", *ROWS)).exit_code == 2


@pytest.mark.slow
def test_many_outcomes_make_several_files_and_damage_is_named(tmp_path: Path) -> None:
    many = [{"request": f"r{at}", "value": "yes"} for at in range(6000)]
    assert reported("outcomes", "add", "shop", lines(tmp_path / "a.jsonl", *many))["added"] == 6000
    reported("outcomes", "add", "shop", lines(tmp_path / "b.jsonl", *ROWS))
    shelf = shelf_of("shop")
    parts = sorted(path.name for path in shelf.folder.glob("0*.json"))
    assert parts == ["000001.json", "000002.json"]
    assert [each.request for each in shelf.outcomes()[-3:]] == ["r5999", "a", "b"]
    (shelf.folder / parts[1]).write_bytes((shelf.folder / parts[1]).read_bytes()[:100])
    found = run("outcomes", "show", "shop")
    assert found.exit_code == 5
    assert "000002.json" in found.output.replace("\n", "")
    assert run("outcomes", "add", "shop", tmp_path / "b.jsonl").exit_code == 5  # nothing is written over it


def made(request: str, value: str, *, kind: str = "label", at: float = 0.0, chosen_by: str = "random") -> Outcome:
    return outcome_of(
        {"request": request, "value": value, "kind": kind, "at": at, "chosen_by": chosen_by}, added=9.0, queued={}
    )


def test_events_add_up_and_truths_do_not() -> None:
    bought = made("a", "5", kind="revenue", at=1.0)
    found = added(
        [bought], [bought, made("a", "5.0", kind="revenue", at=2.0), made("a", "5.0", kind="revenue", at=1.0)]
    )
    assert (len(found.fresh), found.same, found.conflicts) == (1, 2, ())
    assert sum(each.number for each in standing([bought, *found.fresh])) == 10.0
    converted = [made("a", value, kind="conversion") for value in ("yes", "true", "1")]
    assert added([], converted).same == 2
    assert made("a", "crashed", kind="ticket").number == 1.0


def test_a_correction_goes_before_a_label_and_keeps_its_selection() -> None:
    outcomes = [made("a", "yes", kind="correction", chosen_by="complaint"), made("a", "no"), made("b", "yes")]
    found = truths([*outcomes, made("c", "no", kind="correction", chosen_by="complaint")])
    assert (found["a"].value, found["a"].random) == ("yes", True)
    assert not found["c"].random
    silent = outcome_of({"request": "a", "value": "yes"}, added=0.0, queued={"a": "random"})
    assert silent.chosen_by == "random"
    assert outcome_of({"request": "b", "value": "yes"}, added=0.0, queued={"a": "random"}).chosen_by == "unknown"


def test_orphans_and_early_outcomes_are_not_joined() -> None:
    columns = {"request": np.array(["a", "b", "c"], dtype=object), "moment": np.array([1.0, 2.0, 3.0])}
    found = joined(columns, "request", "moment", {"a": 5.0, "b": 1.0, "c": 3.0, "z": 9.0})
    assert found.requests == ("a", "c")
    assert (found.orphans, found.early) == (("z",), ("b",))


def test_the_maturity_counts_requests_that_are_old_enough() -> None:
    requests = np.array([0.0, 0.0, 0.0, 0.0, 7000.0])
    found = maturity(requests, [60.0, 7200.0, 60.0], np.array([0.0, 0.0, 7000.0]), now=30_000.0)
    assert [(each.age, each.requests, each.share) for each in found] == [("1 hour", 5, 0.4), ("6 hours", 5, 0.6)]


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = OutcomeShelf(folder=tmp_path / "outcomes")
    shelf.append([made("a", "yes")])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seatrial.optimize.plain.os.fsync", full)
    with pytest.raises(Exception, match="cannot write outcomes: No space left"):
        shelf.append([made("b", "no")])
    assert [each.request for each in shelf.outcomes()] == ["a"]
    assert [path.name for path in (tmp_path / "outcomes").iterdir()] == ["000001.json"]
