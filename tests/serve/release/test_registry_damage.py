"""Every record of the registry damaged in every way: found, named, and restored from its second copy."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.verdict import EvaluationSet, Judged, Verdict
from seatrial.optimize.artifact import Artifact, Provenance, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.inspection import DamageError
from seatrial.optimize.store_folder import REPAIR
from seatrial.serve.release.record import Release, read_release, record_bytes
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.registry_check import inspect_releases
from tests.support.damages import FILES, FOLDERS


def artifact(name: str) -> Artifact:
    made = Provenance(
        stage="export", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="2026"
    )
    return Artifact(name=name, format="onnx", files=(), inputs=(), outputs=(), requires={}, made_by=made)


def verdict(judged: Artifact) -> Verdict:
    return Verdict(
        outcome="PASS",
        findings=(),
        reasons=("because",),
        base=Judged(name="base", digest="sha256:a"),
        candidate=Judged(name="candidate", digest=judged.digest),
        pairs=6,
        confidence=0.9,
        budget="sha256:b",
        samples=EvaluationSet(count=0, digest=""),
        at="2026",
    )


def release(home: Path, *names: str) -> None:
    for name in names:
        made = artifact(name)
        Registry(home / "releases").register("net", made, verdict(made), run=home / "run")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here, and it is most of the time
    release(tmp_path / "kept", "one", "two", "three")
    return tmp_path / "kept"


def heal(home: Path) -> None:
    """Read, and follow the step that the error names until it reads."""
    for _ in range(3):
        try:
            assert len(Registry(home / "releases").releases("net")) == 3
            if not (found := inspect_releases(home, False).damage):
                return
            assert found[0].next_step == REPAIR
        except DamageError as error:
            assert error.next_step == REPAIR  # noqa: PT017  the step is what is followed
        inspect_releases(home, True)
    raise AssertionError(inspect_releases(home, False).damage)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [harm for harm in FILES if harm != "unreadable"])
@pytest.mark.parametrize("version", [1, 3])
def test_a_damaged_record_is_found_and_restored_bit_for_bit(home: Path, version: int, harm: str) -> None:
    path = home / "releases" / "net" / f"{version}.json"
    before = path.read_bytes()
    path.chmod(0o644)
    FILES[harm](path)
    found = inspect_releases(home, False)
    assert str(path) in [damage.where for damage in found.damage]
    assert found.exit_code == 5
    if "same bytes" not in harm:
        with pytest.raises(IntegrityError):
            Registry(home / "releases").get("net")
    repaired = inspect_releases(home, True)
    assert repaired.damage == ()
    assert path.read_bytes() == before
    heal(home)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", [harm for harm in FILES if harm != "unreadable"])
def test_a_damaged_second_copy_is_written_again(home: Path, harm: str) -> None:
    path = next((home / "releases" / ".copies" / "net").glob("2-*.json"))
    before = path.read_bytes()
    path.chmod(0o644)
    FILES[harm](path)
    found = inspect_releases(home, False).damage
    assert [(damage.part, damage.where) for damage in found] == [("release copy", str(path))]
    heal(home)
    assert path.read_bytes() == before


def test_the_newest_record_may_lack_its_copy_since_a_killed_registration_leaves_it_so(home: Path) -> None:
    next((home / "releases" / ".copies" / "net").glob("3-*.json")).unlink()
    found = inspect_releases(home, False)
    assert (found.damage, found.remarks) == ((), ("the second copy of net@3 is not written yet",))
    assert inspect_releases(home, True).remarks == ()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("harm", FOLDERS)
@pytest.mark.parametrize("part", ["net", ".copies", ".copies/net"])
def test_a_replaced_folder_is_restored(home: Path, part: str, harm: str) -> None:
    FOLDERS[harm](home / "releases" / part)
    heal(home)
    inspect_releases(home, True)
    assert len(list((home / "releases" / ".copies" / "net").iterdir())) == 3
    release(home, "four")


@pytest.mark.parametrize("harm", ["pipe", "folder", "dangling link", "link to /dev/zero"])
def test_a_replaced_lock_is_set_aside(home: Path, harm: str) -> None:
    FILES[harm](home / "releases" / "net" / ".lock")
    assert [damage.part for damage in inspect_releases(home, False).damage] == ["lock"]
    with pytest.raises(DamageError) as caught:
        release(home, "four")
    assert caught.value.next_step == REPAIR
    assert inspect_releases(home, True).damage == ()
    release(home, "four")


def test_swapped_records_are_put_back(home: Path) -> None:
    one, two = (home / "releases" / "net" / f"{version}.json" for version in (1, 2))
    first = one.read_bytes()
    two.rename(one.with_name("aside"))
    one.rename(two)
    one.with_name("aside").rename(one)
    with pytest.raises(IntegrityError, match="it belongs to 'net', version 2"):
        Registry(home / "releases").get("net")
    heal(home)
    assert one.read_bytes() == first


def test_the_newest_record_is_missed_when_it_is_deleted(home: Path) -> None:
    (home / "releases" / "net" / "3.json").unlink()
    with pytest.raises(IntegrityError, match="net@3"):
        release(home, "four")
    heal(home)


def test_without_a_second_copy_the_step_is_a_backup_and_it_works(home: Path) -> None:
    path = home / "releases" / "net" / "2.json"
    backup = path.read_bytes()
    shutil.rmtree(home / "releases" / ".copies")
    path.chmod(0o644)
    path.write_bytes(b"{}")
    left = inspect_releases(home, True)
    assert left.exit_code == 5
    assert digest_bytes(backup) in left.damage[0].next_step
    path.rename(home / "away")
    path.write_bytes(backup)
    assert inspect_releases(home, True).damage == ()
    heal(home)


def test_a_planted_copy_does_not_outvote_the_chain(home: Path) -> None:
    genuine = home / "releases" / "net" / "2.json"
    value = json.loads(genuine.read_bytes()) | {"digest": artifact("evil").digest}
    value.pop("schema")
    data = record_bytes(Release(**value))
    copies = home / "releases" / ".copies" / "net"
    next(copies.glob("2-*")).unlink()
    (copies / f"2-{digest_bytes(data)[7:]}.json").write_bytes(data)
    with pytest.raises(IntegrityError, match="differs from the registered one"):
        Registry(home / "releases").get("net")
    assert inspect_releases(home, True).damage == ()
    assert Registry(home / "releases").get("net@2").digest == artifact("two").digest


@pytest.mark.parametrize("stray", ["².json", "x.json", "03.json", "-1.json", "1e3.json", ".hidden.json", "4.json.bak"])
def test_a_file_that_is_no_record_by_name_is_no_release(home: Path, stray: str) -> None:
    (home / "releases" / "net" / stray).write_text("{}")
    heal(home)


def test_a_stray_number_is_named_and_can_be_moved_away(home: Path) -> None:
    stray = home / "releases" / "net" / "999999999.json"
    stray.write_text("{}")
    with pytest.raises(DamageError):
        Registry(home / "releases").get("net")
    left = inspect_releases(home, True)
    assert any(f"move {stray} away if that was never a release" in damage.next_step for damage in left.damage)
    stray.unlink()
    heal(home)


@pytest.mark.parametrize(
    "name", ["../../pwned", "a/b", "", "/absolute", "x\n", ".", "..", ".copies", "x\x1b[31m", "a" * 200, "é"]
)
def test_a_name_that_leaves_the_folder_is_refused_on_writing_and_on_reading(home: Path, name: str) -> None:
    made = artifact("four")
    registry = Registry(home / "releases")
    for act in (
        lambda: registry.register(name, made, verdict(made), run=home),
        lambda: registry.releases(name),
        lambda: registry.get(name + "@1"),
    ):
        with pytest.raises(ConfigError, match="invalid release name"):
            act()
    assert sorted(path.name for path in (home / "releases").iterdir()) == [".copies", "net"]


def test_what_killed_registrations_left_is_swept_by_the_next(home: Path) -> None:
    folder = home / "releases" / "net"
    (folder / "4.12345").write_bytes(b"half")
    (folder / ".staged-abc").write_bytes(b"half")
    assert "2 staged files" in inspect_releases(home, False).remarks[0]
    release(home, "four")
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "1.json", "2.json", "3.json", "4.json"]


def test_a_registry_of_an_earlier_version_gets_its_copies_with_the_next_release(home: Path) -> None:
    shutil.rmtree(home / "releases" / ".copies")
    assert inspect_releases(home, False).damage == ()
    release(home, "four")
    assert len(list((home / "releases" / ".copies" / "net").iterdir())) == 4


RECORD = record_bytes(
    Release(
        name="net",
        version=2,
        digest=artifact("one").digest,
        verdict={"outcome": "PASS"},
        run="run",
        at="2026",
        previous=artifact("two").digest,
    )
)


@settings(max_examples=300, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_a_mutated_record_is_read_or_refused(data: Any) -> None:
    changed = bytearray(RECORD)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed) - 1))
        end = data.draw(st.integers(start, min(start + 30, len(changed))))
        changed[start:end] = data.draw(st.binary(max_size=12))
        changed = changed or bytearray(b"x")
    try:
        found = read_release(bytes(changed), "net", 2)
    except ValueError:
        return
    assert (found.name, found.version) == ("net", 2)
    record_bytes(found)
