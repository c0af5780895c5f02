"""What killed runs left, planted: swept at the next start of a verb, and nothing else."""

import os
import time
from pathlib import Path

import pytest

from seatrial.serve.sweeping import sweep
from tests.optimize.test_scratch import TOKEN, departed

__all__ = ["departed"]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR of its own: others' start of a verb sweeps the shared one too."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def test_leftovers_of_dead_processes_go(home: Path, temporary: Path, departed: str) -> None:
    planted = [home / "work" / f"{kind}-{departed}-{TOKEN}" for kind in ("host", "proof", "build")]
    planted += [home / "triton" / f".backends-{departed}-{TOKEN}", temporary / f"seatrial-graph-{departed}-{TOKEN}"]
    planted += [home / "runs" / "gate-1" / "load" / "slot-00" / f".load-{departed}-{TOKEN}"]
    planted += [home / "triton" / "servers" / f"{departed}-{TOKEN}", home / "envoy" / "runs" / f"{departed}-{TOKEN}"]
    for each in planted:
        (each / "deep").mkdir(parents=True)
    sweep()
    assert not [each for each in planted if each.exists()]


def test_what_may_be_in_use_stays(home: Path, temporary: Path, departed: str) -> None:
    kept = [home / "work" / "mine", home / "work" / "host-0123456789ab", temporary / f"other-{departed}-{TOKEN}"]
    kept += [home / "store" / f"host-{departed}-{TOKEN}", home / "runs" / "gate-20260101-000000"]
    for each in kept:
        each.mkdir(parents=True)
    staged = home / "runs" / "gate-20260101-000000" / ".staged-new"
    staged.write_bytes(b"")
    sweep()
    assert all(each.exists() for each in (*kept, staged))


def test_what_earlier_versions_left_goes_when_nothing_has_touched_it_for_a_day(home: Path) -> None:
    folder, staged = home / "work" / "host-0123456789ab", home / "runs" / "gate-1" / "load" / ".staged-old"
    built = home / "work" / "4711-ab_cd3fg"
    built.mkdir(parents=True)
    folder.mkdir(parents=True)
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"half")
    for each in (folder, built, staged):
        os.utime(each, (time.time() - 90_000,) * 2)
    sweep()
    assert not folder.exists()
    assert not built.exists()
    assert not staged.exists()
