"""A real gate's run in every form of the report, moved, kept as a baseline and appended to the history."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from tests.support.built import ROOT
from tests.support.gated import Gated

pytestmark = pytest.mark.system


@pytest.fixture
def run(gated: Gated, tmp_path: Path) -> Path:
    """A real gate's folder, free to be changed."""
    shutil.copytree(gated.run, tmp_path / "run")
    return tmp_path / "run"


def seatrial(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"SEATRIAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "seatrial.serve.cli", *arguments]
    return subprocess.run(command, env=given, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_every_form_says_the_same_verdict_and_the_folder_may_move(run: Path, tmp_path: Path) -> None:
    first = (run / "verdict.json").read_bytes()
    verdict = json.loads(first)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    (moved / "verdict.json").unlink()
    files = {name: tmp_path / name for name in ("page.html", "junit.xml", "slots.json")}
    options = ("--html", files["page.html"], "--junit", files["junit.xml"], "--pytest-benchmark", files["slots.json"])
    done = seatrial(tmp_path, "report", str(moved), *map(str, options), "--markdown")
    assert done.returncode == verdict["exit_code"], done.stderr
    assert done.stdout.startswith(f"## {verdict['outcome']}")
    assert (moved / "verdict.json").read_bytes() == first
    page = files["page.html"].read_text()
    assert f'class="outcome">{verdict["outcome"]}' in page
    assert "Where the change lies" in page
    suite = next(xml.parse(files["junit.xml"]).iter("testsuite"))
    assert int(suite.attrib["tests"]) == 1 + len(verdict["findings"])
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", str(files["slots.json"]), "--group-by=group"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "p50[candidate]" in compared.stdout, compared.stderr


def test_the_load_inside_a_slot_is_a_run_of_its_own(run: Path, tmp_path: Path) -> None:
    folder = next(path.parent for path in sorted((run / "load").rglob("run.json")))
    done = seatrial(tmp_path, "report", str(folder), "--html", str(tmp_path / "load.html"), "--json")
    told = json.loads(done.stdout)
    assert told["scheduled"] > 0
    assert done.returncode == (0 if told["valid"] else 4)


def test_a_run_becomes_a_baseline_and_a_line_of_history(run: Path, tmp_path: Path) -> None:
    done = seatrial(tmp_path, "baseline", "record", str(run), "--json")
    assert done.returncode == 0, done.stderr
    kept = {each["metric"]["name"]: each["values"] for each in json.loads(done.stdout)["measurements"]}
    assert len(kept["p50"]) == 4
    done = seatrial(tmp_path, "baseline", "compare", str(run), "--json")
    assert json.loads(done.stdout)["metrics"]["p50"]["ratio"] == 1.0
    done = seatrial(tmp_path, "trend", "tiny", "--add", str(run), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"p50", "throughput"} <= {each["metric"] for each in found["series"]}
    assert json.loads(seatrial(tmp_path, "trend", "tiny", "--add", str(run), "--json").stdout)["added"] == 0
