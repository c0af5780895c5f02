"""The artifact store: an OCI image layout on disk, written once, read back by digest.

Blobs lie under ``blobs/sha256``; one manifest per artifact; ``index.json`` lists the manifests under the artifact's own
digest and, where given, a tag. Anything that reads OCI layouts (skopeo, oras, crane) reads this one. Nothing here knows
what a stage is. Every byte handed out has been checked against its digest, and everything others may read was staged,
fsynced and renamed into place, so a kill at any moment leaves the store whole. What is damaged all the same is found
where it is read, and written anew where the same artifact is put again; `store_check` looks at all of it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import notes
from .artifact import Artifact, File, digest_bytes
from .errors import ConfigError, IntegrityError, MissingError
from .inspection import DamageError
from .layout import IndexEntry, StoreIndex, is_tag, manifest_bytes, read_manifest, read_record
from .plain import digest_plain, staging
from .plain import write_atomically as write_atomically
from .store_folder import REPAIR, StoreFolder, disk_errors, not_a_folder, reason

T = TypeVar("T")
OPENED = "opened"  # the cache's room of graphs beside their weights


class Store:
    """A write-once store of artifacts under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = StoreFolder(root)

    def put(self, artifact: Artifact, folder: Path, *, tag: str | None = None) -> Artifact:
        """Store an artifact whose files lie in `folder`; an existing one with the same digest is returned unchanged.

        What of it was damaged is written anew, and the damaged bytes are set aside.

        Raises:
            IntegrityError: a file in `folder` is not what the artifact says, or the index is damaged.
            MachineError: the disk refused.
        """
        with disk_errors(self.root), self.folder.locked():
            index = before = self.folder.read_index()
            for file in artifact.files:
                self._keep_file(folder / file.path, file)
            known = self._whole_record(index, artifact.digest)
            if known is None:
                index, known = self._add(index, artifact), artifact
            if tag is not None:
                index = _tagged(index, known.digest, tag)
            if index != before or not before.sealed:
                self.folder.write_index(index)
        return known

    def get(self, reference: str) -> Artifact:
        """The artifact of that tag, digest or unambiguous digest prefix (``scenes@12ab``, ``sha256:12ab``, ``12ab``).

        Raises:
            MissingError: none, or more than one, fits.
            IntegrityError: the stored record was changed.
        """
        index = self.folder.read_index()
        wanted = reference.rpartition("@")[2].removeprefix("sha256:").removesuffix("…")
        fits = {
            entry.artifact
            for entry in index.entries
            if entry.tag == reference
            or (len(wanted) >= 4 and entry.artifact.removeprefix("sha256:").startswith(wanted))
        }
        if len(fits) != 1:
            tags = index.tags()
            raise MissingError(
                f"{len(fits) or 'no'} artifact{'s' if len(fits) > 1 else ''} called {reference!r}",
                where=str(self.root),
                next_step="give more digits" if fits else f"build it first; tags here: {', '.join(tags) or 'none'}",
            )
        return self.record(index, fits.pop())

    def path(self, artifact: Artifact, name: str) -> Path:
        """One of the artifact's files, checked; read it, never write it.

        It is the blob, but for a graph with weights in other files: that lies beside them, under its own name.

        Raises:
            IntegrityError: the blob is missing or its bytes are not what the digest says.
        """
        if name.endswith(".onnx") and len(artifact.files) > 1:
            return self._beside(artifact) / name
        return self.checked_blob(artifact, name)

    def _beside(self, artifact: Artifact) -> Path:
        """A folder of the cache with copies of all the artifact's files under their names, each checked.

        Copies, for onnx refuses weights that are links.
        """
        folder = self.folder.cache / OPENED / artifact.digest.removeprefix("sha256:")
        with disk_errors(folder):
            for file in artifact.files:
                target = folder / file.path
                try:
                    if digest_plain(target, file.size) == file.digest:
                        continue
                except OSError:
                    pass
                blob = self.checked_blob(artifact, file.path)
                with staging(target) as staged:
                    shutil.copyfile(blob, staged)
        return folder

    def checked_blob(self, artifact: Artifact, name: str) -> Path:
        """Return where the bytes of one of the artifact's files lie, after a check of their digest.

        Raises:
            IntegrityError: the blob is missing or its bytes are not what the digest says.
        """
        file = artifact.file(name)
        blob = self.folder.blob(file.digest)
        self.folder.check_folders()
        try:
            if digest_plain(blob, file.size) != file.digest:
                raise ValueError("its bytes were changed")
        except (OSError, ValueError) as error:
            raise self.file_error(artifact, name, error) from error
        return blob

    def file_error(self, artifact: Artifact, name: str, why: Exception) -> DamageError:
        """Return the error for one of the artifact's files that is missing or damaged."""
        how = "is missing in the store" if isinstance(why, FileNotFoundError) else "is damaged in the store"
        again = self.again(artifact.name, artifact.made_by.recipe)
        return DamageError(
            f"{name} of {artifact.short} {how}: {reason(why)}",
            part="blob",
            where=str(self.folder.blob(artifact.file(name).digest)),
            next_step=REPAIR if isinstance(why, PermissionError) else again,
        )

    def again(self, name: str, recipe: str = "") -> str:
        """Return the instruction that rebuilds an artifact: the build of its recipe, where that is known."""
        known = notes.recipe_path(self.folder.cache, name, recipe)
        how = "build its recipe again" if known is None else f"run: seatrial build {known}"
        return f"{how} (the stage that made it runs again)"

    def materialize(self, artifact: Artifact, folder: Path) -> None:
        """Copy the artifact's checked files into `folder` under their own names."""
        with disk_errors(folder):
            for file in artifact.files:
                target = folder / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.checked_blob(artifact, file.path), target)

    def holds(self, artifact: Artifact) -> bool:
        """Return True if every byte of the artifact is present and matches its digest."""
        try:
            for file in artifact.files:
                self.checked_blob(artifact, file.path)
        except IntegrityError:
            return False
        return True

    def find(self, digest: str) -> Artifact | None:
        """The artifact of exactly that digest, or None; its files are not checked.

        Raises:
            IntegrityError: the index or the artifact's record is damaged.
        """
        index = self.folder.read_index()
        return None if index.entry(digest) is None else self.record(index, digest)

    def whole(self, digest: str) -> Artifact | None:
        """The artifact of that digest, checked to the last byte; None where it is to be made (anew).

        Raises:
            IntegrityError: the index is damaged, so that nothing can be said.
        """
        artifact = self._whole_record(self.folder.read_index(), digest)
        return artifact if artifact is not None and self.holds(artifact) else None

    def tag(self, artifact: Artifact, tag: str) -> None:
        """Let a name point at the artifact; a tag may move, a digest never does."""
        with disk_errors(self.root), self.folder.locked():
            before = self.folder.read_index()
            if (index := _tagged(before, artifact.digest, tag)) != before or not before.sealed:
                self.folder.write_index(index)

    def all(self) -> Iterator[Artifact]:
        """Every artifact, oldest first."""
        index = self.folder.read_index()
        for digest in index.artifacts:
            yield self.record(index, digest)

    def history(self, artifact: Artifact) -> list[Artifact]:
        """The chain of parents, from the artifact back to its source, or to the last one that is in the store.

        Raises:
            IntegrityError: a record of the chain is damaged.
        """
        index, chain = self.folder.read_index(), [artifact]
        while (parent := chain[-1].made_by.parent) is not None and index.entry(parent) is not None:
            if parent in {link.digest for link in chain}:
                raise IntegrityError(
                    f"{chain[-1].short} is its own ancestor", where=str(self.root), next_step=self.again(artifact.name)
                )
            chain.append(self.record(index, parent))
        return chain

    def remember(self, room: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep a small JSON note under a digest key (the build's cache); the last writer wins.

        Raises:
            IntegrityError: the cache, or its room, is no folder.
            MachineError: the disk refused.
        """
        path = notes.note_path(self.folder.cache, room, key)
        for folder in (path.parent.parent, path.parent):
            if not_a_folder(folder):
                raise DamageError(
                    "this part of the cache must be a folder", part="folder", where=str(folder), next_step=REPAIR
                )
        with disk_errors(path):
            self.folder.write(path, notes.note_bytes(room, key, value))

    def recall(self, room: str, key: str) -> dict[str, Any] | None:
        """The note under that key, or None where there is none that can be read."""
        return self.recall_as(room, key, dict)

    def recall_as(self, room: str, key: str, read: Callable[[dict[str, Any]], T]) -> T | None:
        """Return what `read` makes of the note, or None where there is none, or none that it can read."""
        return notes.recalled(self.folder.cache, room, key, read)

    def _keep_file(self, source: Path, file: File) -> None:
        blob = self.folder.blob(file.digest)
        if self._has(file.digest, file.size):
            return
        with staging(blob) as staged:
            shutil.copyfile(source, staged)
            if digest_plain(staged) != file.digest:
                raise IntegrityError(f"{source} changed while it was being stored", next_step="build again")
            if blob.exists() or blob.is_symlink():
                self.folder.set_aside(blob)

    def _keep_bytes(self, data: bytes) -> str:
        digest = digest_bytes(data)
        if not self._has(digest, len(data)):
            blob = self.folder.blob(digest)
            if blob.exists() or blob.is_symlink():
                self.folder.set_aside(blob)
            self.folder.write(blob, data)
        return digest

    def _has(self, digest: str, size: int) -> bool:
        try:
            return digest_plain(self.folder.blob(digest), size) == digest
        except OSError:
            return False

    def _add(self, index: StoreIndex, artifact: Artifact) -> StoreIndex:
        """Write an artifact's record and manifest; those that were there and are damaged are set aside."""
        record, manifest = manifest_bytes(artifact)
        self._keep_bytes(record)
        digest = self._keep_bytes(manifest)
        if (former := index.entry(artifact.digest)) is not None:
            self._retire(former.digest)
        return index.holding(IndexEntry(artifact=artifact.digest, digest=digest, size=len(manifest)))

    def _retire(self, manifest: str) -> None:
        for digest in (manifest, self._config_of(manifest)):
            if digest is not None and self.folder.blob(digest).is_file() and not self._is_record(digest):
                self.folder.set_aside(self.folder.blob(digest))

    def _config_of(self, manifest: str) -> str | None:
        try:
            return read_manifest(self.folder.read_record(manifest)).config
        except (OSError, ValueError):
            return None

    def _is_record(self, digest: str) -> bool:
        try:
            self.folder.read_record(digest)
        except (OSError, ValueError):
            return False
        return True

    def _whole_record(self, index: StoreIndex, digest: str) -> Artifact | None:
        try:
            return None if index.entry(digest) is None else self.record(index, digest)
        except IntegrityError:
            return None

    def record(self, index: StoreIndex, digest: str) -> Artifact:
        """The artifact of an index entry, its files not checked.

        Raises:
            DamageError: its manifest or its record is damaged.
        """
        entry = index.entry(digest)
        assert entry is not None
        try:
            manifest = read_manifest(self.folder.read_record(entry.digest))
            if manifest.artifact != digest:
                raise ValueError("it is the manifest of another artifact")
        except (OSError, ValueError) as error:
            raise self._record_error("manifest", index, digest, entry.digest, error) from error
        try:
            artifact = read_record(self.folder.read_record(manifest.config), digest)
            if manifest.layers != tuple((file.path, file.digest, file.size) for file in artifact.files):
                raise ValueError("its files differ from those of its manifest")
        except (OSError, ValueError, IntegrityError) as error:
            raise self._record_error("record", index, digest, manifest.config, error) from error
        return artifact

    def _record_error(self, part: str, index: StoreIndex, artifact: str, blob: str, error: Exception) -> DamageError:
        name = next(iter(index.tags(artifact)), artifact[:19])
        repairable = isinstance(error, PermissionError) or (part == "manifest" and self._record_is_left(artifact))
        return DamageError(
            f"the {part} of {name} is damaged in the store: {reason(error)}",
            part=part,
            where=str(self.folder.blob(blob)),
            next_step=REPAIR if repairable else self.again(name),
        )

    def _record_is_left(self, artifact: str) -> bool:
        """Return whether the record is there that the manifest of an artifact follows from."""
        return any(record.digest == artifact for record in self.folder.records())


def _tagged(index: StoreIndex, digest: str, tag: str) -> StoreIndex:
    if not is_tag(tag):
        raise ConfigError(f"invalid tag {tag!r}", next_step="use letters, digits, '.', '_', '-' and ':'")
    if index.entry(digest) is None:
        raise MissingError(
            f"{digest[:19]} is not in the store, and {tag!r} cannot point at it", next_step="store the artifact first"
        )
    return index.tagged(digest, tag)
