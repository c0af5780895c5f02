"""Repair of a store: restores what can be restored without loss, and sets the rest aside, so that a build makes it.

Every step is one rename or one file written whole, and everything is decided anew from what lies there: a repair that
was killed is completed by the next one. Nothing is deleted but staged files of dead writers and notes of the cache that
point to nothing.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .artifact import Artifact, digest_bytes
from .inspection import DamageError, Inspection
from .layout import (
    INDEX_LIMIT,
    LAYOUT,
    IndexEntry,
    StoreIndex,
    is_tag,
    manifest_bytes,
    read_entry,
    read_manifest,
)
from .notes import damaged_notes, noted_artifacts
from .plain import digest_plain, is_plain, parse_json, read_plain, staging
from .store import Store
from .store_check import Survey, blobs, either, incomplete, inspect, survey, unreadable
from .store_folder import StoreFolder, disk_errors


def repair(store: Store, *, forget: bool = False) -> Inspection:
    """Repair what can be, under the store's lock, and inspect what is left.

    With `forget`, artifacts that stay incomplete are taken out of the index, and their records set aside.

    Raises:
        MachineError: the disk refused; what was done until then stays done.
    """
    folder = store.folder
    folder.check_home()
    if not os.path.lexists(folder.root) and not os.path.lexists(folder.cache):
        return inspect(store)
    with disk_errors(folder.root):
        done = list(_folders(folder))
        with folder.locked(begin=False):
            if count := folder.sweep():
                done.append(f"{count} staged files of killed writers removed")
            found = survey(folder)
            done += _blobs(folder, found)
            done += _index(folder, found)
            done += _layout(folder)
            if forget:
                done += _forgotten(store, found)
            done += _notes(store)
    return replace(inspect(store, found), repaired=tuple(done))


def _folders(folder: StoreFolder) -> Iterator[str]:
    while misplaced := folder.misplaced(cache=True):
        yield _aside(folder, misplaced[0], "no folder")
    if os.path.lexists(folder.lock):
        _readable(folder.lock)
        if unreadable(folder.lock):
            yield _aside(folder, folder.lock, "not a regular file")


def _aside(folder: StoreFolder, path: Path, why: str) -> str:
    return f"{path}: {why}; moved to {folder.set_aside(path)}"


def _readable(path: Path) -> bool:
    """Give the owner of a plain file the right to read it back, where it was taken."""
    if not is_plain(path) or os.access(path, os.R_OK):
        return False
    with suppress(OSError):
        path.chmod(0o644)
        return True
    return False


def _blobs(folder: StoreFolder, found: Survey) -> Iterator[str]:
    """Damaged blobs: made readable, copied from where a link points, or set aside; then put back where they belong."""
    aside: dict[str, Path] = {}
    for digest, path in blobs(folder):
        if digest in found.damaged and _readable(path):
            found.look(path, digest)
            yield f"{path}: made readable"
        if digest not in found.damaged:
            continue
        if _link_to_same(path, digest):
            with staging(path) as staged:
                shutil.copyfile(path, staged)
            found.look(path, digest)
            yield f"{path}: a link to the same bytes; replaced by them"
            continue
        held, target = found.held.get(digest), folder.set_aside(path)
        if held is not None:
            aside[held] = target
        found.look(path, digest)
        yield f"{path}: damaged; moved to {target}"
    while strays := [digest for digest in _referenced(folder) if digest in aside and digest not in found.sound]:
        for digest in strays:
            with staging(folder.blob(digest)) as staged:
                shutil.copyfile(aside[digest], staged)
            found.look(folder.blob(digest), digest)
            yield f"{folder.blob(digest)}: moved back, it was stored under another digest"


def _referenced(folder: StoreFolder) -> set[str]:
    """Digests that either copy of the index leads to."""
    copies = (either(folder.index), either(folder.second_index))
    found = {entry.digest for copy in copies if copy is not None for entry in copy.entries}
    for manifest in sorted(found):
        with suppress(OSError, ValueError):
            read = read_manifest(folder.read_record(manifest))
            found |= {read.config, *(digest for _, digest, _ in read.layers)}
    return found


def _link_to_same(path: Path, digest: str) -> bool:
    with suppress(OSError):
        if path.is_symlink() and stat.S_ISREG(path.stat().st_mode):
            return digest_plain(path.resolve()) == digest
    return False


def _index(folder: StoreFolder, found: Survey) -> Iterator[str]:
    """Choose the better of the two copies, or make the index anew; missing manifests follow from the records."""
    for path in (folder.index, folder.second_index):
        if _readable(path):
            yield f"{path}: made readable"
    first, second = either(folder.index), either(folder.second_index)
    if first is not None and not first.sealed and (os.path.lexists(folder.second_index) or not first.entries):
        first = None
    if second is not None and not second.sealed:
        second = None
    records = _Records(folder, found)
    for copy in (first, second):
        yield from records.restore([entry.digest for entry in copy.entries] if copy is not None else [])
    if first is None and second is None:
        if not folder.used and not os.path.lexists(folder.index):
            return
        yield from _anew(folder, records)
        return
    copies = [copy for copy in (first, second) if copy is not None]
    best = max(copies, key=lambda copy: sum(entry.digest in found.sound for entry in copy.entries))
    data = best.to_bytes()
    for path, copy in ((folder.second_index, second), (folder.index, first)):
        if copy is not None and copy.sealed and copy == best:
            continue
        if copy is None and os.path.lexists(path):
            yield _aside(folder, path, "damaged")
        folder.write(path, data)
        yield f"{path}: written from {'itself' if copy == best else 'the other copy'}"


def _anew(folder: StoreFolder, records: "_Records") -> Iterator[str]:
    """The index from the records alone, oldest first, with the tags that can still be read."""
    whole = records.artifacts()
    tags = _readable_tags(folder)
    index = StoreIndex()
    for digest, artifact in sorted(whole.items(), key=lambda item: item[1].made_by.at):
        _, manifest = manifest_bytes(artifact)
        yield from records.restore([digest_bytes(manifest)])
        index = index.holding(IndexEntry(artifact=digest, digest=digest_bytes(manifest), size=len(manifest)))
    for tag, digest in tags.items():
        if digest in whole:
            index = index.tagged(digest, tag)
    for path in (folder.index, folder.second_index):
        if os.path.lexists(path):
            yield _aside(folder, path, "damaged")
        folder.write(path, index.to_bytes())
    kept = ", ".join(index.tags()) or "none"
    yield (
        f"{folder.index}: rebuilt from {len(whole)} records; tags that could be read: {kept}; "
        "building a recipe again sets its own"
    )


def _readable_tags(folder: StoreFolder) -> dict[str, str]:
    """Tags of a damaged index: of every entry that is one, the second copy's last."""
    found: dict[str, str] = {}
    for path in (folder.index, folder.second_index):
        with suppress(OSError, ValueError, AttributeError, TypeError):
            value: Any = parse_json(read_plain(path, INDEX_LIMIT))
            for each in value["manifests"]:
                with suppress(ValueError):
                    entry = read_entry(each)
                    if is_tag(entry.tag):
                        found[entry.tag] = entry.artifact
    return found


class _Records:
    """The artifacts' records that are sound, read once where they are needed."""

    def __init__(self, folder: StoreFolder, found: Survey) -> None:
        self._folder = folder
        self._found = found
        self._read: dict[str, Artifact] | None = None

    def artifacts(self) -> dict[str, Artifact]:
        """By the artifact's digest; of several records the one that a manifest names, else the newest."""
        ranked = sorted(self._all().items(), key=lambda item: (item[0] in self._found.sound, item[1].made_by.at))
        return {artifact.digest: artifact for _, artifact in ranked}

    def restore(self, manifests: list[str]) -> Iterator[str]:
        """Write those manifests that are missing and follow from a record."""
        for digest in manifests:
            if digest not in self._found.sound and (artifact := self._all().get(digest)) is not None:
                path = self._folder.blob(digest)
                self._folder.write(path, manifest_bytes(artifact)[1])
                self._found.look(path, digest)
                yield f"{path}: the manifest of {artifact.short}, rebuilt from its record"

    def _all(self) -> dict[str, Artifact]:
        """By the digest of the manifest that follows from each record."""
        if self._read is None:
            self._read = {digest_bytes(manifest_bytes(each)[1]): each for each in self._folder.records()}
        return self._read


def _layout(folder: StoreFolder) -> Iterator[str]:
    if not folder.used:
        return
    _readable(folder.layout)
    if not folder.layout_is_whole():
        if os.path.lexists(folder.layout):
            yield _aside(folder, folder.layout, "damaged")
        folder.write(folder.layout, LAYOUT)
        yield f"{folder.layout}: written"


def _forgotten(store: Store, found: Survey) -> Iterator[str]:
    """Take what stays incomplete out of the index, then set its records aside."""
    folder = store.folder
    index = folder.read_index()
    lacking = incomplete(store, index, found)
    if not lacking:
        return
    folder.write_index(index.without(tuple(lacking)))
    for digest, name in lacking.items():
        yield f"{name}: incomplete; taken out of the index"
        entry = index.entry(digest)
        for record in _records_of(folder, entry.digest if entry is not None else ""):
            if record in found.sound:
                yield _aside(folder, folder.blob(record), f"a record of {name}")
                found.look(folder.blob(record), record)


def _records_of(folder: StoreFolder, manifest: str) -> list[str]:
    try:
        return [read_manifest(folder.read_record(manifest)).config, manifest]
    except (OSError, ValueError):
        return [manifest]


def _notes(store: Store) -> Iterator[str]:
    """Set damaged notes aside, and drop those that point to artifacts which are gone."""
    folder = store.folder
    for path, why in list(damaged_notes(folder.cache)):
        if _readable(path):
            yield f"{path}: made readable"
        else:
            yield _aside(folder, path, f"a damaged note ({why})")
    with suppress(DamageError):
        held = set(folder.read_index().artifacts)
        stale = [path for path, digest in noted_artifacts(folder.cache) if digest not in held]
        for path in stale:
            path.unlink(missing_ok=True)
        if stale:
            yield f"{len(stale)} notes of the cache removed, whose artifacts no longer exist"
