"""Budgets as tests with the real pytest and pytest-benchmark, in both directions."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from tests.support.built import ROOT

pytestmark = pytest.mark.system


SUITE = """
import pytest

@pytest.mark.budget("p50", max_regression=0.5)
@pytest.mark.budget("min", at_most=10.0)
def test_sum(benchmark):
    benchmark.pedantic(sum, args=(range(SIZE),), rounds=8, iterations=20)

def test_no_budget(benchmark):
    benchmark.pedantic(len, args=([],), rounds=2)

def test_no_benchmark():
    raise AssertionError("judging runs no test")
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = outer | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "pytest_benchmark.plugin",
            "-p",
            "seatrial.bench.on_pytest",
            *arguments,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs each of a base and of one that does fifty times the work, in balanced turns, by pytest-benchmark."""
    folder = tmp_path_factory.mktemp("suites")
    for arm, size in (("base", 2000), ("candidate", 100_000)):
        (folder / arm).mkdir()
        (folder / arm / "test_it.py").write_text(SUITE.replace("SIZE", str(size)))
        (folder / arm / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    for index, arm in enumerate(("base", "candidate", "candidate", "base") * 2):
        file = f"--benchmark-json={folder}/{arm}-{index}.json"
        done = run_pytest(folder / arm, "--deselect=test_it.py::test_no_benchmark", file)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def judged(suites: Path, *more: str, candidate: str = "candidate-*.json") -> subprocess.CompletedProcess[str]:
    files = ("--budget-base", f"{suites}/base-*.json", "--budget-candidate", f"{suites}/{candidate}")
    return run_pytest(suites / "candidate", *files, *more)


def test_a_budget_that_is_broken_is_a_failing_test(suites: Path) -> None:
    done = judged(suites, f"--junitxml={suites}/junit.xml")
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert "FAIL          test_it.py::test_sum p50 went from" in done.stdout
    assert "Traceback" not in done.stdout
    assert sum(1 for _ in xml.parse(suites / "junit.xml").iter("failure")) == 1


def test_few_runs_are_skipped_or_block_by_choice(suites: Path) -> None:
    done = judged(suites, "-rs", candidate="candidate-1.json")
    assert done.returncode == 0, done.stdout
    assert "2 skipped" in done.stdout
    assert "4 runs of each arm are needed" in done.stdout
    assert "Traceback" not in done.stdout
    assert judged(suites, "--budget-inconclusive=fail", candidate="candidate-1.json").returncode == 1


def test_a_benchmark_that_a_run_lacks_is_an_error_in_one_line(suites: Path) -> None:
    (suites / "other.json").write_text('{"datetime": "2026", "benchmarks": []}')
    done = judged(suites, candidate="other.json")
    assert done.returncode == 1
    assert "2 errors" in done.stdout
    assert "INVALID: " in done.stdout
    assert "pluggy" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget-base", "gone.json", "--budget-candidate", "gone.json"), "no such file"),
        (("--budget-base", "test_it.py"), "belong together"),
    ],
)
def test_wrong_usage_is_a_usage_error(suites: Path, arguments: Sequence[str], said: str) -> None:
    done = run_pytest(suites / "base", *arguments)
    assert done.returncode == 4
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_without_files_the_plugin_changes_nothing(suites: Path) -> None:
    done = run_pytest(suites / "base", "--benchmark-disable")
    assert "2 passed" in done.stdout
    assert "1 failed" in done.stdout
