"""tests/gpu by name: what passed, failed and was skipped, with the reasons."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scripts.gpu_sections.place import MissingPartError, Place
from scripts.gpu_sections.record import Claim, Found

ROOT = Path(__file__).parents[2]


def run(place: Place) -> Found:
    """Run the folder with pytest and read its report."""
    try:
        import pytest  # noqa: F401 - looked for
    except ImportError as error:
        raise MissingPartError(f"pytest: {error}") from error
    with tempfile.TemporaryDirectory(prefix="seatrial-gpu-tests-") as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "tests/gpu", "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
        command += ["-o", "filterwarnings="]  # of other versions of the libraries than this project is tested with
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, place.left() - 2), check=False
        )
        if not report.exists():
            raise MissingPartError(
                f"pytest made no report (exit {done.returncode}): {(done.stdout + done.stderr)[-1000:]}"
            )
        return judged(ElementTree.parse(report).getroot())


def judged(report: Any) -> Found:
    """One row for each test, and the claim that none failed and some passed."""
    rows = [_row(case) for case in report.iter("testcase")]
    count = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("passed", "failed", "skipped")}
    told = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
    met = False if count["failed"] else True if count["passed"] else None
    why = "" if met is not None else "every test was skipped"
    return Found(
        rows=tuple(rows),
        claims=(Claim(claim="tests/gpu", bar="none failed, some passed", value=told, met=met, why=why),),
    )


def _row(case: Any) -> dict[str, str]:
    row = {"test": f"{case.get('classname')}::{case.get('name')}", "outcome": "passed", "seconds": case.get("time", "")}
    for kind, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            row |= {"outcome": outcome, "reason": (found.get("message") or "")[:500]}
    return row
