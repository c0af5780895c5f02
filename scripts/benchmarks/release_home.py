"""A home with a chain of artifacts, two releases, an approval and a run, for rows and tests of exchange."""

from dataclasses import replace
from pathlib import Path

from scripts.benchmarks.release_site import ROLES, artifact, passed
from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.store import Store
from seatrial.serve.release import on_cryptography as keys
from seatrial.serve.release.approvals import Approvals, Subject
from seatrial.serve.release.record import Release
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.roles import load_roles


def stored(home: Path, name: str, data: bytes, parent: Artifact | None = None) -> Artifact:
    """Put an artifact with a graph and a file of weights; return it."""
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
        made_by=replace(artifact(1).made_by, parent=parent.digest if parent else None),
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
