"""Collection of a store's garbage: artifacts that are to go, and blobs that no entry of the index leads to.

The index is written first, so that a kill leaves blobs too many and never an entry without its blobs; the next
collection removes them. What other tools put into the index keeps its blobs; where that cannot be read, no blob goes.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .artifact import is_digest
from .layout import StoreIndex, read_manifest
from .plain import parse_json
from .store import Store
from .store_folder import StoreFolder, disk_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Artifacts taken out of the index, and the blobs and bytes that were removed, or would be."""

    artifacts: tuple[str, ...]
    blobs: int
    size: int


def collect(store: Store, artifacts: Collection[str], *, go: bool) -> Collected:
    """Take artifacts out of the store with all that nothing else needs; without `go` only say what would go.

    Raises:
        IntegrityError: the index, or the manifest of what stays, is damaged; nothing was removed.
        MachineError: the disk refused.
    """
    folder = store.folder
    if not go:
        index = folder.read_index()
        return _plan(store, index, artifacts)[0]
    with disk_errors(folder.root), folder.locked():
        index = folder.read_index()
        plan, blobs = _plan(store, index, artifacts)
        if plan.artifacts:
            folder.write_index(index.without(plan.artifacts))
        for path in blobs:
            path.chmod(0o644)
            path.unlink(missing_ok=True)
    return plan


def _plan(store: Store, index: StoreIndex, artifacts: Collection[str]) -> tuple[Collected, list[Path]]:
    dropped = tuple(digest for digest in index.artifacts if digest in artifacts)
    needed = _needed(store, index.without(dropped))
    found = [] if needed is None else [path for path in _blobs(store.folder) if f"sha256:{path.name}" not in needed]
    size = sum(path.stat().st_size for path in found)
    return Collected(artifacts=dropped, blobs=len(found), size=size), found


def _blobs(folder: StoreFolder) -> Iterator[Path]:
    with suppress(OSError):
        for name in sorted(os.listdir(folder.blobs)):
            if is_digest(f"sha256:{name}") and (folder.blobs / name).is_file():
                yield folder.blobs / name


def _needed(store: Store, index: StoreIndex) -> set[str] | None:
    """Return the digests that the index leads to; None where an entry of another tool cannot be followed."""
    found = set[str]()
    for digest in index.artifacts:
        entry = index.entry(digest)
        assert entry is not None
        artifact = store.record(index, digest)
        manifest = read_manifest(store.folder.read_record(entry.digest))
        found |= {entry.digest, manifest.config, *(file.digest for file in artifact.files)}
    pending = [str(each.get("digest")) for each in index.others]
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        try:
            value = parse_json(store.folder.read_record(digest))
            parts = [value.get("config"), *value.get("layers", ()), *value.get("manifests", ())]
            pending += [str(each["digest"]) for each in value.get("manifests", ())]
            found |= {str(each["digest"]) for each in parts if each} - set(pending)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
    return found
