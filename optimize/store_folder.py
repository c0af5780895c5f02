"""The folder under a store: where its parts lie, read with every damage named, changed under one lock.

Whatever stands in the place of a file is moved into ``quarantine`` before something is written there: damage is set
aside, never deleted. The index lies there twice; the second copy is written first, so one of the two is always whole.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .artifact import Artifact, digest_bytes
from .errors import MachineError, SeatrialError
from .inspection import DamageError
from .layout import INDEX_LIMIT, LAYOUT, RECORD_LIMIT, StoreIndex, read_index, read_record
from .locking import locked
from .notes import ROOMS
from .plain import fsync_folder, is_plain, leftovers, parse_json, read_plain, staging, sweep

REPAIR = "run: seatrial verify --repair"


class StoreFolder:
    """Paths, bytes and the lock of the store at `root`; the cache of notes lies beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = root.parent / "cache"
        self.blobs = root / "blobs" / "sha256"
        self.index = root / "index.json"
        self.second_index = root / "index.backup.json"
        self.layout = root / "oci-layout"
        self.lock = root / ".lock"
        self.quarantine = root / "quarantine"
        self._begun = False

    def blob(self, digest: str) -> Path:
        """Return where the bytes of that digest lie; the digest has been checked to be one."""
        return self.blobs / digest.removeprefix("sha256:")

    def misplaced(self, *, cache: bool = False) -> tuple[Path, ...]:
        """List paths that must be folders but are not, outermost first; with `cache` also those that a repair uses."""
        folders = [self.root, self.blobs.parent, self.blobs]
        if cache:
            rooms = [self.cache / room for room in (*ROOMS, "checkpoints", "teacher")]
            folders += [self.quarantine, self.cache, *rooms]
        return tuple(path for path in folders if not_a_folder(path))

    def check_home(self) -> None:
        """Refuse a SEATRIAL_HOME that can hold nothing.

        Raises:
            MachineError: it is no folder.
        """
        if not_a_folder(self.root.parent):
            raise MachineError(
                "this must be a folder",
                where=str(self.root.parent),
                next_step="move it away, or set SEATRIAL_HOME to another folder",
            )

    def check_folders(self) -> None:
        """Refuse a store whose folders were replaced.

        Raises:
            IntegrityError: naming the first.
        """
        for path in self.misplaced():
            raise DamageError(
                "this part of the store must be a folder", part="folder", where=str(path), next_step=REPAIR
            )

    def read_record(self, digest: str) -> bytes:
        """The checked bytes of a manifest or of an artifact's record.

        Raises:
            OSError: missing, no plain file, or too large to be one.
            ValueError: other bytes than the digest says.
        """
        data = read_plain(self.blob(digest), RECORD_LIMIT)
        if digest_bytes(data) != digest:
            raise ValueError("its bytes were changed")
        return data

    def records(self) -> Iterator[Artifact]:
        """Every artifact whose record is whole, whether the index lists it or not."""
        names = [name for name in os.listdir(self.blobs) if len(name) == 64] if self.blobs.is_dir() else []
        for digest in sorted(f"sha256:{name}" for name in names):
            with suppress(OSError, ValueError, SeatrialError):
                if (data := self.read_record(digest)).startswith(b"{") and b'"made_by"' in data:
                    yield read_record(data)

    def read_index(self) -> StoreIndex:
        """The index; an empty one where nothing was stored yet.

        Raises:
            IntegrityError: it is missing, cannot be read, or was changed.
        """
        self.check_folders()
        try:
            found = read_index(read_plain(self.index, INDEX_LIMIT))
        except FileNotFoundError as error:
            if not self.used:
                return StoreIndex()
            raise self._index_error(reason(error)) from error
        except (OSError, ValueError) as error:
            raise self._index_error(reason(error)) from error
        if not found.sealed and os.path.lexists(self.second_index):
            raise self._index_error("it was replaced by one without the digest over its entries")
        if not found.sealed and not found.entries and self._holds_blobs():
            raise self._index_error("it lists nothing, although blobs exist")
        return found

    def _index_error(self, why: str) -> DamageError:
        return DamageError(
            f"the store's index is damaged: {why}", part="index", where=str(self.index), next_step=REPAIR
        )

    @property
    def used(self) -> bool:
        """Return whether an index must be there: it was the first thing written."""
        if os.path.lexists(self.layout) or os.path.lexists(self.second_index):
            return True
        return self._holds_blobs()

    def _holds_blobs(self) -> bool:
        with suppress(OSError):
            return any(len(name) == 64 for name in os.listdir(self.blobs))
        return False

    def write_index(self, index: StoreIndex) -> None:
        """Write both copies: the second one first, except where the index is the older of the two kinds or new."""
        data = index.to_bytes()
        paths = (self.second_index, self.index)
        for path in paths if os.path.lexists(self.second_index) else reversed(paths):
            self.write(path, data)

    def layout_is_whole(self) -> bool:
        """Return whether the file says which layout this is."""
        with suppress(OSError, ValueError):
            return bool(parse_json(read_plain(self.layout, RECORD_LIMIT)) == parse_json(LAYOUT))
        return False

    def write(self, path: Path, data: bytes) -> None:
        """Write a part of the store or cache whole; what is no plain file in its place is set aside."""
        self.clear(path)
        with staging(path) as staged:
            staged.write_bytes(data)

    def clear(self, path: Path) -> None:
        """Set aside what is no plain file at `path`."""
        if os.path.lexists(path) and not is_plain(path):
            self.set_aside(path)

    def set_aside(self, path: Path) -> Path:
        """Move what lies at `path` into the quarantine, under its own name and a number."""
        if path in (self.root, self.cache, self.quarantine):
            target = numbered(path.with_name(f"{path.name}.quarantine"))
        else:
            if not_a_folder(self.quarantine):
                self.set_aside(self.quarantine)
            base = self.root if path.is_relative_to(self.root) else self.root.parent
            target = numbered(self.quarantine / path.relative_to(base))
            target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        fsync_folder(path.parent)
        return target

    @contextmanager
    def locked(self, *, begin: bool = True) -> Iterator[None]:
        """Hold the store's lock; the first time, sweep what killed writers left and begin a store that is new.

        Raises:
            IntegrityError: a folder or the lock was replaced.
        """
        self.check_folders()
        self.blobs.mkdir(parents=True, exist_ok=True)
        with lock_on(self.lock):
            if begin:
                self.begin()
            yield

    def begin(self) -> None:
        """Sweep, and write what a new store consists of; the rest of a beginning that was killed is written too."""
        if self._begun:
            return
        self.sweep()
        if not os.path.lexists(self.index) and not self.used:
            self.write_index(StoreIndex())
        if not self.layout_is_whole():
            if os.path.lexists(self.layout):
                self.set_aside(self.layout)
            self.write(self.layout, LAYOUT)
        self._begun = True

    def sweep(self) -> int:
        """Remove what killed writers left staged in store and cache; a live writer's files stay."""
        return sum(sweep(folder) for folder in self._staging_folders())

    def leftovers(self) -> int:
        """Return how many staged files there are, of live writers and of dead ones."""
        return sum(len(leftovers(folder)) for folder in self._staging_folders())

    def _staging_folders(self) -> list[Path]:
        rooms: list[Path] = []
        with suppress(OSError):
            rooms = [path for path in self.cache.iterdir() if path.is_dir()]
        with suppress(OSError):
            rooms += [path for path in (self.cache / "checkpoints").iterdir() if path.is_dir()]
        return [self.root, self.blobs, *rooms]


def reason(error: Exception) -> str:
    """Return why a part could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return error.what if isinstance(error, SeatrialError) else str(error)


def not_a_folder(path: Path) -> bool:
    """Return whether something is there that is no folder, and no link to one."""
    return os.path.lexists(path) and not path.is_dir()


def numbered(path: Path) -> Path:
    """The first of ``path.1``, ``path.2``, … that is free."""
    number = 1
    while os.path.lexists(found := path.with_name(f"{path.name}.{number}")):
        number += 1
    return found


@contextmanager
def lock_on(path: Path) -> Iterator[None]:
    """Hold the lock file.

    Raises:
        IntegrityError: something else stands in its place.
    """
    if os.path.lexists(path) and (not is_plain(path) or not os.access(path, os.R_OK)):
        raise DamageError("the lock is not a readable regular file", part="lock", where=str(path), next_step=REPAIR)
    with locked(path):
        yield


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn what the disk refuses into one clear error.

    Raises:
        MachineError: with what can be done about it.
    """
    try:
        yield
    except SeatrialError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        refused = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        first = "free space there" if full else "make it writable for this user" if refused else "create its folder"
        raise MachineError(
            f"cannot write: {error.strerror or error}",
            where=str(error.filename or where),
            next_step=f"{first}, or set SEATRIAL_HOME to another place, and run the same command again",
        ) from error
