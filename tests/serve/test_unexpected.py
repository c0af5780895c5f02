"""The command's last resort: an exception that nobody expected is one message, a kept traceback and exit code 70."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seatrial.optimize import terminal
from seatrial.serve.cli import app
from tests.support.built import ROOT


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (RuntimeError("\x1b[2Jboom [red]"), 70, "RuntimeError: \\x1b[2Jboom [red]"),
        (KeyError("x"), 70, "KeyError"),
        (RecursionError("deep"), 70, "RecursionError"),
        (Mute(), 70, "Mute"),
        (UnicodeEncodeError("utf-8", "x", 0, 1, "why"), 70, "UnicodeEncodeError"),
        (ModuleNotFoundError("no scipy", name="scipy.stats"), 4, "lacks the library scipy"),
        (MemoryError(), 4, "out of memory"),
        (PermissionError(13, "Permission denied", "/x"), 4, "Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_no_exception_is_a_failed_verdict(
    raised: BaseException, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise raised

    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    monkeypatch.setattr(terminal, "store", broken)
    done = CliRunner().invoke(app, ["show", "x"])
    assert done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output
    kept = list((tmp_path / "faults").glob("*.txt"))
    assert len(kept) == (code == 70)
    if kept:
        assert str(kept[0]) in done.output
        assert "Traceback (most recent call last)" in kept[0].read_text()
        assert kept[0].stat().st_mode & 0o077 == 0
        monkeypatch.setenv("SEATRIAL_DEBUG", "1")
        assert "Traceback" in CliRunner().invoke(app, ["show", "x"]).output


def test_control_characters_of_arguments_are_shown() -> None:
    for arguments in (
        ["no\x1b[31mverb"],
        ["--no\x1b[31moption"],
        ["show", "--no\x1b[31moption"],
        ["show", "no\x1b[31mtag"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert "\x1b" not in done.output
        assert "no\\x1b[31m" in done.output


@pytest.mark.slow
def test_a_reader_that_is_gone_changes_no_exit_code(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['seatrial', 'trend']; from seatrial.serve.cli import app; app()"
    command = f'sleep 0.2; {sys.executable} -c "{code}"; echo $? >&2'
    environment = {"SEATRIAL_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read().strip() == "0"
