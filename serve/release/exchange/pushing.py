"""Push a release: every byte is checked against its digest before it is sent, and the manifest is written last.

So a push that ends in between leaves nothing that could be pulled, and the next one sends only what is missing.
"""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seatrial.optimize.artifact import Artifact, digest_bytes
from seatrial.optimize.layout import manifest_bytes as stored_bytes
from seatrial.optimize.plain import is_plain, read_plain
from seatrial.optimize.store import Store

from ..record import Release, record_bytes
from ..registry import Registry
from . import modelpack
from .modelpack import DOC, DOC_TAR, WEIGHT, Layer

Progress = Callable[[str, float, str], None]
Source = Path | bytes


class Remote(Protocol):
    """A repository of a registry, as `on_oras.OciRepository` is one."""

    def holds(self, digest: str) -> bool:
        """Return whether it has that blob."""

    def upload(self, digest: str, size: int, source: Source) -> None:
        """Upload a blob."""

    def put_manifest(self, data: bytes, tag: str) -> str:
        """Write a manifest under a tag; return its digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """Result of a push: the release, the manifest's digest, and the bytes that were sent and those already there."""

    release: str
    digest: str
    sent: int
    known: int


def push(
    release: Release,
    remote: Remote,
    *,
    home: Path,
    tag: str,
    progress: Progress = lambda label, share, text: None,
) -> Pushed:
    """Push a release with its artifact, ancestors, release records, approvals and run.

    Raises:
        MissingError: its artifact is not in the store.
        IntegrityError: a file, a record or an approval is damaged here; nothing was sent.
        ExchangeError: the registry refused or went away; nothing can be pulled from what was sent.
    """
    store = Store(home / "store")
    found = [*_parts(release, store, home)]
    config = modelpack.config_bytes(store.get(release.digest), release)
    head = Layer(media=modelpack.CONFIG, path="", digest=digest_bytes(config), size=len(config))
    layers = [layer for layer, _ in found]
    sent = known = 0
    parts: list[tuple[Layer, Source]] = [*found, (head, config)]
    total = sum(layer.size for layer, _ in parts) or 1
    for layer, source in parts:
        progress("push", (sent + known) / total, layer.path)
        if remote.holds(layer.digest):
            known += layer.size
            continue
        remote.upload(layer.digest, layer.size, source)
        sent += layer.size
    digest = remote.put_manifest(modelpack.manifest_bytes(release, head, layers), tag)
    progress("push", 1.0, "done")
    return Pushed(release=release.label, digest=digest, sent=sent, known=known)


def _parts(release: Release, store: Store, home: Path) -> Iterator[tuple[Layer, Source]]:
    """Yield every layer with its bytes, each checked: weights first, so that other tools find them first."""
    chain = store.history(store.get(release.digest))
    yield from _files(chain, store)
    for index, artifact in enumerate(chain):
        yield _record(modelpack.artifact_path(index), stored_bytes(artifact)[0])
    for each in Registry(home / "releases").releases(release.name)[: release.version]:
        yield _record(modelpack.release_path(each.version), record_bytes(each))
    for path in sorted((home / "approvals" / release.name / str(release.version)).glob("*.json")):
        data = read_plain(path, modelpack.RECORD_LIMIT)
        yield _record(modelpack.approval_path(release.version, path.name), data)
    if (run := Path(release.run)).is_dir():
        data = tar_of(run)
        yield Layer(media=DOC_TAR, path=modelpack.RUN, digest=digest_bytes(data), size=len(data)), data


def _files(chain: Sequence[Artifact], store: Store) -> Iterator[tuple[Layer, Source]]:
    """Yield the files of an artifact and its ancestors."""
    for index, artifact in enumerate(chain):
        for file in artifact.files:
            path = store.checked_blob(artifact, file.path)
            name = modelpack.file_path(index, file.path)
            yield Layer(media=WEIGHT if index == 0 else DOC, path=name, digest=file.digest, size=file.size), path


def _record(path: str, data: bytes) -> tuple[Layer, bytes]:
    return Layer(media=DOC, path=path, digest=digest_bytes(data), size=len(data)), data


def tar_of(folder: Path) -> bytes:
    """Return a tar of the folder's plain files, the same bytes for the same content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if not is_plain(path) or path.name.startswith("."):
                continue
            data = read_plain(path, modelpack.RUN_LIMIT)
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()
