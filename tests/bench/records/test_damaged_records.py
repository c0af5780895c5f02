"""Damaged runs and journals: every reader says which file and line, and computes nothing of what is left."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seatrial.bench.gating import pairs
from seatrial.bench.gating.gate import read_gate, rejudge
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.measuring.machine_class import MachineClass
from seatrial.bench.records import accepted, baseline, history, journal
from seatrial.bench.report import kinds
from seatrial.optimize.errors import ConfigError, IntegrityError, SeatrialError

RunMaker = Callable[..., GateRun]
VALUES: list[Any] = [None, True, -1, 10**300, 1e308, "", "x", "\x1b[2J", [], {}, [[]], [None], {"a": 1}]


@pytest.fixture
def run(make_run: RunMaker, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    whole = make_run()
    pairs.write_header(folder, whole.header)
    for record in whole.records:
        pairs.write_record(folder, record)
    rejudge(folder)
    return folder


def told(folder: Path) -> None:
    """Everything that a report makes of a run, or an error of ours."""
    found = kinds.tell(folder)
    found.html(folder.parent / "page.html")
    found.markdown()
    found.junit("skip")
    if found.measured is not None:
        found.measured("base")
    whole, verdict = read_gate(folder)
    history.record(folder.parent, whole, verdict, "digest")


@pytest.mark.parametrize(
    "key", ["base", "candidate", "budget", "samples", "price", "environment", "at", "ledger", "schema"]
)
@pytest.mark.slow
def test_a_header_with_another_value_is_told_or_refused_and_never_breaks(run: Path, key: str) -> None:
    path = run / "run.json"
    whole = json.loads(path.read_text())
    refused: list[str] = []
    inner = [(key,), *((key, each) for each in (whole[key] if isinstance(whole[key], dict) else ()))]
    for place in inner[:4]:
        for value in VALUES[:: 1 if len(place) == 1 else 4]:
            changed = json.loads(json.dumps(whole))
            holder = changed if len(place) == 1 else changed[key]
            holder[place[-1]] = value
            path.write_text(json.dumps(changed))
            try:
                told(run)
            except IntegrityError as error:
                refused.append(error.where)
    assert len(refused) > len(VALUES) // 2
    assert all(str(run) in where for where in refused)


@pytest.mark.parametrize("name", ["run.json", "slot-00.json", "slot-00.npz"])
@pytest.mark.parametrize("damage", ["cut", "fifo", "folder", "bytes", "other"])
def test_a_file_of_a_run_that_is_something_else_is_named(run: Path, name: str, damage: str) -> None:
    path = run / name
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "bytes":
            path.write_bytes(b"\xff" + data[1:])
        case _:
            path.write_bytes(b"[1, 2]" if name.endswith("json") else b"PK\x03\x04" + data[4:100])
    with pytest.raises(SeatrialError) as caught:
        told(run)
    assert str(run) in caught.value.where


def test_a_slot_without_its_arrays_is_damage(run: Path) -> None:
    (run / "slot-01.npz").unlink()
    with pytest.raises(IntegrityError, match="lacks its arrays"):
        told(run)


def test_a_line_that_was_changed_is_named_and_a_torn_last_one_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    for number in range(3):
        journal.append(path, {"schema": 1, "n": number, "inner": {"a": 1}})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"schema": 1, "inner": {"a": 1}')
    assert [line["n"] for line in journal.read(path, 1)] == [0, 1, 2]
    journal.append(path, {"schema": 1, "n": 3})
    assert path.read_bytes().startswith(whole), "the torn line is gone, no other is"
    assert [line["n"] for line in journal.read(path, 1)] == [0, 1, 2, 3]
    for broken in (b"garbage", b"5", b"[]", b'{"schema": 1, "n": 1 "inner": {}}', b'{"schema": NaN}'):
        lines = whole.split(b"\n")
        lines[1] = broken
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(IntegrityError) as caught:
            journal.read(path, 1)
        assert caught.value.where == f"{path}:2"
        assert "line 2" in caught.value.next_step


@pytest.mark.parametrize("what", ["ledger", "baselines", "history"])
def test_a_journal_line_of_another_shape_is_named(what: str, tmp_path: Path) -> None:
    machine = MachineClass.of({"cpu": "c"})
    paths = {
        "ledger": accepted.path_of(tmp_path, "l"),
        "baselines": baseline.path_of(tmp_path, machine, "m"),
        "history": history.path_of(tmp_path, machine, "m"),
    }
    read: dict[str, Callable[[], object]] = {
        "ledger": lambda: accepted.entries(tmp_path, "l"),
        "baselines": lambda: baseline.known(tmp_path),
        "history": lambda: history.points(tmp_path, "m", machine),
    }
    journal.append(paths[what], {"schema": 1, "at": 5, "measurements": [{}]})
    with pytest.raises(IntegrityError) as caught:
        read[what]()
    assert caught.value.where == f"{paths[what]}:1"


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "-x", ".x", "x\n", "é", "x" * 128])
def test_no_name_of_a_ledger_or_a_baseline_leaves_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        accepted.path_of(tmp_path, name)
    with pytest.raises(ConfigError):
        baseline.record(tmp_path, name, [], model="m", run="r")
    for path in (
        baseline.path_of(tmp_path, MachineClass.of({}), name),
        history.path_of(tmp_path, MachineClass.of({}), name),
    ):
        assert path.resolve().is_relative_to(tmp_path)
    assert not list(tmp_path.iterdir())
