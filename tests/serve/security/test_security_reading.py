"""Files that someone wrote to end the audit, or that are none: each is said to be unseen, and the others are judged."""

import os
from pathlib import Path

import pytest
import yaml

from seatrial.optimize.errors import MissingError
from seatrial.serve.security import reading
from seatrial.serve.security.audit import audit_folder
from seatrial.serve.security.finding import Audit
from tests.serve.security.test_security_gateways import GRPC, ROUTE
from tests.serve.security.test_security_proxies import SOUND
from tests.support.audited import audited

HOSTILE: dict[str, str | bytes] = {
    "laughs.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)),
    "merges.yaml": "a: &a {x: 1}\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in range(9)),
    "itself.yaml": "&a [*a]",
    "dashes.yaml": "- " * 200_000,
    "brackets.yaml": "[" * 100_000,
    "deep.json": "[" * 100_000,
    "deeper.json": '{"a":' * 500 + "1" + "}" * 500,
    "digits.yaml": "a: " + "1" * 100_000,
    "date.yaml": "a: 2026-99-99",
    "tag.yaml": "!!python/object/apply:os.system [true]",
    "key.yaml": "? [a]\n: 1",
    "bytes.yaml": b"\xff\xfe\xfa\xfb",
    "control.yaml": "a: \x00",
    "helm.yaml": "kind: Deployment\nmetadata: {{- include }}",
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_file_is_unseen_and_ends_nothing(tmp_path: Path, name: str) -> None:
    content = HOSTILE[name]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (tmp_path / "route.yaml").write_text(yaml.safe_dump(ROUTE))
    found = audit_folder(tmp_path, None)
    assert [line for line in found.unseen if name in line]
    assert found.looked


def test_what_is_no_regular_file_or_too_large_is_unseen(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "nginx.conf")
    with (tmp_path / "huge.yaml").open("wb") as stream:
        stream.truncate(100 << 20)
    found = audit_folder(tmp_path, None)
    assert len(found.unseen) == 5
    assert not found.findings
    with pytest.raises(MissingError):
        audit_folder(tmp_path / "folder.yaml", None)


def test_keys_that_stand_twice_and_documents_one_after_another(tmp_path: Path) -> None:
    text = yaml.safe_dump(ROUTE) + "metadata: {name: again}\n---\n" + yaml.safe_dump(GRPC)
    found = audit_folder_of(tmp_path, text)
    assert [(each.rule, each.found) for each in found.findings] == [
        ("malformed", "metadata occurs twice in one mapping")
    ]
    assert "2 Kubernetes documents" in found.looked


def audit_folder_of(folder: Path, text: str) -> Audit:
    (folder / "all.yaml").write_text(text)
    return audit_folder(folder, None)


def test_a_huge_number_is_quoted_shortly(tmp_path: Path) -> None:
    text = SOUND.replace("max_request_headers_kb: 8", "max_request_headers_kb: 0x" + "f" * 50_000)
    assert reading.told(16**50_000) == "a int too large to print"
    assert audited(tmp_path, text) == {"large-headers": "medium"}
