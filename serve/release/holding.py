"""Uses of the artifacts in this home: held against releases, placements, rollouts and the trail."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.store import Store

from .inventory import Item, inventory, release_uses, trail_uses
from .record import Release
from .registry import Registry
from .trail_file import TrailFile


def items(home: Path, placed: Iterable[tuple[str, str]]) -> tuple[Item, ...]:
    """Return every artifact of the store with who uses it; `placed` are pairs of a digest and where it is placed.

    Raises:
        IntegrityError: a record, the trail or the store's index is damaged, so that nothing may be called unused.
    """
    store = Store(home / "store")
    artifacts = [*store.all()]
    index = store.folder.read_index()
    tags = {digest: index.tags(digest) for digest in index.artifacts}
    return inventory(artifacts, {digest: found for digest, found in tags.items() if found}, _uses(home, placed))


def _uses(home: Path, placed: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for found in releases(home).values():
        yield from release_uses(found)
    yield from trail_uses(TrailFile(home / "trail").entries())
    yield from placed


def releases(home: Path) -> Mapping[str, tuple[Release, ...]]:
    """Return every release by name, oldest first."""
    registry = Registry(home / "releases")
    return {name: registry.releases(name) for name in registry.folder.names()}


def chain_of(home: Path, reference: str) -> tuple[Release | None, list[Artifact]]:
    """Return the release of that label, if it is one, and the artifact with its ancestors.

    Raises:
        MissingError: it is neither a release nor an artifact.
    """
    store, registry = Store(home / "store"), Registry(home / "releases")
    name, _, version = reference.rpartition("@")
    if version.isdecimal() and name in registry.folder.names() and len(version) < 10:
        release = registry.get(reference)
        return release, store.history(store.get(release.digest))
    return None, store.history(store.get(reference))
