"""A home with releases, roles, approvals and a trail, on which the rows of `release` act."""

from dataclasses import dataclass
from pathlib import Path

from seatrial.bench.verdict import EvaluationSet, Judged, Verdict
from seatrial.optimize.artifact import Artifact, File, Provenance
from seatrial.serve.release import on_cryptography as keys
from seatrial.serve.release.approvals import Approvals, Subject
from seatrial.serve.release.registry import Registry
from seatrial.serve.release.roles import load_roles
from seatrial.serve.release.trail_file import TrailFile

ROLES = """
schema = 1
[roles.owner]
needs = 1
members = { anna = "anna.pub" }
[roles.risk]
needs = 1
days = 30
members = { bob = "bob.pub", cora = "cora.pub" }
[environments.prod]
repositories = ["prod"]
protected = true
roles = ["owner", "risk"]
"""
MEMBERS = {"anna": "owner", "bob": "risk", "cora": "risk", "eve": ""}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A home under `root` with keys of four people, one of whom may approve nothing."""

    root: Path

    @property
    def home(self) -> Path:
        """SEATRIAL_HOME."""
        return self.root / "home"

    @property
    def registry(self) -> Registry:
        """Return its registry."""
        return Registry(self.home / "releases")

    @property
    def approvals(self) -> Approvals:
        """Return its approvals, by the file of roles as it is now."""
        return Approvals(self.home, load_roles(self.root / "roles.toml"), self.root)

    @property
    def trail(self) -> TrailFile:
        """Return its trail."""
        return TrailFile(self.home / "trail")

    def subject(self, version: int) -> Subject:
        """Return a release with its artifact."""
        release = self.registry.get(f"net@{version}")
        return Subject(release=release, artifact=artifact(version))

    def key(self, member: str) -> Path:
        """Return a member's private key."""
        return self.root / f"{member}.pem"


def artifact(version: int) -> Artifact:
    """Return an artifact that no store holds, with two files."""
    made = Provenance(
        stage="export",
        parent=None,
        config={},
        recipe="",
        samples=None,
        seed=version,
        environment={},
        at="2026-12-01T00:00:00+00:00",
    )
    files = tuple(
        File(path=name, digest=f"sha256:{number * 16 + version:064x}", size=9)
        for number, name in enumerate(("model.onnx", "model.bin"), start=1)
    )
    return Artifact(name="net", format="onnx", files=files, inputs=(), outputs=(), requires={}, made_by=made)


def built(root: Path, *, releases: int) -> Site:
    """Make a home with so many releases of one name."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "roles.toml").write_text(ROLES)
    for member in MEMBERS:
        keys.new_key(root / f"{member}.pem")
    site = Site(root=root)
    for version in range(1, releases + 1):
        site.registry.register("net", artifact(version), passed(artifact(version)), run=root / "run")
    return site


def passed(judged: Artifact) -> Verdict:
    """Return the verdict that lets an artifact be registered."""
    return Verdict(
        outcome="PASS",
        findings=(),
        reasons=("measured",),
        base=Judged(name="base", digest="sha256:a"),
        candidate=Judged(name="candidate", digest=judged.digest),
        pairs=6,
        confidence=0.9,
        budget="sha256:b",
        samples=EvaluationSet(count=0, digest=""),
        at="2026-12-01T00:00:00+00:00",
    )
