"""Approvals: k of n in each role, signed, in the trail; changed, removed, expired and withdrawn ones do not count."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.serve.errors import UnapprovedError
from seatrial.serve.release import on_cryptography as keys
from seatrial.serve.release.approvals import Approvals, Subject
from seatrial.serve.release.guarded import check_approved, check_unprotected
from seatrial.serve.release.record import Release
from seatrial.serve.release.roles import Environment, Roles, load_roles
from tests.support.made_by import MADE_BY

ARTIFACT = Artifact(
    name="net",
    format="onnx",
    files=(
        File(path="model.onnx", digest="sha256:" + "1" * 64, size=3),
        File(path="model.bin", digest="sha256:" + "2" * 64, size=4),
    ),
    inputs=(),
    outputs=(),
    requires={},
    made_by=MADE_BY,
)
ROLES = """
schema = 1
[roles.owner]
needs = 1
days = 30
contact = ["@ml"]
[roles.owner.members]
anna = "anna.pub"
[roles.risk]
needs = 2
contact = ["@risk", "@audit"]
[roles.risk.members]
bob = "bob.pub"
cora = "cora.pub"
dan = "dan.pub"
[environments.prod]
repositories = ["prod"]
protected = true
roles = ["owner", "risk"]
[environments.dev]
repositories = ["dev"]
[codeowners]
"serve/criteria/*" = ["owner", "risk"]
"""


def released(version: int = 1) -> Release:
    return Release(name="net", version=version, digest=ARTIFACT.digest, verdict={}, run="run", at="2026", previous="")


@dataclass
class Site:
    """A home with roles and a key for each member."""

    home: Path
    subject: Subject

    @property
    def roles(self) -> Roles:
        return load_roles(self.home / "roles.toml")

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.home, self.roles, self.home)

    @property
    def prod(self) -> Environment:
        return self.roles.environments["prod"]

    def approve(self, member: str, role: str, **options: Any) -> Path:
        return self.approvals.approve(self.subject, role=role, key=self.home / f"{member}.pem", **options)[1]

    def check(self) -> None:
        self.approvals.check(self.subject, "prod", self.prod)

    def all(self) -> list[Path]:
        return [self.approve("anna", "owner"), self.approve("bob", "risk"), self.approve("cora", "risk")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "roles.toml").write_text(ROLES)
    for member in ("anna", "bob", "cora", "dan", "eve"):
        keys.new_key(tmp_path / f"{member}.pem")
    return Site(home=tmp_path, subject=Subject(release=released(), artifact=ARTIFACT))


def test_a_release_is_placed_once_every_role_has_enough(site: Site) -> None:
    for member, role, short in (("anna", "owner", "risk 0 of 2"), ("bob", "risk", "risk 1 of 2")):
        site.approve(member, role)
        with pytest.raises(UnapprovedError, match=short):
            site.check()
    site.approve("cora", "risk")
    site.check()
    assert [each.counted for each in site.approvals.standings(site.subject, site.prod)] == [
        ("anna",),
        ("bob", "cora"),
    ]
    assert site.approvals.trail.verify().entries == 3
    assert site.approvals.trail.verify().damage == ()


def test_an_approval_is_of_one_release_only(site: Site) -> None:
    site.all()
    again = Subject(release=released(2), artifact=ARTIFACT)
    with pytest.raises(UnapprovedError, match="owner 0 of 1"):
        site.approvals.check(again, "prod", site.prod)
    other = replace(ARTIFACT, files=ARTIFACT.files[:1])
    with pytest.raises(IntegrityError, match="other files"):
        site.approvals.check(Subject(release=site.subject.release, artifact=other), "prod", site.prod)


def test_who_may_not_approve_is_refused_before_anything_is_written(site: Site) -> None:
    with pytest.raises(ConfigError, match="no role 'boss'"):
        site.approve("anna", "boss")
    with pytest.raises(ConfigError, match="of no member of the role owner"):
        site.approve("eve", "owner")
    with pytest.raises(MissingError, match="no such key"):
        site.approve("nobody", "owner")
    (site.home / "anna.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="other users can read"):
        site.approve("anna", "owner")
    (site.home / "bob.pem").write_text("no key")
    with pytest.raises(ConfigError, match="not a private key"):
        site.approve("bob", "risk")
    assert not list(site.approvals.root.rglob("*.json"))
    assert site.approvals.trail.verify().entries == 0


def test_one_key_counts_once_and_in_one_role(site: Site) -> None:
    text = ROLES.replace('bob = "bob.pub"', 'bob = "bob.pub"\nanna = "anna.pub"')
    (site.home / "roles.toml").write_text(text)
    site.approve("bob", "risk")
    with pytest.raises(ConfigError, match="has approved net@1 already"):
        site.approve("bob", "risk")
    site.approve("anna", "owner")
    with pytest.raises(ConfigError, match="no key counts for two roles"):
        site.approve("anna", "risk")


def test_withdrawn_expired_revoked_and_past_members_do_not_count(site: Site) -> None:
    site.all()
    site.approve("cora", "risk", withdraw=True)
    with pytest.raises(UnapprovedError, match="cora: withdrawn on"):
        site.check()
    with pytest.raises(ConfigError, match="has not approved"):
        site.approve("cora", "risk", withdraw=True)
    site.approve("cora", "risk")
    site.check()
    key = keys.fingerprint(keys.public_key(site.home / "bob.pub"))
    (site.home / "roles.toml").write_text(ROLES.replace("schema = 1", f'schema = 1\nrevoked = ["{key}"]'))
    with pytest.raises(UnapprovedError, match="bob: its key is revoked"):
        site.check()
    with pytest.raises(ConfigError, match="this key is revoked"):
        site.approve("bob", "risk")


def test_an_approval_expires(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.all()

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=31)

    monkeypatch.setattr("seatrial.serve.release.approvals.datetime", Later)
    with pytest.raises(UnapprovedError, match="anna: expired on"):
        site.check()
    site.approve("anna", "owner")


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.slow
def test_every_changed_byte_of_an_approval_is_found(site: Site, which: int) -> None:
    path = site.all()[which]
    whole = path.read_bytes()
    path.chmod(0o644)
    for at in range(which, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IntegrityError) as caught:
            site.approvals.read(site.subject)
        assert caught.value.where == f"{path}:1"
    path.write_bytes(whole)
    site.check()


ATTACKS: dict[str, Callable[[list[Path]], object]] = {
    "removed": lambda paths: paths[0].unlink(),
    "replaced by another": lambda paths: paths[0].replace(paths[1]),
    "moved to another release": lambda paths: paths[0].rename(_made(paths[0].parent.with_name("2")) / paths[0].name),
}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_approval_that_was_removed_is_missed(site: Site, attack: str) -> None:
    ATTACKS[attack](site.all())
    with pytest.raises(IntegrityError, match="files are missing"):
        site.check()


def test_a_withdrawal_cannot_be_undone_by_removing_it(site: Site) -> None:
    site.all()
    site.approve("bob", "risk", withdraw=True).unlink()
    with pytest.raises(IntegrityError, match="files are missing"):
        site.check()


def test_an_approval_that_a_kill_kept_from_the_trail_is_entered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Approvals, "_enter", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            site.approve("anna", "owner")
    assert site.approvals.trail.verify().entries == 0
    with pytest.raises(UnapprovedError, match="risk 0 of 2"):
        site.check()
    assert [each.event for each in site.approvals.trail.entries()] == ["approved"]


def test_a_protected_repository_takes_approved_releases_only(site: Site) -> None:
    options: dict[str, Any] = {"roles": site.home / "roles.toml", "home": site.home}
    prod, dev = site.home / "prod", site.home / "dev"
    assert check_approved(dev, None, ARTIFACT, **options) == "dev"
    assert check_approved(site.home / "other", None, ARTIFACT, **options) == ""
    with pytest.raises(UnapprovedError, match="only approved releases"):
        check_approved(prod, None, ARTIFACT, **options)
    with pytest.raises(UnapprovedError, match="owner 0 of 1"):
        check_approved(prod, site.subject.release, ARTIFACT, **options)
    with pytest.raises(ConfigError, match="could not have been approved yet"):
        check_unprotected(prod, site.home / "roles.toml")
    check_unprotected(dev, site.home / "roles.toml")
    site.all()
    assert check_approved(prod, site.subject.release, ARTIFACT, **options) == "prod"


@pytest.mark.parametrize(
    ("was", "is_", "said"),
    [
        ("needs = 2", "needs = 4", "4 approvals are needed, but the role has 3"),
        ('roles = ["owner", "risk"]\n', 'roles = ["boss"]\n', "no role 'boss'"),
        ('roles = ["owner", "risk"]\n', "", "names no role"),
        ("schema = 1", "schema = 9", "schema 9"),
        ("[roles.owner]", '[roles."../x"]', "role"),
        ("needs = 1", "neds = 1", "neds"),
    ],
)
def test_wrong_files_of_roles_are_refused(site: Site, was: str, is_: str, said: str) -> None:
    (site.home / "roles.toml").write_text(ROLES.replace(was, is_, 1))
    with pytest.raises(ConfigError, match=said):
        load_roles(site.home / "roles.toml")


def test_codeowners_are_the_contacts_of_the_roles(site: Site) -> None:
    assert site.roles.codeowners_text() == "serve/criteria/* @ml @risk @audit\n"


def test_the_bundle_names_each_file_of_the_artifact(site: Site) -> None:
    import base64

    value = json.loads(site.approve("anna", "owner", reason="fits the criteria").read_bytes())
    signed = json.loads(base64.b64decode(value["dsseEnvelope"]["payload"]))
    names = {each["name"]: each["digest"] for each in signed["predicate"]["resources"]}
    assert names == {"model.onnx": "1" * 64, "model.bin": "2" * 64}
    assert signed["predicate"]["seatrial"]["reason"] == "fits the criteria"
    assert datetime.fromisoformat(signed["predicate"]["seatrial"]["at"]) <= datetime.now(UTC)
