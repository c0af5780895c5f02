"""The artifact store: an OCI image layout on disk, written once, read back by digest.

Blobs lie under ``blobs/sha256``; one manifest per artifact; ``index.json`` lists the manifests under the artifact's own
digest and, where given, a tag. Anything that reads OCI layouts (skopeo, oras, crane) reads this one. Nothing here knows
what a stage is. Every byte handed out has been checked against its digest, and everything others may read was staged,
fsynced and renamed into place, so a kill at any moment leaves the store whole.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from .artifact import Artifact, File, canonical, digest_bytes, digest_file
from .errors import ConfigError, IntegrityError, MachineError, MissingError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_ARTIFACT = "application/vnd.seatrial.artifact.v1"
_CONFIG = "application/vnd.seatrial.artifact.config.v1+json"
_LAYER = "application/octet-stream"
_TITLE = "org.opencontainers.image.title"
_TAG = "org.opencontainers.image.ref.name"
_DIGEST = "dev.seatrial.artifact.digest"


class Store:
    """A write-once store of artifacts under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"

    def put(self, artifact: Artifact, folder: Path, *, tag: str | None = None) -> Artifact:
        """Keep an artifact whose files lie in `folder`; the one that is already there wins, and is returned.

        Raises:
            IntegrityError: a file in `folder` is not what the artifact says.
            MachineError: the disk refused.
        """
        with _disk_errors(self.root), self._lock():
            for file in artifact.files:
                self._keep_file(folder / file.path, file)
            known = self._find(artifact.digest)
            if known is None:
                self._add(artifact)
                known = artifact
            if tag is not None:
                self._tag(known.digest, tag)
        return known

    def get(self, reference: str) -> Artifact:
        """The artifact of that tag, digest or unambiguous digest prefix (``scenes@12ab``, ``sha256:12ab``, ``12ab``).

        Raises:
            MissingError: none, or more than one, fits.
            IntegrityError: the stored record was changed.
        """
        entries = self._entries()
        wanted = reference.rpartition("@")[2].removeprefix("sha256:").removesuffix("…")
        fits = {
            entry["annotations"][_DIGEST]
            for entry in entries
            if entry["annotations"].get(_TAG) == reference
            or (len(wanted) >= 4 and entry["annotations"][_DIGEST].removeprefix("sha256:").startswith(wanted))
        }
        if len(fits) != 1:
            tags = sorted({entry["annotations"][_TAG] for entry in entries if _TAG in entry["annotations"]})
            raise MissingError(
                f"{len(fits) or 'no'} artifact{'s' if len(fits) > 1 else ''} called {reference!r}",
                where=str(self.root),
                next_step="give more digits" if fits else f"build it first; tags here: {', '.join(tags) or 'none'}",
            )
        found = self._find(fits.pop())
        if found is None:
            raise IntegrityError(
                f"the record of {reference!r} is gone from the store", where=str(self.root), next_step="build again"
            )
        return found

    def path(self, artifact: Artifact, name: str) -> Path:
        """The checked blob of one of the artifact's files; read it, never write it.

        Raises:
            IntegrityError: the blob is missing or its bytes are not what the digest says.
        """
        file = artifact.file(name)
        blob = self._blob(file.digest)
        if not blob.is_file() or digest_file(blob) != file.digest:
            raise IntegrityError(
                f"{name} of {artifact.short} is {'damaged' if blob.exists() else 'missing'} in the store",
                where=str(blob),
                next_step="remove that file and build again: the stage that made it runs anew",
            )
        return blob

    def materialize(self, artifact: Artifact, folder: Path) -> None:
        """Copy the artifact's checked files into `folder` under their own names."""
        with _disk_errors(folder):
            for file in artifact.files:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path(artifact, file.path), target)

    def holds(self, artifact: Artifact) -> bool:
        """Whether every byte of the artifact is there and is what it should be."""
        try:
            for file in artifact.files:
                self.path(artifact, file.path)
        except IntegrityError:
            return False
        return True

    def find(self, digest: str) -> Artifact | None:
        """The artifact of exactly that digest, or None; its files are not checked."""
        return self._find(digest)

    def tag(self, artifact: Artifact, tag: str) -> None:
        """Let a name point at the artifact; a tag may move, a digest never does."""
        with _disk_errors(self.root), self._lock():
            self._tag(artifact.digest, tag)

    def all(self) -> Iterator[Artifact]:
        """Every artifact, oldest first."""
        for digest in dict.fromkeys(entry["annotations"][_DIGEST] for entry in self._entries()):
            if (artifact := self._find(digest)) is not None:
                yield artifact

    def history(self, artifact: Artifact) -> list[Artifact]:
        """The chain of parents, from the artifact back to its source."""
        chain = [artifact]
        while chain[-1].made_by.parent is not None:
            parent = self._find(chain[-1].made_by.parent)
            if parent is None:
                break
            chain.append(parent)
        return chain

    def remember(self, room: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep a small JSON note under a digest key (the build's cache); the last writer wins."""
        path = self._note(room, key)
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, canonical(value))

    def recall(self, room: str, key: str) -> dict[str, Any] | None:
        """The note under that key, or None where there is none that can be read."""
        try:
            value = json.loads(self._note(room, key).read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def _note(self, room: str, key: str) -> Path:
        return self.root.parent / "cache" / room / f"{key.removeprefix('sha256:')}.json"

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _keep_file(self, source: Path, file: File) -> None:
        blob = self._blob(file.digest)
        if blob.exists() and digest_file(blob) == file.digest:
            return
        staged = _staged(blob)
        shutil.copyfile(source, staged)
        if digest_file(staged) != file.digest:
            staged.unlink()
            raise IntegrityError(f"{source} changed while it was being stored", next_step="build again")
        _settle(staged, blob)

    def _keep_bytes(self, data: bytes) -> dict[str, Any]:
        digest = digest_bytes(data)
        if not self._blob(digest).exists():
            write_atomically(self._blob(digest), data)
        return {"digest": digest, "size": len(data)}

    def _add(self, artifact: Artifact) -> None:
        config = self._keep_bytes(canonical(artifact.to_json()))
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": _ARTIFACT,
            "config": {"mediaType": _CONFIG, **config},
            "layers": [
                {"mediaType": _LAYER, "digest": file.digest, "size": file.size, "annotations": {_TITLE: file.path}}
                for file in artifact.files
            ],
            "annotations": {_DIGEST: artifact.digest, _TITLE: artifact.name},
        }
        descriptor = self._keep_bytes(canonical(manifest))
        entry = {
            "mediaType": _MANIFEST,
            "artifactType": _ARTIFACT,
            **descriptor,
            "annotations": {_DIGEST: artifact.digest},
        }
        self._write_index([*self._entries(), entry])

    def _tag(self, digest: str, tag: str) -> None:
        if not tag or "@" in tag or tag.startswith("sha256:"):
            raise ConfigError(f"not a legal tag: {tag!r}", next_step="use letters, digits, '.', '_', '-' and ':'")
        untagged = next(entry for entry in self._entries() if entry["annotations"] == {_DIGEST: digest})
        others = [entry for entry in self._entries() if entry["annotations"].get(_TAG) != tag]
        self._write_index([*others, untagged | {"annotations": {_DIGEST: digest, _TAG: tag}}])

    def _find(self, digest: str) -> Artifact | None:
        entry = next((entry for entry in self._entries() if entry["annotations"][_DIGEST] == digest), None)
        if entry is None:
            return None
        manifest = json.loads(self._read(entry["digest"]))
        artifact = Artifact.from_json(json.loads(self._read(manifest["config"]["digest"])))
        if artifact.digest != digest:
            raise IntegrityError(f"the record of {digest} was changed", where=str(self.root), next_step="build again")
        return artifact

    def _read(self, digest: str) -> bytes:
        try:
            data = self._blob(digest).read_bytes()
        except OSError as error:
            raise IntegrityError(
                "a record is missing from the store", where=str(self._blob(digest)), next_step="build again"
            ) from error
        if digest_bytes(data) != digest:
            raise IntegrityError(
                "a record in the store was changed", where=str(self._blob(digest)), next_step="build again"
            )
        return data

    def _entries(self) -> list[dict[str, Any]]:
        path = self.root / "index.json"
        try:
            index = json.loads(path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise IntegrityError(
                f"the store's index cannot be read: {error}", where=str(path), next_step="restore the file"
            ) from error
        return [entry for entry in index["manifests"] if _DIGEST in entry.get("annotations", {})]

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        layout = self.root / "oci-layout"
        if not layout.exists():
            write_atomically(layout, canonical({"imageLayoutVersion": "1.0.0"}))
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
        write_atomically(self.root / "index.json", canonical(index))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._blobs.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".lock"):
            yield


def write_atomically(path: Path, data: bytes) -> None:
    """Stage beside `path`, fsync, rename: a reader sees the old bytes or the new ones, never a part."""
    staged = _staged(path)
    staged.write_bytes(data)
    _settle(staged, path)


def _staged(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".staged-", dir=path.parent)
    os.close(handle)
    return Path(name)


def _settle(staged: Path, target: Path) -> None:
    with staged.open("rb") as stream:
        os.fsync(stream.fileno())
    staged.chmod(0o644)
    staged.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _disk_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"cannot write: {error.strerror or error}", where=str(where), next_step="free space or set SEATRIAL_HOME"
        ) from error
