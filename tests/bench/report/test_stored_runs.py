"""Runs and journal lines as an earlier version wrote them: they open, tell the same, and are written as they were."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seatrial.bench.capacity import run as capacity
from seatrial.bench.gating.noise import Trial
from seatrial.bench.load import folder as load_folder
from seatrial.bench.load.run import LoadRun, Saturation
from seatrial.bench.measuring import measured
from seatrial.bench.records import accepted, journal
from seatrial.bench.records.baseline import Baseline
from seatrial.bench.records.history import Point
from seatrial.bench.report import kinds
from seatrial.bench.server_statistics import ServerCounts
from seatrial.optimize.artifact import canonical

GOLDEN = Path(__file__).parents[2] / "golden"
RUNS = ("load", "saturation", "capacity", "measure", "measure-endpoint")


def stored(path: Path) -> Any:
    """Return the JSON value of a file."""
    return json.loads(path.read_text())


def copied(name: str, folder: Path) -> Path:
    """Return a copy of a stored run that may be written to."""
    return Path(shutil.copytree(GOLDEN / "runs" / name, folder / name))


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_is_told_as_it_was(name: str, tmp_path: Path) -> None:
    told = kinds.tell(copied(name, tmp_path))
    assert json.loads(canonical(dict(told.document))) == stored(GOLDEN / "reports" / f"{name}.json")
    assert told.exit_code == {"load": 4}.get(name, 0)


@pytest.mark.parametrize(("name", "kind"), [("load", LoadRun), ("saturation", Saturation)])
def test_a_load_is_written_as_it_was(name: str, kind: type[LoadRun | Saturation], tmp_path: Path) -> None:
    before = GOLDEN / "runs" / name
    run = kind.read(before)
    run.save(tmp_path)
    (header,) = (path.name for path in before.glob("*.json") if path.name != "load.json")
    assert stored(tmp_path / header) == stored(before / header)
    assert (tmp_path / header).with_suffix(".npz").read_bytes()[:2] == b"PK"
    again = kind.read(tmp_path)
    assert (again.done.tolist(), again.status.tolist()) == (run.done.tolist(), run.status.tolist())


def test_a_measured_run_is_summed_up_as_it_was(tmp_path: Path) -> None:
    for name in ("measure", "measure-endpoint"):
        folder = copied(name, tmp_path)
        before = stored(folder / "summary.json")
        about, values = measured.read(folder)
        assert stored(folder / "summary.json") == before
        for path in folder.glob("*.json"):
            path.unlink()
        measured.write(folder, about, values)
        for path in (GOLDEN / "runs" / name).glob("*.json"):
            assert stored(folder / path.name) == stored(path), path.name


def test_journals_are_read_and_appended_to_as_they_were(tmp_path: Path) -> None:
    forms = {each: stored(GOLDEN / "records" / f"{each}.json") for each in ("baseline", "history", "noise-trial")}
    loss = stored(GOLDEN / "records" / "accepted-loss.json")
    for name, form in (forms | {"loss": loss}).items():
        journal.append(tmp_path / f"{name}.jsonl", form)
    (kept,) = journal.records(tmp_path / "baseline.jsonl", 1, Baseline.from_json)
    assert kept.to_json() == forms["baseline"]
    assert kept.measurements[0].values == (0.0125, 0.013)
    (point,) = journal.records(tmp_path / "history.jsonl", 1, Point.from_json)
    assert (point.ratio, point.interval) == (1.04, (1.01, 1.07))
    (trial,) = journal.records(tmp_path / "noise-trial.jsonl", 1, Trial.from_json)
    assert trial.to_json() == forms["noise-trial"]
    (tmp_path / "ledger").mkdir()
    shutil.copy(tmp_path / "loss.jsonl", tmp_path / "ledger" / "l.jsonl")
    (entry,) = accepted.entries(tmp_path, "l")
    assert (entry.metric, entry.loss, entry.upper) == ("p50", 0.01, 0.02)


def test_a_stored_search_keeps_its_scenario_and_probes() -> None:
    found = capacity.recompute(GOLDEN / "runs" / "capacity")
    assert [probe.phase for probe in found.probes] == ["bracket", "bracket", "bisect"]
    _, counted = load_folder.reading(GOLDEN / "runs" / "load", LoadRun.read(GOLDEN / "runs" / "load"))
    assert isinstance(counted, ServerCounts)
    assert counted.requests == 1080
