"""What a record says of where it was made."""

import subprocess
from pathlib import Path

import pytest

from seatrial.optimize.environment import _commit

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "recipe.toml").write_text("schema = 1\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "-am", "tagged", "v1"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return folder


def test_the_commit_is_that_of_the_repository_it_was_called_in(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    monkeypatch.chdir(repository)
    assert _commit() == head.stdout[:12]
    (repository / "recipe.toml").write_text("schema = 2\n")
    assert _commit() == head.stdout[:12] + "-dirty"


def test_outside_of_a_repository_there_is_none(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _commit() == ""
