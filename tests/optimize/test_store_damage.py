"""Every part of a store damaged in every way: found, named, and healed by the step that the error names."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.errors import MissingError
from seatrial.optimize.inspection import Damage, DamageError
from seatrial.optimize.layout import read_manifest
from seatrial.optimize.store import Store
from seatrial.optimize.store_check import inspect
from seatrial.optimize.store_folder import REPAIR
from seatrial.optimize.store_repair import repair
from tests.support.damages import FILES, FOLDERS
from tests.support.made_by import MADE_BY

KEY = "sha256:" + "7" * 64


@dataclass
class Kept:
    """A store of two artifacts, and how to make them again."""

    store: Store
    made: Path

    def artifact(self, name: str) -> Artifact:
        """One of the two, from its files."""
        file = File.of(self.made / name / "model.onnx")
        return Artifact(name=name, format="onnx", files=(file,), inputs=(), outputs=(), requires={}, made_by=MADE_BY)

    def build(self) -> None:
        """Return what a build does: keep what is not whole, note the steps, tag."""
        for number, name in enumerate(("best", "other")):
            artifact = self.artifact(name)
            if self.store.whole(artifact.digest) is None:
                self.store.put(artifact, self.made / name)
            key = KEY[:-1] + str(number)
            if self.store.recall("steps", key) is None:
                self.store.remember("steps", key, {"digest": artifact.digest, "agreements": []})
            self.store.tag(artifact, name)

    def read(self) -> None:
        """Return what verbs do with it."""
        for name in ("best", "other"):
            found = self.store.get(name)
            assert found.digest == self.artifact(name).digest
            assert self.store.path(found, "model.onnx").read_bytes() == name.encode() * 50
        self.store.remember("pace", KEY, {})

    def part(self, name: str) -> Path:
        """Return where a part of the store lies."""
        folder = self.store.folder
        entry = folder.read_index().entry(self.artifact("best").digest)
        assert entry is not None
        return {
            "blob": folder.blob(self.artifact("best").files[0].digest),
            "manifest": folder.blob(entry.digest),
            "record": folder.blob(read_manifest(folder.read_record(entry.digest)).config),
            "index": folder.index,
            "second index": folder.second_index,
            "oci-layout": folder.layout,
            "lock": folder.lock,
            "note": folder.cache / "steps" / f"{KEY[7:-1]}0.json",
            "store": folder.root,
            "blobs": folder.blobs.parent,
            "sha256": folder.blobs,
            "cache": folder.cache,
            "room": folder.cache / "steps",
        }[name]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    for name in ("best", "other"):
        (folder / "made" / name).mkdir(parents=True)
        (folder / "made" / name / "model.onnx").write_bytes(name.encode() * 50)
    found = Kept(Store(folder / "home" / "store"), folder / "made")
    found.build()
    assert inspect(found.store).damage == ()
    return folder


def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let root, which reads what it likes, be refused files without permissions as everybody else is."""
    real_open, real_access = os.open, os.access

    def refused(path: object) -> bool:
        return isinstance(path, Path) and path.exists() and path.stat().st_mode & 0o777 == 0

    def opened(path: Path, *rest: int, **named: int) -> int:
        if refused(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, *rest, **named)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "access", lambda path, mode: not refused(path) and real_access(path, mode))


@pytest.fixture
def kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here, and it is most of the time
    if os.geteuid() == 0:
        as_user(monkeypatch)
    shutil.copytree(base, tmp_path / "copy")
    return Kept(Store(tmp_path / "copy" / "home" / "store"), tmp_path / "copy" / "made")


def follow(kept: Kept, damage: Damage | DamageError | MissingError) -> None:
    """Do what the error says."""
    assert damage.where
    if REPAIR in damage.next_step:
        repair(kept.store)
    else:
        assert "build" in damage.next_step
        kept.build()


def heal(kept: Kept) -> int:
    """Follow the next step of the first error until all is whole; the number of steps it took."""
    for steps in range(4):
        try:
            found = inspect(kept.store).damage
            kept.read()
        except (DamageError, MissingError) as error:
            follow(kept, error)
            continue
        if not found:
            return steps
        follow(kept, found[0])
    raise AssertionError(f"still damaged: {found}")


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# A lock's content means nothing, and a lock that is gone is made again; so is a note (it is a cache).
HARMLESS = {("lock", harm) for harm in FILES} - {("lock", harm) for harm in ("pipe", "folder", "4 TiB", "unreadable")}
HARMLESS -= {("lock", harm) for harm in FILES if "link" in harm}
HARMLESS |= {("note", "deleted")}
# Notes of earlier versions are the value alone, which cannot be told from a value that someone wrote.
HARMLESS |= {("note", harm) for harm in ("object", "manifests null", "no entries", "wrong types", "traversal")}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", FILES)
@pytest.mark.parametrize("part", ["blob", "manifest", "record", "index", "second index", "oci-layout", "lock", "note"])
def test_a_damaged_part_is_found_and_the_named_step_heals_it(kept: Kept, part: str, harm: str) -> None:
    path = kept.part(part)
    FILES[harm](path)
    found = inspect(kept.store)
    if (part, harm) in HARMLESS:
        assert found.damage == ()
    else:
        assert str(path) in [damage.where for damage in found.damage]
        assert found.exit_code == 5
    assert heal(kept) <= 2
    kept.build()
    assert inspect(kept.store).damage == ()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", ["blob", "manifest", "record"])
@pytest.mark.parametrize("harm", ["flipped", "deleted", "pipe", "link to the same bytes", "folder", "unreadable"])
def test_building_again_alone_heals_every_blob(kept: Kept, part: str, harm: str) -> None:
    FILES[harm](kept.part(part))
    kept.build()
    assert inspect(kept.store).damage == ()
    kept.read()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", FOLDERS)
@pytest.mark.parametrize("part", ["store", "blobs", "sha256", "cache", "room"])
def test_a_replaced_folder_is_found_and_the_named_step_heals_it(kept: Kept, part: str, harm: str) -> None:
    path = kept.part(part)
    FOLDERS[harm](path)
    found = inspect(kept.store)
    gone = harm in ("deleted", "emptied")
    assert bool(found.damage) == (not gone or part in ("blobs", "sha256"))
    if gone:
        kept.build()
    assert heal(kept) <= 3
    assert inspect(kept.store).damage == ()
    kept.read()


def test_two_swapped_blobs_are_put_back(kept: Kept) -> None:
    one, two = (kept.store.folder.blob(kept.artifact(name).files[0].digest) for name in ("best", "other"))
    one.rename(one.with_name("aside"))
    two.rename(one)
    one.with_name("aside").rename(two)
    assert len(inspect(kept.store).damage) == 2
    assert repair(kept.store).damage == ()
    kept.read()


@pytest.mark.parametrize("part", ["manifest", "index", "second index", "oci-layout"])
@pytest.mark.parametrize("harm", ["flipped", "deleted", "pipe", "folder", "object"])
def test_repair_alone_loses_nothing_where_the_part_follows_from_others(kept: Kept, part: str, harm: str) -> None:
    before = kept.part(part).read_bytes()
    FILES[harm](kept.part(part))
    found = repair(kept.store)
    assert (found.damage, found.exit_code) == ((), 0)
    assert kept.part(part).read_bytes() == before
    kept.read()


def test_damage_is_set_aside_and_never_deleted(kept: Kept) -> None:
    for path in [kept.part(part) for part in ("blob", "record", "note")]:
        path.write_bytes(b"precious after all")
    found = repair(kept.store)
    assert len(found.repaired) == 3
    quarantine = kept.store.root / "quarantine"
    assert [path.read_bytes() for path in quarantine.rglob("*") if path.is_file()] == [b"precious after all"] * 3


def test_without_both_copies_the_index_is_made_from_records_and_readable_tags_stay(kept: Kept) -> None:
    folder = kept.store.folder
    value = json.loads(folder.index.read_bytes())
    value["manifests"][0]["size"] = "x"  # one entry is no entry, and the digest over all is wrong: the tags can be read
    folder.index.write_text(json.dumps(value))
    folder.second_index.write_bytes(b"")
    assert repair(kept.store).damage == ()
    kept.read()
    for path in (folder.index, folder.second_index):
        path.write_bytes(b"gone")
    found = repair(kept.store)
    assert found.damage == ()
    assert "building a recipe again sets its own" in " ".join(found.repaired)
    assert {artifact.name for artifact in kept.store.all()} == {"best", "other"}
    kept.build()
    kept.read()


def test_what_no_build_makes_again_can_be_forgotten(kept: Kept) -> None:
    kept.part("blob").write_bytes(b"x")
    left = repair(kept.store)
    assert [damage.part for damage in left.damage] == ["blob"]
    assert left.exit_code == 5
    assert repair(kept.store, forget=True).damage == ()
    assert [artifact.name for artifact in kept.store.all()] == ["other"]
    assert repair(kept.store).repaired == ()
    kept.build()
    kept.read()


def test_a_whole_store_is_left_as_it_is(kept: Kept) -> None:
    home = kept.store.root.parent
    before = listed(home)
    found = repair(kept.store)
    assert (found.damage, found.repaired, found.remarks) == ((), (), ())
    assert listed(home) == before


def test_a_store_of_an_earlier_version_is_read_and_sealed_by_the_next_write(kept: Kept) -> None:
    folder = kept.store.folder
    value = json.loads(folder.index.read_bytes())
    del value["annotations"]
    folder.index.write_text(json.dumps(value))
    folder.second_index.unlink()
    note = kept.part("note")
    note.write_text(json.dumps({"digest": kept.artifact("best").digest, "agreements": []}))
    assert inspect(kept.store).damage == ()
    kept.read()
    assert kept.store.recall("steps", KEY[:-1] + "0") == {"digest": kept.artifact("best").digest, "agreements": []}
    kept.build()
    assert folder.read_index().sealed
    assert folder.second_index.read_bytes() == folder.index.read_bytes()


def test_an_index_of_an_earlier_version_that_lost_its_entries_is_made_again_from_records(kept: Kept) -> None:
    folder = kept.store.folder
    folder.second_index.unlink()
    FILES["no entries"](folder.index)
    with pytest.raises(DamageError, match="lists nothing"):
        kept.store.get("best")
    assert repair(kept.store).damage == ()
    assert {artifact.name for artifact in kept.store.all()} == {"best", "other"}
    kept.build()
    kept.read()


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the process die at the `step`-th change of a name on disk; the function counts the changes."""
    changes = [0]
    real_rename, real_replace = os.rename, os.replace

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def change(*arguments: object, **keywords: object) -> None:
            changes[0] += 1
            if changes[0] == step:
                raise Killed
            real(*arguments, **keywords)

        return change

    monkeypatch.setattr(os, "rename", counted(real_rename))
    monkeypatch.setattr(os, "replace", counted(real_replace))
    return lambda: changes[0]


@pytest.mark.slow
def test_a_build_that_is_killed_anywhere_leaves_no_damage(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 0
    while True:
        step += 1
        trial = Kept(Store(tmp_path / f"killed-{step}" / "store"), kept.made)
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            try:
                trial.build()
            except Killed:
                pass
            else:
                break
        assert inspect(trial.store).damage == (), step
        again = Kept(Store(trial.store.root), kept.made)
        again.build()
        found = inspect(again.store)
        assert (found.damage, found.remarks) == ((), ()), step
        again.read()
    assert step > 10


@pytest.mark.slow
def test_a_repair_that_is_killed_anywhere_is_completed_by_the_next(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {part: kept.part(part) for part in ("blob", "manifest", "oci-layout", "note", "index")}
    for part, path in parts.items():
        FILES["folder" if part in ("index", "oci-layout") else "flipped"](path)
    harmed, step = tmp_path / "harmed", 0
    shutil.copytree(kept.store.root.parent, harmed)
    while True:
        step += 1
        home = tmp_path / f"killed-{step}"
        shutil.copytree(harmed, home)
        trial = Kept(Store(home / "store"), kept.made)
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            try:
                repair(trial.store)
            except Killed:
                pass
            else:
                break
        repair(trial.store)
        assert [damage.part for damage in inspect(trial.store).damage] == ["blob"], step
        trial.build()
        assert inspect(trial.store).damage == (), step
        trial.read()
    assert step > 7
