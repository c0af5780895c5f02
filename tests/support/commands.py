"""The command as users call it: in this process, or in one of its own where that is what a test is about."""

import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner, Result

from seatrial.serve.cli import app
from tests.support.built import ROOT


def seatrial(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: a second or two of imports."""
    environment = os.environ | {"SEATRIAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "seatrial.serve.cli", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def within(*arguments: str, home: Path | None = None) -> Result:
    """Run the command in this process, whose modules are loaded; what it raises beside its exit is raised here.

    `home` is by default that of the test.
    """
    changed = {"SEATRIAL_HOME": str(home)} if home else {}
    with chdir(ROOT):
        done = CliRunner().invoke(app, list(arguments), env=changed, prog_name="seatrial")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done
