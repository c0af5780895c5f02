import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from seatrial.optimize.artifact import Artifact, File, Provenance, digest_file
from seatrial.optimize.errors import IntegrityError, MachineError, MissingError
from seatrial.optimize.store import Store


def artifact(folder: Path, content: bytes, *, name: str = "net", parent: str | None = None) -> Artifact:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "model.onnx").write_bytes(content)
    return Artifact(
        name=name,
        format="onnx",
        files=(File.of(folder / "model.onnx"),),
        inputs=(),
        outputs=(),
        requires={},
        made_by=Provenance(
            stage="export", parent=parent, config={}, recipe="", samples=None, seed=0, environment={}, at="2026-01-01"
        ),
    )


def test_what_is_put_is_got_by_tag_digest_and_prefix(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a", tag="best")
    for reference in ("best", kept.digest, kept.short, kept.digest.removeprefix("sha256:")[:8]):
        assert store.get(reference) == kept
    assert store.path(kept, "model.onnx").read_bytes() == b"one"
    assert store.holds(kept)


def test_the_layout_is_oci(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a", tag="best")
    root = tmp_path / "store"
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_text())
    for entry in index["manifests"]:
        blob = root / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")
        assert blob.stat().st_size == entry["size"]
        manifest = json.loads(blob.read_text())
        for descriptor in (manifest["config"], *manifest["layers"]):
            part = root / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")
            assert digest_file(part) == descriptor["digest"]
            assert part.stat().st_size == descriptor["size"]


def test_a_tag_moves_and_the_digest_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a", tag="best")
    second = store.put(artifact(tmp_path / "b", b"two"), tmp_path / "b", tag="best")
    assert store.get("best") == second
    assert store.get(first.digest) == first
    assert list(store.all()) == [first, second]


def test_damage_is_found_and_putting_again_mends_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a", tag="best")
    blob = store.path(kept, "model.onnx")
    blob.write_bytes(b"onX")
    with pytest.raises(IntegrityError, match="damaged"):
        store.path(kept, "model.onnx")
    assert not store.holds(kept)
    with pytest.raises(IntegrityError):
        store.materialize(kept, tmp_path / "out")
    store.put(kept, tmp_path / "a")
    assert store.holds(kept)


def test_a_changed_record_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a")
    for blob in (tmp_path / "store" / "blobs" / "sha256").iterdir():
        if b'"net"' in blob.read_bytes():
            blob.write_bytes(blob.read_bytes().replace(b'"net"', b'"bad"'))
    with pytest.raises(IntegrityError, match="changed"):
        store.get(kept.digest)


def test_what_is_not_there_says_what_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a", tag="best")
    with pytest.raises(MissingError, match="best"):
        store.get("worst")


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="SEATRIAL_HOME"):
        Store(tmp_path / "file" / "store").put(artifact(tmp_path / "a", b"one"), tmp_path / "a")


def test_history_follows_parents(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = store.put(artifact(tmp_path / "a", b"one"), tmp_path / "a")
    second = store.put(artifact(tmp_path / "b", b"two", parent=first.digest), tmp_path / "b")
    assert store.history(second) == [second, first]


def _put(root: str, folder: str, number: int) -> None:
    for item in range(10):
        place = Path(folder) / f"{number}-{item}"
        Store(Path(root)).put(artifact(place, f"{number}-{item}".encode()), place, tag=f"t{number}-{item}")


@pytest.mark.slow
def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = get_context("spawn")
    workers = [
        context.Process(target=_put, args=(str(tmp_path / "store"), str(tmp_path / "parts"), number))
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    store = Store(tmp_path / "store")
    assert len(list(store.all())) == 30
    assert all(store.holds(store.get(f"t{number}-{item}")) for number in range(3) for item in range(10))
