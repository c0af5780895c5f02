"""Pull a release: what a registry holds is read as untrusted, checked whole, and only then written here.

Order: manifest, records, the check that this home's own releases agree; then files into a scratch folder and the store,
run and approvals, and the release records last. A pull that ends in between leaves no release, and the next one
completes it.
"""

import io
import re
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seatrial.optimize import scratch
from seatrial.optimize.artifact import Artifact, digest_bytes
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.layout import read_record
from seatrial.optimize.names import is_name
from seatrial.optimize.plain import read_plain, staging, write_once
from seatrial.optimize.store import Store, write_atomically
from seatrial.optimize.store_folder import disk_errors

from ...errors import ExchangeError
from ..record import Release, read_release
from ..registry_folder import RegistryFolder
from . import modelpack
from .modelpack import Layer, Package

Progress = Callable[[str, float, str], None]
_APPROVAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}-[1-9][0-9]{0,5}\.json")


class Remote(Protocol):
    """A repository of a registry, as `on_oras.OciRepository` is one."""

    def manifest(self, limit: int) -> bytes:
        """Return the manifest's bytes."""

    def blob(self, digest: str, size: int, write: Callable[[bytes], object]) -> None:
        """Hand a blob's checked bytes to `write`, piece by piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """Result of a pull: the release, the manifest's digest, how many records are new here, and where its run lies."""

    release: Release
    digest: str
    new_records: int
    run: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """Release as its records say, all checked against each other: artifacts from the released one back."""

    package: Package
    releases: tuple[tuple[Release, bytes], ...]
    artifacts: tuple[Artifact, ...]

    @property
    def release(self) -> Release:
        """The release itself, the last of its chain."""
        return self.releases[-1][0]


def pull(
    remote: Remote,
    *,
    home: Path,
    progress: Progress = lambda label, share, text: None,
) -> Pulled:
    """Pull a release into this home: bit for bit what was pushed.

    Raises:
        MissingError: the registry has no such release.
        ExchangeError: it is no release of seatrial, the registry went away, or this home has other releases of that
            name; nothing was registered.
        IntegrityError: bytes are not what their digests say; nothing was registered.
        MachineError: the disk refused.
    """
    data = remote.manifest(modelpack.MANIFEST_LIMIT)
    contents = _contents(remote, data)
    folder, name = RegistryFolder(home / "releases"), contents.release.name
    _check_agrees(folder, contents)
    store = Store(home / "store")
    with disk_errors(home), scratch.folder("pull", home / "work") as place:
        for index in reversed(range(len(contents.artifacts))):  # a parent before its child
            _stored(remote, contents, index, store, place / str(index), progress)
        run = _run(remote, contents, home)
        _approvals(remote, contents, home)
    with folder.locked(name), disk_errors(folder.root):
        _check_agrees(folder, contents)
        known = len(folder.versions(name))
        for release, record in contents.releases[known:]:
            folder.write(name, release.version, record)
        folder.copy_all(name)
    return Pulled(
        release=contents.release,
        digest=digest_bytes(data),
        new_records=max(len(contents.releases) - known, 0),
        run=run,
    )


def _contents(remote: Remote, data: bytes) -> _Contents:
    """Return what the manifest and the records say.

    Raises:
        ExchangeError: it is no release of seatrial, or its parts do not belong together.
    """
    try:
        package = modelpack.read_package(data)
        _bytes(remote, package.config, modelpack.RECORD_LIMIT)  # for other tools; checked as all the rest is
        releases = _releases(remote, package)
        artifacts = _artifacts(remote, package, releases[-1][0])
    except ValueError as error:
        raise ExchangeError(
            f"this is no release: {error}",
            where=str(remote),
            next_step="pull what seatrial push wrote; other models come in as files, through a recipe's source",
        ) from error
    return _Contents(package=package, releases=tuple(releases), artifacts=tuple(artifacts))


def _bytes(remote: Remote, layer: Layer, limit: int) -> bytes:
    if layer.size > limit:
        raise ValueError(f"{layer.path} has {layer.size} bytes, at most {limit} are allowed")
    stream = io.BytesIO()
    remote.blob(layer.digest, layer.size, stream.write)
    return stream.getvalue()


def _releases(remote: Remote, package: Package) -> list[tuple[Release, bytes]]:
    """Return the chain of release records, from the first to the one that was pushed.

    Raises:
        ValueError: a record is missing, is none, or does not follow the one before.
    """
    name, _, number = package.label.partition("@")
    if not is_name(name) or not re.fullmatch("[1-9][0-9]{0,8}", number):
        raise ValueError(f"{package.label[:80]!r} is not the label of a release")
    found = list[tuple[Release, bytes]]()
    if int(number) > modelpack.MOST_LAYERS:
        raise ValueError(f"version {number} is too large")
    for version in range(1, int(number) + 1):
        layer = package.at(modelpack.release_path(version))
        if layer is None:
            raise ValueError(f"the record of {name}@{version} is missing")
        data = _bytes(remote, layer, modelpack.RECORD_LIMIT)
        release = read_release(data, name, version)
        if release.previous != (digest_bytes(found[-1][1]) if found else ""):
            raise ValueError(f"the record of {name}@{version} does not follow the one before")
        found.append((release, data))
    return found


def _artifacts(remote: Remote, package: Package, release: Release) -> list[Artifact]:
    """Return the released artifact and its ancestors; each is the next one's parent, and each has its files here.

    Raises:
        ValueError: they do not belong together.
    """
    found, wanted = list[Artifact](), release.digest
    while (layer := package.at(modelpack.artifact_path(len(found)))) is not None:
        data = _bytes(remote, layer, modelpack.RECORD_LIMIT)
        try:
            artifact = read_record(data, wanted)
        except IntegrityError as error:
            raise ValueError(error.what) from error
        for file in artifact.files:
            blob = package.at(modelpack.file_path(len(found), file.path))
            if blob is None or (blob.digest, blob.size) != (file.digest, file.size):
                raise ValueError(f"{file.path} of {artifact.short} is missing, or is another file")
        found.append(artifact)
        if artifact.made_by.parent is None:
            break
        wanted = artifact.made_by.parent
    if not found:
        raise ValueError("it has no artifact")
    return found


def _check_agrees(folder: RegistryFolder, contents: _Contents) -> None:
    """Refuse what is not the continuation, or a part, of the releases of that name here.

    Raises:
        ExchangeError: another release has that number here.
    """
    name = contents.release.name
    for (here, digest), (release, data) in zip(folder.chain(name), contents.releases, strict=False):
        if digest != digest_bytes(data):
            raise ExchangeError(
                f"{release.label} here is another release than the one in the registry",
                where=str(folder.path(name, here.version)),
                next_step="pull into another home (SEATRIAL_HOME=FOLDER seatrial pull REFERENCE)",
            )


def _stored(remote: Remote, contents: _Contents, index: int, store: Store, place: Path, progress: Progress) -> None:
    """Fetch an artifact's files that the store lacks, and put it there."""
    artifact = contents.artifacts[index]
    if store.whole(artifact.digest) is not None:
        return
    for file in artifact.files:
        target = place / file.path
        progress("pull", 1 - (index + 1) / (len(contents.artifacts) + 1), f"{artifact.short}: {file.path}")
        with staging(target) as staged, staged.open("wb") as stream:
            remote.blob(file.digest, file.size, stream.write)
    store.put(artifact, place)


def _run(remote: Remote, contents: _Contents, home: Path) -> Path | None:
    """Fetch the gate's run, its raw values, into ``HOME/pulled/NAME/VERSION``; None where none was pushed."""
    layer = contents.package.at(modelpack.RUN)
    if layer is None:
        return None
    target = home / "pulled" / contents.release.name / str(contents.release.version)
    if layer.size > modelpack.RUN_LIMIT:
        raise ExchangeError(
            f"the run has {layer.size} bytes", where=modelpack.RUN, next_step="push the release again without it"
        )
    with scratch.folder("run", home / "work") as place:
        packed = place / "run.tar"
        with packed.open("wb") as stream:
            remote.blob(layer.digest, layer.size, stream.write)
        try:
            with tarfile.open(packed) as tar:
                for member in tar:
                    _member(tar, member, target)
        except (tarfile.TarError, ValueError) as error:
            raise ExchangeError(
                f"its run cannot be unpacked: {error}", where=modelpack.RUN, next_step="push the release again"
            ) from error
    return target


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """Unpack one plain file below `target`.

    Raises:
        ValueError: it is no plain file, or would lie elsewhere.
    """
    path = (target / member.name).resolve()
    if not member.isreg() or not path.is_relative_to(target.resolve()) or path == target.resolve():
        raise ValueError(f"{member.name[:80]!r} is no plain file inside the run")
    stream = tar.extractfile(member)
    assert stream is not None
    write_atomically(path, stream.read())


def _approvals(remote: Remote, contents: _Contents, home: Path) -> None:
    """Write approvals that are not here yet; whether they count is decided by this home's roles and their keys."""
    release = contents.release
    folder = home / "approvals" / release.name / str(release.version)
    for layer in contents.package.under(f"approvals/{release.version}"):
        name = layer.path.rpartition("/")[2]
        right = layer.path == modelpack.approval_path(release.version, name) and layer.size <= modelpack.RECORD_LIMIT
        if not _APPROVAL.fullmatch(name) or not right:
            raise ExchangeError(f"{layer.path[:80]!r} is no approval", where=str(remote), next_step="push it again")
        data = _bytes(remote, layer, modelpack.RECORD_LIMIT)
        with suppress(FileExistsError):
            write_once(folder / name, data)
        if read_plain(folder / name, modelpack.RECORD_LIMIT) != data:
            raise ExchangeError(
                f"{name} of {release.label} here is another approval than the one in the registry",
                where=str(folder / name),
                next_step="pull into another home (SEATRIAL_HOME=FOLDER seatrial pull REFERENCE)",
            )
