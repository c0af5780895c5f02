"""The trail: a chain that shows every change, finished after a kill, and fast where it is long."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.serve.release import trail_file
from seatrial.serve.release.trail import Share
from seatrial.serve.release.trail_file import TrailFile, moment


def routes(*shares: tuple[int, str, float]) -> dict[str, object]:
    return {"shares": [{"version": version, "digest": digest, "share": share} for version, digest, share in shares]}


@pytest.fixture
def trail(tmp_path: Path) -> TrailFile:
    made = TrailFile(tmp_path / "trail")
    for number in range(4):
        made.append("placed", model=f"net-{number % 2}", actor="anna", subject=f"net@{number}", details={"n": number})
    return made


def test_entries_are_numbered_chained_and_sound(trail: TrailFile) -> None:
    found = trail.verify()
    assert (found.entries, found.damage) == (4, ())
    assert [each.seq for each in trail.entries()] == [1, 2, 3, 4]
    assert [each.subject for each in trail.entries(model="net-1")] == ["net@1", "net@3"]
    assert trail.key_path.stat().st_mode & 0o077 == 0


def test_a_trail_that_has_not_begun_is_sound(tmp_path: Path) -> None:
    assert TrailFile(tmp_path / "trail").verify() == trail_file.Checked(entries=0, key="")
    with pytest.raises(MissingError, match="no trail yet"):
        TrailFile(tmp_path / "trail").export(tmp_path / "copy")


@pytest.mark.slow
def test_every_changed_byte_is_found_with_its_file(trail: TrailFile) -> None:
    for path in (trail.path, trail.head_path):
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            found = trail.verify().damage
            assert found, f"{path.name}: byte {at} was changed unseen"
            assert found[0].where.startswith((str(trail.path), str(trail.head_path)))
        path.write_bytes(whole)
    assert not trail.verify().damage


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[TrailFile], None]:
    def attack(trail: TrailFile) -> None:
        trail.path.write_bytes(b"".join(change(trail.path.read_bytes().splitlines(keepends=True))))

    return attack


ATTACKS: dict[str, tuple[Callable[[TrailFile], None], int]] = {
    "first dropped": (lines(lambda all_: all_[1:]), 1),
    "one dropped": (lines(lambda all_: all_[:1] + all_[2:]), 2),
    "last dropped": (lines(lambda all_: all_[:-1]), 4),
    "last two dropped": (lines(lambda all_: all_[:-2]), 3),
    "swapped": (lines(lambda all_: [all_[0], all_[2], all_[1], all_[3]]), 2),
    "replayed": (lines(lambda all_: [*all_, all_[-1]]), 5),
    "replayed in between": (lines(lambda all_: [*all_[:2], all_[1], *all_[2:]]), 3),
    "cut in the middle of a line": (lines(lambda all_: [*all_[:-1], all_[-1][:-7]]), 4),
    "bytes behind the end": (lines(lambda all_: [*all_, b"{}"]), 5),
    "emptied": (lines(lambda all_: []), 1),
    "removed": (lambda trail: trail.path.unlink(), 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_dropped_swapped_replayed_and_cut_entries_are_found(trail: TrailFile, attack: str) -> None:
    act, line = ATTACKS[attack]
    act(trail)
    found = trail.verify().damage
    assert found
    assert found[0].where == f"{trail.path}:{line}"


def forged(trail: TrailFile) -> bytes:
    """Return a line that continues the chain, which anybody can write."""
    last = trail.path.read_bytes().splitlines()[-1]
    value = json.loads(last) | {"seq": 5, "previous": digest_bytes(last), "actor": "nobody"}
    return canonical(value) + b"\n"


def test_a_forged_entry_is_found_and_nothing_is_added_after_it(trail: TrailFile) -> None:
    with trail.path.open("ab") as stream:
        stream.write(forged(trail))
    (found,) = trail.verify().damage
    assert (found.where, "does not vouch" in found.what) == (f"{trail.path}:5", True)
    before = trail.path.read_bytes()
    with pytest.raises(IntegrityError, match="does not end where its head says"):
        trail.append("placed", model="net", actor="anna")
    assert trail.path.read_bytes() == before


def test_a_head_of_another_time_or_key_is_found(trail: TrailFile, tmp_path: Path) -> None:
    old = trail.head_path.read_bytes()
    trail.append("placed", model="net", actor="anna")
    new = trail.head_path.read_bytes()
    trail.head_path.write_bytes(old)
    assert trail.verify().damage[0].where == f"{trail.path}:5"
    trail.head_path.write_bytes(new)
    other = TrailFile(tmp_path / "other")
    other.append("placed", model="net", actor="eve")
    shutil.copy(other.key_path.with_suffix(".pub"), tmp_path / "pinned.pub")
    assert trail.verify(public=tmp_path / "pinned.pub").damage
    assert not trail.verify(public=trail.key_path.with_suffix(".pub")).damage
    trail.head_path.unlink()
    assert "head is missing" in trail.verify().damage[0].what


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("written", [0, 1, 40, -1])
def test_an_entry_that_a_kill_left_in_the_head_is_completed(
    trail: TrailFile, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    def killed(self: TrailFile, line: bytes) -> None:
        with self.path.open("ab") as stream:
            stream.write(line[:written])
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(TrailFile, "_write", killed)
        with pytest.raises(Killed):
            trail.append("retired", model="net", actor="anna")
    assert trail.verify().damage
    copy = TrailFile(trail.root.with_name("copy"))
    shutil.copytree(trail.root, copy.root)
    assert not copy.verify(repair=True).damage
    trail.append("placed", model="net", actor="anna")
    assert [each.event for each in trail.entries()][-2:] == ["retired", "placed"]
    assert (trail.verify().entries, trail.verify().damage) == (6, ())


def test_served_says_which_artifact_took_which_share(tmp_path: Path) -> None:
    trail = TrailFile(tmp_path)
    assert trail.served("net", datetime.now(UTC)) is None
    trail.append("switched", model="net", actor="a", details=routes((1, "sha256:1", 1.0)))
    trail.append("switched", model="net-2", actor="a", details=routes((7, "sha256:7", 1.0)))
    between = datetime.now(UTC)
    trail.append("switched", model="net", actor="a", details=routes((1, "sha256:1", 0.95), (2, "sha256:2", 0.05)))
    found = trail.served("net", between)
    assert found is not None
    assert (found.entry, found.shares) == (1, (Share(version=1, digest="sha256:1", share=1.0),))
    now = trail.served("net", datetime.now(UTC))
    assert now is not None
    assert [(each.version, each.share) for each in now.shares] == [(1, 0.95), (2, 0.05)]
    assert trail.served("net", between - timedelta(days=1)) is None
    assert trail.served("ne", datetime.now(UTC)) is None


def test_while_routes_are_changed_an_answer_is_of_the_old_ones_or_of_the_new_ones(tmp_path: Path) -> None:
    trail = TrailFile(tmp_path)
    trail.append("switched", model="net", actor="a", details=routes((1, "sha256:1", 1.0)))
    before = datetime.now(UTC)
    begun = datetime.now(UTC)
    within = datetime.now(UTC)
    details = routes((1, "sha256:1", 0.0), (2, "sha256:2", 1.0)) | {"begun": begun.isoformat()}
    trail.append("switched", model="net", actor="a", details=details)
    answers = [trail.served("net", at) for at in (before, within, datetime.now(UTC))]
    found = [(each.entry, sorted(each.digests)) for each in answers if each]
    assert found == [(1, ["sha256:1"]), (1, ["sha256:1", "sha256:2"]), (2, ["sha256:2"])]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_reading_backwards_is_reading_forwards_backwards(sizes: list[int], block: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        trail = TrailFile(Path(folder))
        trail.path.write_bytes(b"".join(b"x" * 37 * size + b"-%d\n" % at for at, size in enumerate(sizes)))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(trail_file, "_BLOCK", block)
            assert [*trail._backwards()] == trail._lines()[::-1]


def test_the_export_verifies_by_itself_and_is_refused_where_the_trail_is_damaged(
    trail: TrailFile, tmp_path: Path
) -> None:
    trail.export(tmp_path / "audit")
    assert sorted(os.listdir(tmp_path / "audit")) == ["head.json", "key.pub", "trail.jsonl"]
    assert TrailFile(tmp_path / "audit").verify() == trail.verify()
    with pytest.raises(ConfigError, match="something is there"):
        trail.export(tmp_path / "audit")
    trail.path.write_bytes(trail.path.read_bytes()[:-9])
    with pytest.raises(IntegrityError):
        trail.export(tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_key_that_others_can_read_is_refused(trail: TrailFile) -> None:
    trail.key_path.chmod(0o644)
    with pytest.raises(ConfigError, match="other users can read"):
        trail.append("placed", model="net", actor="anna")


def test_a_trail_without_its_key_takes_no_entry_and_no_other_key(trail: TrailFile) -> None:
    trail.key_path.unlink()
    before = trail.path.read_bytes()
    with pytest.raises(IntegrityError, match="key that signs the trail is missing"):
        trail.append("placed", model="net", actor="anna")
    assert trail.path.read_bytes() == before
    assert not trail.key_path.exists()
    assert not trail.verify().damage


def test_a_pipe_in_the_place_of_a_file_is_damage(trail: TrailFile) -> None:
    trail.path.unlink()
    os.mkfifo(trail.path)
    with pytest.raises(IntegrityError, match="pipe"):
        trail.verify()


def test_times_are_read_in_utc() -> None:
    assert moment("2026-03-02T10:00:00") == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert moment("2026-03-02T10:00:00+02:00") == datetime(2026, 3, 2, 8, tzinfo=UTC)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        moment("yesterday")


@pytest.mark.parametrize("after", range(4))
def test_a_kill_while_the_key_is_made_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    count, real = iter(range(9)), {name: getattr(os, name) for name in ("link", "fsync")}

    def failing(name: str) -> Callable[..., object]:
        def act(*arguments: object, **named: object) -> object:
            if next(count) == after:
                raise KeyboardInterrupt
            return real[name](*arguments, **named)

        return act

    for name in ("link", "fsync"):
        monkeypatch.setattr(os, name, failing(name))
    with pytest.raises(KeyboardInterrupt):
        TrailFile(tmp_path).append("placed", model="net", actor="anna")
    monkeypatch.undo()
    trail = TrailFile(tmp_path)
    assert trail.verify(repair=True).damage == ()
    trail.append("placed", model="net", actor="anna")
    assert trail.verify().damage == ()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".key")) == []


def test_a_public_key_that_was_never_written_is_written(tmp_path: Path) -> None:
    trail = TrailFile(tmp_path)
    trail.append("placed", model="net", actor="anna")
    (tmp_path / "key.pub").unlink()
    trail.append("placed", model="net", actor="anna")
    assert (trail.verify().entries, trail.verify().damage) == (2, ())
