"""A home with a chain of artifacts, two releases, an approval and a run; and a registry in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.benchmarks.release_site import ROLES, passed
from seatrial.optimize.artifact import Artifact, File, TensorSpec, digest_bytes
from seatrial.optimize.errors import IntegrityError, MissingError
from seatrial.optimize.store import Store
from seatrial.serve.errors import ExchangeError
from seatrial.serve.release import on_cryptography as keys
from seatrial.serve.release.approvals import Approvals, Subject
from seatrial.serve.release.record import Release
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.roles import load_roles

from .made_by import MADE_BY


@dataclass
class Memory:
    """A repository of a registry that keeps its blobs in a dictionary; after `broken_after` uploads, or when no
    downloads are left, it goes away."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    broken_after: int = 1 << 30
    uploads: int = 0
    downloads_left: int = 1 << 30

    def holds(self, digest: str) -> bool:
        return digest in self.blobs

    def upload(self, digest: str, size: int, source: Path | bytes) -> None:
        if self.uploads >= self.broken_after:
            raise ExchangeError("gone")
        self.uploads += 1
        data = source if isinstance(source, bytes) else source.read_bytes()
        assert (digest_bytes(data), len(data)) == (digest, size)
        self.blobs[digest] = data

    def put_manifest(self, data: bytes, tag: str) -> str:
        self.tags[tag] = data
        return digest_bytes(data)

    def manifest(self, limit: int) -> bytes:
        if not self.tags:
            raise MissingError("no tag")
        data = next(reversed(self.tags.values()))
        assert len(data) <= limit
        return data

    def blob(self, digest: str, size: int, write: Callable[[bytes], object]) -> None:
        if not self.downloads_left:
            raise ExchangeError("gone")
        self.downloads_left -= 1
        data = self.blobs[digest]
        write(data)
        if digest_bytes(data) != digest or len(data) != size:
            raise IntegrityError("other bytes")


def stored(home: Path, name: str, data: bytes, parent: Artifact | None = None) -> Artifact:
    """Put an artifact with a graph and a file of weights."""
    folder = home.parent / f"made-{name}"
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(b"graph of " + data)
    (folder / "weights" / "a.bin").write_bytes(data)
    made = Artifact(
        name=name,
        format="onnx",
        files=(File.of(folder / "model.onnx"), File.of(folder / "weights" / "a.bin", "weights/a.bin")),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 4)),),
        requires={},
        made_by=replace(MADE_BY, parent=parent.digest if parent else None),
    )
    return Store(home / "store").put(made, folder)


def released(home: Path) -> Release:
    """Make the home; return its second release, which has an approval and a run."""
    source = stored(home, "net", b"float")
    for number, data in enumerate((b"int8 one", b"int8 two"), start=1):
        made = stored(home, "net", data, source)
        run = home / "runs" / str(number)
        (run / "slots").mkdir(parents=True)
        (run / "run.json").write_bytes(data)
        (run / "slots" / "0.json").write_bytes(b"[1, 2]")
        release = Registry(home / "releases").register("net", made, passed(made), run=run)
    (home.parent / "roles.toml").write_text(ROLES)
    for member in ("anna", "bob", "cora"):
        keys.new_key(home.parent / f"{member}.pem")
    approvals = Approvals(home, load_roles(home.parent / "roles.toml"), home.parent)
    approvals.approve(Subject(release=release, artifact=made), role="owner", key=home.parent / "anna.pem")
    return release
