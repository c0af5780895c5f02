"""Push and pull against a registry in memory: what comes out is what went in, and nothing else is taken."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.release_site import passed
from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, SeatrialError
from seatrial.optimize.store import Store
from seatrial.serve.errors import ExchangeError
from seatrial.serve.release.exchange import modelpack
from seatrial.serve.release.exchange.on_oras import OciRepository
from seatrial.serve.release.exchange.pulling import pull
from seatrial.serve.release.exchange.pushing import push, tar_of
from seatrial.serve.release.registry import Registry
from tests.support.exchanged import Memory, released, stored


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def pushed(tmp_path: Path) -> Memory:
    remote = Memory()
    push(released(tmp_path / "here" / "home"), remote, home=tmp_path / "here" / "home", tag="2")
    return remote


def test_what_is_pulled_is_what_was_pushed(tmp_path: Path, pushed: Memory) -> None:
    here, there = tmp_path / "here" / "home", tmp_path / "there"
    done = pull(pushed, home=there)
    assert (done.release.label, done.new_records) == ("net@2", 2)
    assert tree(there / "approvals") == tree(here / "approvals") != {}
    assert tree(there / "releases") == tree(here / "releases")
    assert done.run is not None
    assert tree(done.run) == tree(here / "runs" / "2")
    store = Store(there / "store")
    chain = store.history(store.get(done.release.digest))
    assert len(chain) == 2
    assert all(store.holds(each) for each in chain)
    assert pull(pushed, home=there).new_records == 0


def test_the_same_release_is_the_same_manifest_and_is_sent_once(tmp_path: Path) -> None:
    home, remote = tmp_path / "home", Memory()
    release = released(home)
    first = push(release, remote, home=home, tag="a")
    again = push(release, remote, home=home, tag="b")
    assert (again.sent, again.known, again.digest) == (0, first.sent + first.known, first.digest)


def test_other_tools_find_the_weights_under_their_names(pushed: Memory) -> None:
    manifest = json.loads(pushed.manifest(1 << 20))
    weights = [each for each in manifest["layers"] if each["mediaType"] == modelpack.WEIGHT]
    assert [each["annotations"][modelpack.PATH] for each in weights] == ["model.onnx", "weights/a.bin"]
    config = json.loads(pushed.blobs[manifest["config"]["digest"]])
    assert config["descriptor"]["name"] == "net"
    assert config["modelfs"]["diffIds"] == [each["digest"] for each in weights]


@pytest.mark.parametrize("after", range(10))
def test_a_registry_that_goes_away_has_nothing_to_pull(tmp_path: Path, after: int) -> None:
    home, remote = tmp_path / "home", Memory(broken_after=after)
    release = released(home)
    with pytest.raises(ExchangeError, match="gone"):
        push(release, remote, home=home, tag="2")
    assert not remote.tags
    remote.broken_after = 1 << 30
    push(release, remote, home=home, tag="2")
    assert pull(remote, home=tmp_path / "there").release == release


def test_a_pull_that_ends_anywhere_leaves_no_release_and_the_next_one_completes_it(
    tmp_path: Path, pushed: Memory
) -> None:
    blobs = len(json.loads(pushed.manifest(1 << 20))["layers"]) + 1
    for after in range(blobs):
        there = tmp_path / f"there-{after}"
        pushed.downloads_left = after
        with pytest.raises(ExchangeError, match="gone"):
            pull(pushed, home=there)
        pushed.downloads_left = 1 << 30
        assert Registry(there / "releases").releases("net") == ()
        assert not list((there / "work").glob("*"))
        assert pull(pushed, home=there).release.version == 2


def test_a_file_that_was_changed_here_is_not_sent(tmp_path: Path) -> None:
    home, remote = tmp_path / "home", Memory()
    release = released(home)
    store = Store(home / "store")
    blob = store.checked_blob(store.get(release.digest), "weights/a.bin")
    blob.chmod(0o644)
    blob.write_bytes(b"int8 2wo")
    with pytest.raises(IntegrityError, match="damaged"):
        push(release, remote, home=home, tag="2")
    assert (remote.blobs, remote.tags) == ({}, {})


def test_every_blob_that_was_changed_there_is_refused(tmp_path: Path, pushed: Memory) -> None:
    manifest = json.loads(pushed.manifest(1 << 20))
    for number, each in enumerate((manifest["config"], *manifest["layers"])):
        whole = pushed.blobs[each["digest"]]
        pushed.blobs[each["digest"]] = bytes([whole[0] ^ 1]) + whole[1:]
        with pytest.raises(SeatrialError):
            pull(pushed, home=tmp_path / f"there-{number}")
        assert Registry(tmp_path / f"there-{number}" / "releases").releases("net") == ()
        pushed.blobs[each["digest"]] = whole


def changed(remote: Memory, change: Callable[[dict[str, Any]], object]) -> Memory:
    value = json.loads(remote.manifest(1 << 20))
    change(value)
    remote.tags["2"] = canonical(value)
    return remote


def renamed(layer: dict[str, Any], path: str) -> None:
    layer["annotations"][modelpack.PATH] = path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda value: value.update(artifactType="application/vnd.unknown"), "its type is"),
        (lambda value: value["annotations"].clear(), "not pushed by seatrial"),
        (lambda value: value["annotations"].update({modelpack.RELEASE: "../net@2"}), "not the label"),
        (lambda value: value["annotations"].update({modelpack.RELEASE: "net@3"}), "net@3 is missing"),
        (lambda value: value["annotations"].update({modelpack.RELEASE: "net@999999999"}), "too large"),
        (lambda value: renamed(value["layers"][0], "../model.onnx"), "leaves the release"),
        (lambda value: renamed(value["layers"][0], "/model.onnx"), "leaves the release"),
        (lambda value: renamed(value["layers"][0], "weights/a.bin"), "occurs twice"),
        (lambda value: renamed(value["layers"][0], "other.onnx"), "is missing, or is another file"),
        (lambda value: value["layers"].pop(0), "is missing, or is another file"),
        (lambda value: value["layers"][0].update(size=-1), "not the size"),
        (lambda value: value["layers"][0].update(digest="sha256:x"), "no digest"),
        (lambda value: value.update(layers=[]), "its layers are invalid"),
        (lambda value: value["layers"].reverse() or value.update(layers={}), "its layers are invalid"),
    ],
)
def test_a_manifest_that_is_no_release_is_refused(
    tmp_path: Path, pushed: Memory, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    with pytest.raises(ExchangeError, match=why):
        pull(changed(pushed, change), home=tmp_path / "there")
    assert tree(tmp_path / "there") == {}


def test_another_release_of_that_number_here_is_not_touched(tmp_path: Path, pushed: Memory) -> None:
    home = tmp_path / "other"
    released(home)
    before = tree(home / "releases")
    with pytest.raises(ExchangeError, match="another release than the one in the registry"):
        pull(pushed, home=home)
    assert tree(home / "releases") == before


def test_what_is_newer_here_stays(tmp_path: Path, pushed: Memory) -> None:
    there = tmp_path / "there"
    pull(pushed, home=there)
    made = stored(there, "net", b"three")
    Registry(there / "releases").register("net", made, passed(made), run=tmp_path)
    assert pull(pushed, home=there).new_records == 0
    assert [each.version for each in Registry(there / "releases").releases("net")] == [1, 2, 3]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"outside"])
def test_a_run_that_would_lie_elsewhere_is_refused(tmp_path: Path, pushed: Memory, kind: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("../../evil" if kind == b"outside" else "evil")
        if kind != b"outside":
            info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    data = stream.getvalue()
    pushed.blobs[digest_bytes(data)] = data

    def replaced(value: dict[str, Any]) -> None:
        layer = next(each for each in value["layers"] if each["annotations"][modelpack.PATH] == modelpack.RUN)
        layer.update(digest=digest_bytes(data), size=len(data))

    with pytest.raises(ExchangeError, match="no plain file inside the run"):
        pull(changed(pushed, replaced), home=tmp_path / "there")
    assert Registry(tmp_path / "there" / "releases").releases("net") == ()
    assert not list(tmp_path.rglob("evil"))


def test_a_tar_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x").write_bytes(b"x")
        (tmp_path / name / "y").write_bytes(b"y")
    assert tar_of(tmp_path / "a") == tar_of(tmp_path / "b")


@pytest.mark.parametrize(
    "reference", ["", "scenes", "scenes:1", "host/../scenes:1", "host/Scenes:1", "host/scenes:", "http://host/scenes:1"]
)
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(ConfigError, match="not a reference of an OCI registry"):
        OciRepository(reference)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("registry.example.com/models/scenes:3", ("registry.example.com", "models/scenes", "3", "")),
        ("localhost:5000/a", ("localhost:5000", "a", "", "")),
        (f"host/a:b@sha256:{'0' * 64}", ("host", "a", "b", f"sha256:{'0' * 64}")),
    ],
)
def test_a_reference_has_host_name_tag_and_digest(reference: str, parts: tuple[str, ...]) -> None:
    found = OciRepository(reference)
    assert (found.host, found.name, found.tag, found.digest) == parts
