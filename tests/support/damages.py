"""Ways to damage a stored file or folder, for tests and drills: each takes the path and leaves the damage there."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

Harm = Callable[[Path], None]
TRAVERSAL = "sha256:../../../../../../etc/passwd"
DEEP = 200_000


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) // 2] ^= 1
    _replace(path, bytes(data))


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def _text(text: str | bytes) -> Harm:
    return lambda path: _replace(path, text.encode() if isinstance(text, str) else text)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(to: str) -> Harm:
    def harm(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return harm


def _link_to_same(path: Path) -> None:
    outside = path.with_name(f"outside-{path.name}")
    path.rename(outside)
    path.symlink_to(outside.name)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("x")


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 42)


def _unreadable(path: Path) -> None:
    path.chmod(0)


def _wrong_types(path: Path) -> None:
    entry = {"digest": 5, "size": "x", "annotations": {"dev.seatrial.artifact.digest": "sha256:00"}}
    value = {"schemaVersion": 2, "manifests": [entry], "config": [], "layers": 7, "digest": {}, "agreements": 3}
    _replace(path, json.dumps(value).encode())


def _traversal(path: Path) -> None:
    notes = {"dev.seatrial.artifact.digest": TRAVERSAL, "org.opencontainers.image.ref.name": "best"}
    descriptor = {"digest": TRAVERSAL, "size": 9, "annotations": notes}
    value = {"schemaVersion": 2, "manifests": [descriptor], "config": descriptor, "layers": [descriptor]}
    _replace(path, json.dumps(value | {"digest": TRAVERSAL, "artifactType": "x"}).encode())


FILES: Mapping[str, Harm] = {
    "flipped": _flip,
    "truncated": lambda path: _replace(path, path.read_bytes()[: path.stat().st_size // 2]),
    "empty": _text(""),
    "deleted": lambda path: path.unlink(),
    "pipe": _fifo,
    "link to the same bytes": _link_to_same,
    "dangling link": _link("/nonexistent/file"),
    "link to /dev/zero": _link("/dev/zero"),
    "folder": _folder,
    "4 TiB": _huge,
    "null": _text("null"),
    "list": _text("[]"),
    "object": _text("{}"),
    "manifests null": _text('{"schemaVersion":2,"manifests":null}'),
    "no entries": _text('{"schemaVersion":2,"manifests":[]}'),
    "wrong types": _wrong_types,
    "traversal": _traversal,
    "not UTF-8": _text(b"\xff\xfe\x00{"),
    "deep": _text("[" * DEEP),
    "deep object": _text('{"a":' * DEEP),
    "infinite": _text('{"schemaVersion":2,"manifests":[1e999],"schema":NaN}'),
    "unreadable": _unreadable,
}
"""What may happen to a file."""


def _folder_as(harm: Harm) -> Harm:
    def done(path: Path) -> None:
        shutil.rmtree(path)
        path.write_bytes(b"")
        harm(path)

    return done


def _emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


FOLDERS: Mapping[str, Harm] = {
    "deleted": shutil.rmtree,
    "emptied": _emptied,
    "a file": _folder_as(lambda path: None),
    "a pipe": _folder_as(_fifo),
    "a dangling link": _folder_as(_link("/nonexistent/folder")),
    "a link to a file": _folder_as(_link("/etc/hostname")),
}
"""What may happen to a folder."""
