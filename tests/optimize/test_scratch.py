"""Scratch folders: gone after their block, swept once their owner is dead, never while anyone holds them."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.optimize import scratch
from seatrial.optimize.processes import dead, own, started

TOKEN = "0123456789ab"


@pytest.fixture
def departed() -> str:
    """The identity of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return f"{process.pid}-{started(process.pid)}"


def test_a_folder_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    def work() -> None:
        with scratch.folder("host", tmp_path / "work") as folder:
            (folder / "deep").mkdir()
            assert scratch.sweep(tmp_path / "work") == ()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        work()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_dead_process_left_is_swept(tmp_path: Path, departed: str) -> None:
    for kind in ("host-", "", ".backends-", ".seatrial-render-"):
        (tmp_path / f"{kind}{departed}-{TOKEN}" / "deep").mkdir(parents=True)
    (tmp_path / f"note-{departed}-{TOKEN}").write_text("a file")
    mine = [f"host-{own()}-{TOKEN}", f"host-{departed}-{TOKEN}-more", "host-12-abc", "other", f"host-1-{TOKEN}"]
    for name in mine:
        (tmp_path / name).mkdir()
    assert len(scratch.sweep(tmp_path)) == 5
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(mine)


def test_a_folder_shared_with_other_programs_is_swept_of_ours_alone(tmp_path: Path, departed: str) -> None:
    (tmp_path / f"seatrial-graph-{departed}-{TOKEN}").mkdir()
    (tmp_path / f"other-{departed}-{TOKEN}").mkdir()
    scratch.sweep(tmp_path, "seatrial-")
    assert [each.name for each in tmp_path.iterdir()] == [f"other-{departed}-{TOKEN}"]


def test_a_locked_folder_belongs_to_a_process_that_cannot_be_seen_from_here(tmp_path: Path, departed: str) -> None:
    folder = tmp_path / f"host-{departed}-{TOKEN}"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert scratch.sweep(tmp_path) == ()
    os.close(lock)
    assert scratch.sweep(tmp_path) == (folder,)


def test_a_number_that_another_process_has_by_now_is_dead() -> None:
    ticks = started(os.getpid())
    assert ticks is not None
    assert not dead(os.getpid(), ticks)
    assert dead(os.getpid(), ticks + 1)
    assert dead(2**22 + 1, ticks)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_staged_folder_takes_over_in_one_step(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(scratch, "_EXCHANGE", 1 << 30)  # flags that no kernel knows
    staged, folder = tmp_path / "staged", tmp_path / "folder"
    for round_ in ("first", "second"):
        staged.mkdir()
        (staged / "file").write_text(round_)
        scratch.take_over(staged, folder)
        assert (folder / "file").read_text() == round_
        if staged.exists():
            assert (staged / "file").read_text() == "first"
            (staged / "file").unlink()
            staged.rmdir()
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
