"""Homes, repositories and temporary folders with blanks, quotes, shell characters and letters beyond ASCII."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import on_pytriton
from tests.support.graphs import fixed

pytestmark = pytest.mark.system

ODD = 'o d\'d "é" $(touch pwned); 日本'
DEPLOYMENT = """\
schema = 1
name = "fixed"
release = "fixed"
backend = "python"
max_batch_size = 0
"""


def test_place_up_and_down_work_where_paths_are_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / ODD
    (place / "tmp dir").mkdir(parents=True)
    monkeypatch.chdir(place)
    monkeypatch.setenv("SEATRIAL_HOME", str(place / "home é"))
    monkeypatch.setenv("TMPDIR", str(place / "tmp dir"))
    artifact = fixed(Store(place / "home é" / "store"), place / "source")
    Path("fixed.toml").write_text(DEPLOYMENT)
    runner = CliRunner()
    done = runner.invoke(app, ["place", "fixed.toml", "--artifact", artifact.digest, "--repository", "my models"])
    assert done.exit_code == 0, done.output
    arguments = ["up", "--repository", "my models", "--json", "--http-port", "0", "--grpc-port", "0"]
    done = runner.invoke(app, [*arguments, "--metrics-port", "0"])
    try:
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["models"][0]["state"] == "READY"
        server = on_pytriton.status()
        assert server is not None
        with Control.to(server) as control:
            assert control.index()[0].state == "READY"
    finally:
        assert runner.invoke(app, ["down"]).exit_code == 0
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("name", ["new\nline", os.fsdecode(b"bytes-\xff"), "bell\x07"])
def test_a_path_that_no_record_can_hold_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path / name))
    done = CliRunner().invoke(app, ["show", "nothing"])
    assert done.exit_code == 4
    assert "set SEATRIAL_HOME" in done.output
    assert not list(tmp_path.iterdir())
