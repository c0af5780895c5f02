"""`scripts/test`: a failed system test runs once more, and what fails twice or fails in numbers fails the suite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = """
from pathlib import Path
import pytest

@pytest.mark.system
@pytest.mark.parametrize("number", range(6))
def test_system(number: int) -> None:
    marks = Path(f"tried-{number}")
    tried = int(marks.read_text()) if marks.exists() else 0
    marks.write_text(str(tried + 1))
    assert tried >= FAILURES.get(number, 0)
"""


@pytest.mark.parametrize(
    ("failures", "passes", "runs"),
    [
        ({}, True, 6),
        ({1: 1, 4: 1}, True, 8),
        ({2: 2}, False, 7),
        ({0: 1, 1: 1, 2: 1, 3: 1}, False, 6),
    ],
)
@pytest.mark.slow
def test_what_fails_once_runs_once_more(tmp_path: Path, failures: dict[int, int], passes: bool, runs: int) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts" / "test")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    pytest_alone = f'PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 exec {sys.executable} "$@" -p xdist'
    python = f'case "$*" in *"not system"*) exit 0;; esac; {pytest_alone}'
    for name, line in (("scripts/install", "true"), (".venv/bin/python", python)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  system: x\n  nightly: x\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(f"FAILURES = {failures}\n{CASES}")
    ended = subprocess.run(["sh", "scripts/test"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode == 0) == passes, ended.stdout + ended.stderr
    assert sum(int(each.read_text()) for each in tmp_path.glob("tried-*")) == runs
    assert ("Once more" in ended.stdout) == (runs > 6)
