"""Signed folders: what ``model_signing sign key`` 1.1.1 signed is accepted, as is an approval; any change is named."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seatrial.optimize.store import Store
from seatrial.serve.release import on_cryptography as keys
from seatrial.serve.release.approval import PAYLOAD
from tests.support.commands import within
from tests.support.exchanged import released

GOLDEN = Path(__file__).parents[2] / "golden" / "model_signing"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "given")
    return tmp_path / "given"


def checked(folder: Path, bundle: str = "m.sig", key: str = "k.pub") -> tuple[int, Any]:
    done = within(
        "signed", str(folder / "model"), "--bundle", str(folder / bundle), "--key", str(folder / key), "--json"
    )
    return done.exit_code, json.loads(done.output) if done.exit_code in (0, 5) and "{" in done.output else done.output


def test_what_upstream_signed_is_accepted(folder: Path) -> None:
    code, said = checked(folder)
    assert (code, said["name"], said["files"], said["faults"]) == (0, "m", 2, [])


def linked(path: Path) -> None:
    shutil.move(path, path.parent.parent)
    path.symlink_to(Path("..") / path.name)


CHANGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "changed": (lambda model: (model / "a.bin").write_bytes(b"ho\n"), "a.bin", "it was changed"),
    "missing": (lambda model: (model / "sub" / "b.bin").unlink(), "sub/b.bin", "it is missing"),
    "extra": (lambda model: (model / "sub" / "c.bin").write_bytes(b""), "sub/c.bin", "it was not signed"),
    "extra link": (lambda model: (model / "c").symlink_to("a.bin"), "c", "it was not signed"),
    "extra folder that is a link": (lambda model: (model / "d").symlink_to("sub"), "d", "it was not signed"),
    "replaced by a link": (
        lambda model: linked(model / "a.bin"),
        "a.bin",
        "it cannot be read: a link",
    ),
    "swapped": (lambda model: shutil.copy(model / "a.bin", model / "sub" / "b.bin"), "sub/b.bin", "it was changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_that_differs_is_refused_with_the_file(folder: Path, name: str) -> None:
    change, path, what = CHANGES[name]
    change(folder / "model")
    code, said = checked(folder)
    assert code == 5
    assert [(each["path"], each["what"].startswith(what)) for each in said["faults"]] == [(path, True)]


def test_ignored_paths_do_not_count(folder: Path) -> None:
    (folder / "model" / ".git").mkdir()
    (folder / "model" / ".git" / "HEAD").write_text("x")
    shutil.copy(folder / "m.sig", folder / "model" / "m.sig")
    assert checked(folder, "model/m.sig")[0] == 0
    assert checked(folder)[0] == 5


def test_every_changed_byte_of_what_is_signed_is_found(folder: Path) -> None:
    bundle = json.loads((folder / "m.sig").read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for at in range(0, len(payload), 5):
        changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
        (folder / "m.sig").write_text(json.dumps(bundle))
        assert checked(folder)[0] == 5, at


def test_another_key_and_no_bundle_are_refused(folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    (folder / "other.pub").write_bytes(keys.public_bytes(private.public_key()))
    assert checked(folder, key="other.pub")[0] == 5
    for text in (b"", b"[]", b"{}", b'{"mediaType": 1}', b"[" * 5000):
        (folder / "m.sig").write_bytes(text)
        assert checked(folder)[0] == 5, text
    assert checked(folder, bundle="none")[0] == 2
    assert checked(folder, key="none")[0] == 2


def test_a_statement_that_fits_no_folder_is_refused(folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    (folder / "k.pub").write_bytes(keys.public_bytes(private.public_key()))
    bundle = json.loads((folder / "m.sig").read_bytes())
    whole = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    changes: list[tuple[Callable[[Any], object], int]] = [
        (lambda value: None, 0),
        (lambda value: value["predicate"]["resources"][0].update(name="../a.bin"), 5),
        (lambda value: value["predicate"]["resources"].append(value["predicate"]["resources"][0]), 5),
        (lambda value: value["predicate"]["serialization"].update(method="shards"), 2),
        (lambda value: value["subject"][0]["digest"].update(sha256="0" * 64), 5),
        (lambda value: value.update(predicateType="other"), 5),
        (lambda value: value.update(subject=[]), 5),
    ]
    for change, code in changes:
        value = json.loads(json.dumps(whole))
        change(value)
        bundle["dsseEnvelope"] = keys.envelope(private, PAYLOAD, json.dumps(value).encode())
        (folder / "m.sig").write_text(json.dumps(bundle))
        assert checked(folder)[0] == code


def test_an_approval_signs_the_files_of_its_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "site" / "home"
    monkeypatch.setenv("SEATRIAL_HOME", str(home))
    release = released(home)
    Store(home / "store").materialize(Store(home / "store").get(release.digest), tmp_path / "model")
    shutil.copy(home / "approvals" / "net" / "2" / "owner-1.json", tmp_path / "m.sig")
    shutil.copy(home.parent / "anna.pub", tmp_path / "k.pub")
    assert checked(tmp_path)[0] == 0
    (tmp_path / "model" / "model.onnx").write_bytes(b"other")
    assert checked(tmp_path)[0] == 5


def test_the_golden_key_is_of_the_kind_that_upstream_takes() -> None:
    key = serialization.load_pem_public_key((GOLDEN / "k.pub").read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
