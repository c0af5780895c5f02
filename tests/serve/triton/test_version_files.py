"""A version's files: plain ones inside its directory, and the very bytes that were placed."""

import os
from pathlib import Path

import pytest

from seatrial.optimize.artifact import canonical
from seatrial.optimize.errors import IntegrityError
from seatrial.serve.triton.repository.placement import RECORD
from seatrial.serve.triton.repository.version_files import check, digest_of, digests


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "model" / "1"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.py").write_text("pass\n")
    (folder / "weights" / "w").write_bytes(b"1234")
    record = {"schema": 1, "name": "model", "version": 1, "digest": "sha256:0", "backend": "native"}
    (folder / RECORD).write_bytes(canonical(record | {"files": digests(folder)}))
    return folder


def test_the_same_bytes_have_the_same_digest_under_any_number(version: Path) -> None:
    before = check(version)
    assert before == digest_of(version)
    (version / "__pycache__").mkdir()
    (version / "__pycache__" / "model.pyc").write_bytes(b"bytecode")
    assert check(version) == before
    assert digest_of(version.rename(version.with_name("2"))) == before


def test_what_changed_since_it_was_placed_is_named(version: Path) -> None:
    (version / "weights" / "w").write_bytes(b"123")
    with pytest.raises(IntegrityError, match="was changed"):
        check(version)
    (version / "weights" / "w").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        check(version)
    (version / "weights" / "w").write_bytes(b"1234")
    (version / "more").write_bytes(b"")
    with pytest.raises(IntegrityError, match="was added"):
        check(version)


def test_links_and_pipes_are_refused_wherever_they_lead(version: Path, tmp_path: Path) -> None:
    link = version / "weights" / "link"
    link.symlink_to(version / "model.py")
    with pytest.raises(IntegrityError, match="is a link"):
        check(version)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(IntegrityError, match="not a regular file"):
        check(version)
    link.unlink()
    moved = version.rename(tmp_path / "elsewhere")
    version.symlink_to(moved)
    with pytest.raises(IntegrityError, match="not a directory of its own"):
        check(version)


def test_a_version_without_its_record_is_refused(version: Path) -> None:
    (version / RECORD).unlink()
    with pytest.raises(IntegrityError, match="cannot be read"):
        check(version)
