"""The registry's folder: records and their second copies, read with every damage named, written under one lock a name.

``<name>/<version>.json`` is the record, ``.copies/<name>/<version>-<sha256>.json`` its second copy. A copy is written
after its record, so one that is there proves that the record was, and what it was.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.inspection import DamageError
from seatrial.optimize.names import is_name
from seatrial.optimize.plain import STAGED, read_plain, sweep, write_once
from seatrial.optimize.store_folder import REPAIR, disk_errors, lock_on, not_a_folder, numbered, reason

from .record import RECORD_LIMIT, Release, read_release

_RECORD = re.compile(r"([1-9][0-9]{0,8})\.json")
_COPY = re.compile(r"([1-9][0-9]{0,8})-([0-9a-f]{64})\.json")
_HALF_MADE = re.compile(r"[0-9]+\.[0-9]+")  # as earlier versions staged a record


class RegistryFolder:
    """Paths, bytes and locks of the registry at `root`. Names have been checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.second = root / ".copies"
        self.quarantine = root / ".quarantine"

    def path(self, name: str, version: int) -> Path:
        """Return where a record lies."""
        return self.root / name / f"{version}.json"

    def copy_path(self, name: str, version: int, digest: str) -> Path:
        """Return where its second copy lies."""
        return self.second / name / f"{version}-{digest.removeprefix('sha256:')}.json"

    def lock_path(self, name: str) -> Path:
        """The lock of one name."""
        return self.root / name / ".lock"

    def names(self) -> list[str]:
        """Every name that has, or had, a record."""
        found = [path.name for place in (self.root, self.second) for path in _listed(place)]
        return sorted({name for name in found if is_name(name)})

    def misplaced(self, name: str) -> tuple[Path, ...]:
        """Return what is no folder where one must be, outermost first."""
        folders = (self.root, self.root / name, self.second, self.second / name)
        return tuple(path for path in folders if not_a_folder(path))

    def versions(self, name: str) -> list[int]:
        """The versions that something lies under."""
        found = (_RECORD.fullmatch(path.name) for path in _listed(self.root / name))
        return sorted(int(match[1]) for match in found if match)

    def copies(self, name: str) -> Mapping[int, frozenset[str]]:
        """The digests of the second copies of each version, by their names."""
        found: dict[int, frozenset[str]] = {}
        for path in _listed(self.second / name):
            if match := _COPY.fullmatch(path.name):
                version = int(match[1])
                found[version] = found.get(version, frozenset()) | {f"sha256:{match[2]}"}
        return found

    def chain(self, name: str) -> list[tuple[Release, str]]:
        """Every release of a name, oldest first, with the digest of its record.

        Raises:
            DamageError: a record is missing, or was changed; or a folder was replaced.
        """
        for path in self.misplaced(name):
            raise damaged("not a folder, but it is a part of the registry", path, part="folder")
        copies, found = self.copies(name), list[tuple[Release, str]]()
        for version in range(1, max((*copies, *self.versions(name)), default=0) + 1):
            path = self.path(name, version)
            try:
                release, digest = self.read(name, version)
            except (OSError, ValueError) as error:
                raise damaged(f"the record of {name}@{version} cannot be read: {reason(error)}", path) from error
            if digest not in copies.get(version, {digest}):
                raise damaged(f"the record of {name}@{version} differs from the registered one", path)
            if release.previous != (found[-1][1] if found else ""):
                raise damaged(f"the registry's chain of {name} breaks before version {version}", path)
            found.append((release, digest))
        return found

    def read(self, name: str, version: int) -> tuple[Release, str]:
        """A record and its digest.

        Raises:
            OSError: missing or no plain file.
            ValueError: it is no record, or another release's.
        """
        data = read_plain(self.path(name, version), RECORD_LIMIT)
        return read_release(data, name, version), digest_bytes(data)

    def read_copy(self, name: str, version: int, digest: str) -> tuple[Release, bytes]:
        """Return what a second copy holds.

        Raises:
            OSError: missing or no plain file.
            ValueError: it is not what its name says.
        """
        data = read_plain(self.copy_path(name, version, digest), RECORD_LIMIT)
        if digest_bytes(data) != digest:
            raise ValueError("its bytes were changed")
        return read_release(data, name, version), data

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the name's lock; what killed writers left is swept.

        Raises:
            DamageError: a folder or the lock was replaced.
            MachineError: the disk refused.
        """
        for path in self.misplaced(name):
            raise damaged("not a folder, but it is a part of the registry", path, part="folder")
        with disk_errors(self.root):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            with lock_on(self.lock_path(name)):
                self.sweep(name)
                yield

    def sweep(self, name: str) -> int:
        """Remove what killed writers left, under the lock; how many files."""
        half_made = [path for path in _listed(self.root / name) if _HALF_MADE.fullmatch(path.name)]
        for path in half_made:
            with suppress(OSError):
                path.unlink()
        return len(half_made) + sweep(self.root / name) + sweep(self.second / name)

    def leftovers(self, name: str) -> int:
        """Return how many files are staged, by writers at work or killed."""
        places = (*_listed(self.root / name), *_listed(self.second / name))
        return sum(path.name.startswith(STAGED) or bool(_HALF_MADE.fullmatch(path.name)) for path in places)

    def write(self, name: str, version: int, data: bytes) -> None:
        """Write a record, never over another one."""
        write_once(self.path(name, version), data)

    def copy_all(self, name: str) -> int:
        """Write the second copies that are missing; how many. What the disk refuses is left to the next time."""
        copies, written = self.copies(name), 0
        for version in self.versions(name):
            if version in copies:
                continue
            with suppress(OSError, ValueError):
                data = read_plain(self.path(name, version), RECORD_LIMIT)
                read_release(data, name, version)
                write_once(self.copy_path(name, version, digest_bytes(data)), data)
                written += 1
        return written

    def set_aside(self, path: Path) -> Path:
        """Move what lies at `path` into the quarantine, under its own name and a number."""
        if path in (self.root, self.quarantine):
            target = numbered(path.with_name(f"{path.name}.quarantine"))
        else:
            if not_a_folder(self.quarantine):
                self.set_aside(self.quarantine)
            target = numbered(self.quarantine / path.relative_to(self.root))
            target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        return target


def damaged(what: str, where: Path, *, part: str = "release", next_step: str = REPAIR) -> DamageError:
    """The error of a damaged part of the registry."""
    return DamageError(what, part=part, where=str(where), next_step=next_step)


def _listed(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [folder / name for name in sorted(os.listdir(folder))]
    return []
