"""Files read only where they are plain, written whole or not at all, and what killed writers left."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seatrial.optimize import plain
from seatrial.optimize.errors import IntegrityError, MachineError
from seatrial.optimize.plain import (
    STAGED,
    digest_plain,
    leftovers,
    read_plain,
    staging,
    sweep,
    write_atomically,
    write_once,
)
from seatrial.optimize.store_folder import disk_errors
from tests.support.damages import FILES

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import sys, time
from collections.abc import Callable
from pathlib import Path
from seatrial.optimize.plain import staging
with staging(Path(sys.argv[1])) as staged:
    staged.write_bytes(b"half")
    print("staged", flush=True)
    time.sleep(60)
"""


def test_damage_has_an_exit_code_of_its_own() -> None:
    assert IntegrityError("x").exit_code == 5


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("pipe", "a pipe is in the place of a file"),
        ("folder", "a folder is in the place of a file"),
        ("link to /dev/zero", "a link is in the place of a file"),
        ("link to the same bytes", "a link is in the place of a file"),
        ("4 TiB", "larger than|nearly all of them unallocated"),
        ("deleted", "No such file"),
    ],
)
def test_what_is_no_plain_file_is_refused_unread(tmp_path: Path, harm: str, said: str) -> None:
    (tmp_path / "x").write_bytes(b"content")
    FILES[harm](tmp_path / "x")
    with pytest.raises(OSError, match=said):
        read_plain(tmp_path / "x", 100)
    with pytest.raises(OSError, match=said):
        digest_plain(tmp_path / "x")


def test_a_device_is_not_opened() -> None:
    with pytest.raises(OSError, match="a device is in the place of a file"):
        read_plain(Path("/dev/zero"), 100)


def test_a_killed_writer_s_file_is_swept_and_a_live_one_s_stays(tmp_path: Path) -> None:
    dying = subprocess.Popen([sys.executable, "-c", DYING, str(tmp_path / "x")], cwd=ROOT, stdout=subprocess.PIPE)
    assert dying.stdout is not None
    assert dying.stdout.readline() == b"staged\n"
    try:
        assert sweep(tmp_path) == 0
        assert len(leftovers(tmp_path)) == 1
    finally:
        dying.send_signal(signal.SIGKILL)
        dying.wait(10)
        dying.stdout.close()
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_first_write_into_a_folder_sweeps_it(tmp_path: Path) -> None:
    (tmp_path / f"{STAGED}left").write_bytes(b"half")
    write_atomically(tmp_path / "x", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_writer_whose_file_was_swept_before_it_was_locked_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = plain._locked
    swept: list[Path] = []

    def late(descriptor: int) -> bool | None:
        if not swept:
            swept.extend(leftovers(tmp_path))
            swept[0].unlink()
        return locked(descriptor)

    monkeypatch.setattr(plain, "_locked", late)
    write_atomically(tmp_path / "x", b"whole")
    assert len(swept) == 1
    assert (tmp_path / "x").read_bytes() == b"whole"


@pytest.mark.parametrize("write", [write_atomically, write_once])
def test_a_disk_that_refuses_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert callable(write)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "x", b"whole")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "free space"), (errno.EROFS, "make it writable"), (errno.ENOTDIR, "create its folder")],
)
def test_what_the_disk_refuses_is_one_error_with_its_own_next_step(tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(MachineError) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert said in caught.value.next_step
    assert caught.value.exit_code == 4


def test_an_interrupted_block_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def interrupted() -> None:
        with staging(tmp_path / "x") as staged:
            staged.write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_a_secret_is_its_owner_s_alone_at_every_moment_and_never_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = list[int]()
    real = {name: getattr(os, name) for name in ("fsync", "link")}

    def watched(name: str, *, fails: bool) -> Callable[..., object]:
        def act(*arguments: object) -> object:
            modes.extend(path.stat().st_mode & 0o777 for path in tmp_path.iterdir())
            if fails:
                raise KeyboardInterrupt
            return real[name](*arguments)

        return act

    for name in ("fsync", "link"):
        monkeypatch.setattr(os, name, watched(name, fails=True))
        with pytest.raises(KeyboardInterrupt):
            write_once(tmp_path / "key", b"secret", mode=0o600)
        monkeypatch.setattr(os, name, watched(name, fails=False))
        assert list(tmp_path.iterdir()) == []
    write_once(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"secret"
    assert set(modes) == {0o600}
