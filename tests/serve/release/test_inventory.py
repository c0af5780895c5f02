"""Artifacts with their users; what may go, what differs, and what comes out as files."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import cyclonedx.schema
import jsonschema
import pytest
from referencing import Registry as Schemas
from referencing import Resource

from scripts.benchmarks.release_site import passed
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.plain import write_atomically
from seatrial.optimize.recipe.manifest import Column, DataFile, Manifest
from seatrial.optimize.store import Store
from seatrial.optimize.store_check import inspect
from seatrial.optimize.store_gc import collect
from seatrial.serve.release.croissant import dataset
from seatrial.serve.release.inventory import age
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.trail_file import TrailFile
from tests.support.commands import within
from tests.support.exchanged import released, stored


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two releases of one source, and a trial that nobody uses."""
    home = tmp_path / "site" / "home"
    monkeypatch.setenv("SEATRIAL_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    released(home)
    stored(home, "trial", b"trial")
    return home


def said(*words: str | Path, code: int = 0) -> Any:
    done = within(*map(str, words), "--json")
    assert done.exit_code == code, done.output
    return json.loads(done.output) if code == 0 else done.output


def names(home: Path) -> list[str]:
    return [each.name for each in Store(home / "store").all()]


def users(name: str) -> list[list[str]]:
    return [each["used_by"] for each in said("list")["artifacts"] if each["name"] == name]


def test_every_artifact_says_who_uses_it(home: Path) -> None:
    source, first, second = users("net")
    assert (first, second) == (["release net@1"], ["release net@2"])
    assert [each.startswith("parent of net@") for each in source] == [True, True]
    assert users("trial") == [[]]


def test_what_nobody_uses_goes_and_the_rest_is_whole(home: Path) -> None:
    before = sum(1 for _ in (home / "store" / "blobs" / "sha256").iterdir())
    shown = said("gc", "--older-than", "0d")
    assert [each["name"] for each in shown["artifacts"]] == ["trial"]
    assert (shown["removed"], shown["blobs"], names(home).count("trial")) == (False, 4, 1)
    assert said("gc", "--older-than", "0d", "--go")["blobs"] == 4
    assert names(home) == ["net", "net", "net"]
    assert sum(1 for _ in (home / "store" / "blobs" / "sha256").iterdir()) == before - 4
    assert inspect(Store(home / "store")).damage == ()
    assert said("gc", "--older-than", "0d", "--go")["artifacts"] == []


def test_what_is_young_is_spared(home: Path) -> None:
    stored(home, "trial", b"younger")
    write_atomically(home / "note", b"")
    assert [each["name"] for each in said("gc", "--older-than", "9999d")["artifacts"]] == []


@pytest.mark.parametrize("how", ["release", "parent", "placed", "base"])
def test_what_is_in_use_is_refused_with_who_uses_it(home: Path, how: str) -> None:
    store = Store(home / "store")
    digests = {each["used_by"][0]: each["digest"] for each in said("list")["artifacts"] if each["used_by"]}
    trial = next(each for each in store.all() if each.name == "trial")
    if how == "placed":
        TrailFile(home / "trail").append(
            "placed", model="trial", actor="anna", details={"version": 3, "digest": trial.digest}
        )
        who, digest = "placed as trial version 3", trial.digest
    elif how == "base":
        made = stored(home, "next", b"next")
        verdict = passed(made)
        verdict = replace(verdict, base=replace(verdict.base, digest=trial.digest))
        Registry(home / "releases").register("next", made, verdict, run=home)
        who, digest = "base of release next@1", trial.digest
    else:
        who = next(each for each in digests if each.startswith(how))
        digest = digests[who]
    before = sorted(names(home))
    assert who in " ".join(said("gc", digest, "--go", code=2).split())
    assert sorted(names(home)) == before


def test_a_tag_keeps_until_its_artifact_is_named(home: Path) -> None:
    store = Store(home / "store")
    store.tag(next(each for each in store.all() if each.name == "trial"), "keep")
    assert said("gc", "--older-than", "0d")["artifacts"] == []
    assert said("gc", "keep", "--go")["artifacts"][0]["name"] == "trial"
    assert names(home) == ["net", "net", "net"]


def test_a_retired_version_no_longer_keeps_its_artifact(home: Path) -> None:
    trial = next(each for each in Store(home / "store").all() if each.name == "trial")
    trail = TrailFile(home / "trail")
    details = {"version": 1, "digest": trial.digest}
    trail.append("placed", model="trial", actor="anna", details=details)
    assert said("gc", "--older-than", "0d")["artifacts"] == []
    trail.append("retired", model="trial", actor="anna", details={"version": 1, "left": 0})
    assert [each["name"] for each in said("gc", "--older-than", "0d")["artifacts"]] == ["trial"]


def test_a_damaged_record_keeps_everything(home: Path) -> None:
    path = home / "releases" / "net" / "1.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert within("gc", "--older-than", "0d", "--go").exit_code == 5
    assert len(names(home)) == 4


def test_a_kill_at_any_removal_leaves_a_whole_store_and_the_next_one_completes_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = next(each.digest for each in Store(home / "store").all() if each.name == "trial")
    whole, unlink = home.with_name("whole"), Path.unlink
    shutil.copytree(home, whole)
    for after in range(5):
        shutil.rmtree(home)
        shutil.copytree(whole, home)
        count = iter(range(9))

        def failing(path: Path, missing_ok: bool = False, count: Iterator[int] = count, after: int = after) -> None:
            if path.parent.name == "sha256" and next(count) == after:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", failing)
        try:
            collect(Store(home / "store"), {trial}, go=True)
        except KeyboardInterrupt:
            assert after < 4
        monkeypatch.setattr(Path, "unlink", unlink)
        assert inspect(Store(home / "store")).damage == ()
        assert collect(Store(home / "store"), (), go=True).blobs == max(4 - after, 0)
        assert names(home) == ["net", "net", "net"]


def test_entries_of_other_tools_keep_their_blobs(home: Path) -> None:
    store = Store(home / "store")
    trial = next(each for each in store.all() if each.name == "trial")
    index = store.folder.read_index()
    entry = index.entry(trial.digest)
    assert entry is not None
    other = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": entry.digest, "size": entry.size}
    store.folder.write_index(replace(index, others=(other,)))
    assert collect(store, {trial.digest}, go=True).blobs == 0
    store.folder.write_index(replace(store.folder.read_index(), others=({"digest": f"sha256:{'0' * 64}"},)))
    assert collect(store, (), go=True).blobs == 0


def test_two_releases_differ_in_their_files_and_in_nothing_else(home: Path) -> None:
    found = said("diff", "net@1", "net@2")["differences"]
    assert {each["name"] for each in found} == {"file model.onnx", "file weights/a.bin"}
    assert said("diff", "net@1", "net@1")["differences"] == []
    assert within("diff", "net@1", "net@9").exit_code == 2


def test_what_is_exported_is_what_is_stored(home: Path, tmp_path: Path) -> None:
    said("export", "net@2", tmp_path / "out")
    assert (tmp_path / "out" / "weights" / "a.bin").read_bytes() == b"int8 two"
    record = json.loads((tmp_path / "out" / "seatrial.json").read_bytes())
    assert record["digest"] == Registry(home / "releases").get("net@2").digest
    assert within("export", "net@2", str(tmp_path / "out")).exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "site"]


def test_a_damaged_file_is_not_exported(home: Path, tmp_path: Path) -> None:
    store = Store(home / "store")
    artifact = store.get(Registry(home / "releases").get("net@2").digest)
    blob = store.checked_blob(artifact, "weights/a.bin")
    blob.chmod(0o644)
    blob.write_bytes(b"int8 2wo")
    assert within("export", "net@2", str(tmp_path / "out")).exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_bill_of_materials_is_valid_cyclonedx(home: Path, tmp_path: Path) -> None:
    said("export", "net@2", tmp_path / "out", "--bom")
    bill = json.loads((tmp_path / "out" / "bom.cdx.json").read_bytes())
    validator(bill["specVersion"]).validate(bill)
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "net", "2")
    assert [each["name"] for each in model["components"]] == ["model.onnx", "weights/a.bin"]
    assert model["pedigree"]["notes"] == "export <- export"
    bill["metadata"]["component"]["modelCard"]["invented"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validator("1.6").validate(bill)


def validator(version: str) -> jsonschema.Draft7Validator:
    folder = Path(cyclonedx.schema.__file__).parent / "_res"
    schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    known = Schemas().with_resources(
        (each["$id"], Resource.from_contents(each)) for each in schemas.values() if "$id" in each
    )
    return jsonschema.Draft7Validator(schemas[f"bom-{version}.SNAPSHOT.schema.json"], registry=known)


@pytest.mark.parametrize(
    ("text", "found"), [("30d", timedelta(days=30)), ("0d", timedelta()), ("12h", timedelta(hours=12))]
)
def test_an_age_is_read(text: str, found: timedelta) -> None:
    assert age(text) == found


@pytest.mark.parametrize("text", ["", "d", "30", "-1d", "1.5d", "30w", "1234567d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an age"):
        age(text)
    assert within("gc", "--older-than", text).exit_code == 2


def manifest(chain: list[Artifact]) -> list[Artifact]:
    made = Manifest(
        loader="model.py:samples",
        code="sha256:1",
        root="sha256:2",
        files=(
            DataFile(path="data/a.npy", digest=f"sha256:{'3' * 64}", size=3),
            DataFile(path="b.npy", digest=f"md5:{'4' * 32}", size=4),
        ),
        columns=(
            Column(name="x", dtype="float32", shape=(3, 2)),
            Column(name="labels", dtype="int64", shape=()),
            Column(name="text", dtype="<U8", shape=()),
        ),
        rows={"golden": 16, "train": None},
    )
    notes = {"data": made.to_json()}
    return [*chain[:-1], replace(chain[-1], made_by=replace(chain[-1].made_by, notes=notes))]


def test_the_data_is_described_as_croissant(home: Path, tmp_path: Path) -> None:
    done = within("export", "net@2", str(tmp_path / "out"), "--croissant")
    assert (done.exit_code, "no manifest of its data" in " ".join(done.output.split())) == (2, True)
    assert not (tmp_path / "out").exists()
    store = Store(home / "store")
    found = dataset(manifest(store.history(store.get(Registry(home / "releases").get("net@2").digest))))
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert [each.get("sha256", each.get("md5")) for each in found["distribution"]] == ["3" * 64, "4" * 32]
    variables = {each["name"]: each["value"] for each in found["variableMeasured"]}
    assert variables == {"x": "float32 [3, 2]", "labels": "int64 []", "text": "<U8 []"}
    assert "train: all rows" in found["description"]
