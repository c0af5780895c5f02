"""The verb verify: everything that is kept, its exit codes, its JSON, and its repair."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.release.registry import Registry
from tests.serve.release.test_registry_damage import verdict
from tests.support.damages import FILES
from tests.support.made_by import MADE_BY


@pytest.fixture
def kept(home: Path, tmp_path: Path) -> Path:
    """A home with one artifact, one note and one release of it."""
    (tmp_path / "model.onnx").write_bytes(b"weights")
    made = Artifact(
        name="net",
        format="onnx",
        files=(File.of(tmp_path / "model.onnx"),),
        inputs=(),
        outputs=(),
        requires={},
        made_by=MADE_BY,
    )
    store = Store(home / "store")
    store.put(made, tmp_path, tag="net")
    store.remember("steps", "sha256:" + "0" * 64, {"digest": made.digest})
    Registry(home / "releases").register("net", made, verdict(made), run=tmp_path)
    return home


def verify(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", *words])
    return done.exit_code, done.output


def test_everything_is_looked_at(kept: Path) -> None:
    assert verify() == (0, "whole: 1 artifacts, 3 blobs, 1 notes, 1 releases\n")
    code, output = verify("--json")
    assert (code, json.loads(output)["sound"]) == (0, True)
    assert verify("net")[0] == 0


def test_nothing_kept_is_whole(home: Path) -> None:
    assert verify() == (0, "whole: 0 artifacts, 0 blobs, 0 notes, 0 releases\n")
    assert verify("--repair")[0] == 0
    assert not home.exists()


@pytest.mark.parametrize("part", ["store/index.json", "releases/net/1.json", "cache/steps/" + "0" * 64 + ".json"])
def test_damage_is_exit_code_5_and_repair_heals_it(kept: Path, part: str) -> None:
    (kept / part).chmod(0o644)
    FILES["flipped"](kept / part)
    code, output = verify()
    assert code == 5
    assert f"where: {kept / part}" in output
    assert "next:  run: seatrial verify --repair" in output
    code, output = verify("--repair", "--json")
    assert code == 0
    assert json.loads(output)["repaired"]
    assert verify()[0] == 0


def test_damage_that_is_left_is_exit_code_5_with_the_step_that_is_left(kept: Path) -> None:
    store = Store(kept / "store")
    blob = store.path(store.get("net"), "model.onnx")
    blob.write_bytes(b"other")
    code, output = verify("--repair")
    assert code == 5
    assert "moved to" in output
    assert "build its recipe again" in output
    assert "seatrial verify --repair --forget" in output
    assert verify("--repair", "--forget")[0] == 0
    assert verify() == (0, "whole: 0 artifacts, 0 blobs, 0 notes, 1 releases\n")


def test_a_home_that_is_no_folder_is_the_environment_s_fault(home: Path) -> None:
    home.write_text("")
    code, output = verify()
    assert code == 4
    assert "set SEATRIAL_HOME to another folder" in output


@pytest.mark.parametrize("words", [("--forget",), ("net", "--repair")])
def test_wrong_usage(words: tuple[str, ...]) -> None:
    assert verify(*words)[0] == 2


def test_names_from_the_disk_are_shown_without_what_a_terminal_obeys(kept: Path) -> None:
    (kept / "cache" / "steps" / "x\x1b[31m.json").write_text("[]")
    code, output = verify()
    assert code == 5
    assert "\x1b" not in output
