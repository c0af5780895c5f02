"""Inspect a whole store: every blob, record, index and note, as its readers would. Changes nothing."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .artifact import Artifact
from .inspection import Damage, DamageError, Inspection
from .layout import INDEX_LIMIT, StoreIndex, read_index
from .notes import damaged_notes, noted_artifacts
from .plain import digest_plain, read_plain
from .store import Store
from .store_folder import REPAIR, StoreFolder, reason

_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True, kw_only=True)
class Survey:
    """Every blob by its digest: sound, or damaged for a reason; of the damaged, the digest of what lies there."""

    sound: set[str] = field(default_factory=set)
    damaged: dict[str, Exception] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    def look(self, path: Path, digest: str) -> None:
        """Read one blob to its end and note what it is."""
        self.sound.discard(digest)
        self.damaged.pop(digest, None)
        self.held.pop(digest, None)
        try:
            if (found := digest_plain(path)) == digest:
                self.sound.add(digest)
                return
            self.held[digest] = found
            self.damaged[digest] = ValueError("its bytes were changed")
        except FileNotFoundError:
            pass
        except OSError as error:
            self.damaged[digest] = error


def survey(folder: StoreFolder) -> Survey:
    """Read every blob of the store."""
    found = Survey()
    for digest, path in blobs(folder):
        found.look(path, digest)
    return found


def blobs(folder: StoreFolder) -> Iterator[tuple[str, Path]]:
    """List all files under the name of a digest."""
    if folder.blobs.is_dir():
        for name in sorted(os.listdir(folder.blobs)):
            if _NAME.fullmatch(name):
                yield f"sha256:{name}", folder.blobs / name


def inspect(store: Store, known: Survey | None = None) -> Inspection:
    """Look at all of a store and of the notes beside it; `known` is what was just found of the blobs.

    Raises:
        MachineError: SEATRIAL_HOME is no folder.
    """
    folder = store.folder
    folder.check_home()
    damage = list(_frame(folder))
    index = StoreIndex()
    try:
        index = folder.read_index()
    except DamageError as error:
        if error.part == "index":
            damage.append(Damage.of(error))
    found = known or survey(folder)
    for digest in index.artifacts:
        damage += _of_artifact(store, index, digest, found)
    named = {each.where for each in damage}
    damage += (
        Damage(part="blob", what=f"a blob is damaged: {reason(why)}", where=str(folder.blob(digest)), next_step=REPAIR)
        for digest, why in found.damaged.items()
        if str(folder.blob(digest)) not in named
    )
    notes = list(damaged_notes(folder.cache))
    damage += (
        Damage(part="note", what=f"a note of the cache is damaged: {why}", where=str(path), next_step=REPAIR)
        for path, why in notes
    )
    counts = {
        "artifacts": len(index.artifacts),
        "blobs": len(found.sound) + len(found.damaged),
        "notes": sum(1 for _ in folder.cache.glob("*/*.json")),
    }
    return Inspection(counts=counts, damage=tuple(damage), remarks=tuple(_remarks(store, index)))


def _frame(folder: StoreFolder) -> Iterator[Damage]:
    """Folders, lock, the file that names the layout, and the index's second copy."""
    for path in folder.misplaced(cache=True):
        yield Damage(part="folder", what="this must be a folder", where=str(path), next_step=REPAIR)
    if os.path.lexists(folder.lock) and (why := unreadable(folder.lock)):
        yield Damage(part="lock", what=f"the lock cannot be used: {why}", where=str(folder.lock), next_step=REPAIR)
    first = either(folder.index)
    begun = (
        first is None or bool(first.entries) or os.path.lexists(folder.layout)
    )  # it is the last that a new store gets
    if begun and folder.used and not folder.layout_is_whole():
        what = "the file that names the layout is missing or damaged"
        yield Damage(part="oci-layout", what=what, where=str(folder.layout), next_step=REPAIR)
    if what := _second(folder):
        yield Damage(part="index", what=what, where=str(folder.second_index), next_step=REPAIR)


def unreadable(path: Path) -> str:
    """Return why a small plain file cannot be read; empty where it can."""
    try:
        read_plain(path, INDEX_LIMIT)
    except OSError as error:
        return reason(error)
    return ""


def _second(folder: StoreFolder) -> str:
    try:
        if not read_index(read_plain(folder.second_index, INDEX_LIMIT)).sealed:
            return "the index's second copy lacks the digest over its entries"
    except FileNotFoundError:
        first = either(folder.index)
        return "the index's second copy is missing" if first and first.sealed and first.entries else ""
    except (OSError, ValueError) as error:
        return f"the index's second copy is damaged: {reason(error)}"
    return ""


def either(path: Path) -> StoreIndex | None:
    """One copy of the index, or None where it cannot be read."""
    try:
        return read_index(read_plain(path, INDEX_LIMIT))
    except (OSError, ValueError):
        return None


def _of_artifact(store: Store, index: StoreIndex, digest: str, found: Survey) -> Iterator[Damage]:
    try:
        artifact = store.record(index, digest)
    except DamageError as error:
        yield Damage.of(error)
        return
    for file in missing_files(artifact, found):
        why = found.damaged.get(file, FileNotFoundError())
        name = next(each.path for each in artifact.files if each.digest == file)
        yield Damage.of(store.file_error(artifact, name, why))


def missing_files(artifact: Artifact, found: Survey) -> list[str]:
    """Digests of the artifact's files that are not sound."""
    return [digest for digest in dict.fromkeys(file.digest for file in artifact.files) if digest not in found.sound]


def incomplete(store: Store, index: StoreIndex, found: Survey) -> Mapping[str, str]:
    """Artifacts that cannot be had whole, with the name to call them by."""
    lacking = {}
    for digest in index.artifacts:
        try:
            artifact = store.record(index, digest)
        except DamageError:
            lacking[digest] = next(iter(index.tags(digest)), digest[:19])
            continue
        if missing_files(artifact, found):
            lacking[digest] = artifact.short
    return lacking


def _remarks(store: Store, index: StoreIndex) -> Iterator[str]:
    folder = store.folder
    if count := folder.leftovers():
        yield f"{count} staged files of running or killed writers: the next build removes those of killed ones"
    if index.entries and not index.sealed:
        yield "the index was written by an earlier version: the next build writes its second copy"
    first, second = either(folder.index), either(folder.second_index)
    if first is not None and second is not None and first != second:
        yield "a writer was killed between the index and its second copy: the next build writes both"
    held = set(index.artifacts)
    if stale := sum(1 for _, digest in noted_artifacts(folder.cache) if digest not in held):
        yield f"{stale} notes of the cache point to artifacts that are not in the store"
