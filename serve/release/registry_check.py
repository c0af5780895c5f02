"""Inspect the registry, and restore lost records from second copies. A record is evidence: none is ever made up."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from seatrial.optimize.inspection import Damage, Inspection
from seatrial.optimize.plain import read_plain
from seatrial.optimize.store_folder import REPAIR, disk_errors, not_a_folder, reason

from .record import RECORD_LIMIT
from .registry_folder import RegistryFolder


def inspect_releases(home: Path, repair: bool) -> Inspection:
    """Look at every release under SEATRIAL_HOME; with `repair`, restore first what a second copy holds.

    Raises:
        MachineError: the disk refused the repair.
    """
    folder = RegistryFolder(home / "releases")
    done = list(_repaired(folder)) if repair else []
    damage, remarks, count = list[Damage](), list[str](), 0
    for path in (folder.root, folder.second):
        if not_a_folder(path):
            damage.append(_no_folder(path))
    for name in folder.names():
        damage += [_no_folder(path) for path in folder.misplaced(name) if path.name == name]
        count += len(folder.versions(name))
        damage += _of_name(folder, name, repaired=repair)
        if copies := folder.copies(name):
            newest = [version for version in folder.versions(name) if version > max(copies)]
            remarks += [f"the second copy of {name}@{version} is not written yet" for version in newest]
        if left := folder.leftovers(name):
            remarks.append(f"the registry of {name} has {left} staged files; the next registration removes them")
    return Inspection(counts={"releases": count}, damage=tuple(damage), repaired=tuple(done), remarks=tuple(remarks))


def _no_folder(path: Path) -> Damage:
    return Damage(part="folder", what="not a folder, but a folder is required here", where=str(path), next_step=REPAIR)


def _of_name(folder: RegistryFolder, name: str, *, repaired: bool) -> Iterator[Damage]:
    lock = folder.lock_path(name)
    try:
        read_plain(lock, RECORD_LIMIT)
    except FileNotFoundError:
        pass
    except OSError as error:
        yield Damage(part="lock", what=f"the lock cannot be used: {reason(error)}", where=str(lock), next_step=REPAIR)
    wrong = _wrong(folder, name)
    for version, why in wrong.items():
        path = folder.path(name, version)
        step = _restore(folder, name, version) if repaired else REPAIR
        yield Damage(part="release", what=f"the record of {name}@{version}: {why}", where=str(path), next_step=step)
    copies = folder.copies(name)
    for version in folder.versions(name):
        if version not in copies and version not in wrong and any(later > version for later in copies):
            path = folder.copy_path(name, version, _digest(folder, name, version))
            what = f"the second copy of {name}@{version} is missing"
            yield Damage(part="release copy", what=what, where=str(path), next_step=REPAIR)
    for version, digests in copies.items():
        for digest in digests:
            if why := _copy_is_wrong(folder, name, version, digest):
                path = folder.copy_path(name, version, digest)
                what = f"the second copy of {name}@{version}: {why}"
                if not (repaired and version in wrong):  # else it is named with its record
                    yield Damage(part="release copy", what=what, where=str(path), next_step=REPAIR)


def _wrong(folder: RegistryFolder, name: str) -> dict[int, str]:
    """Return the fault of each unsound record: unreadable, changed since registration, or out of the chain."""
    copies, versions = folder.copies(name), folder.versions(name)
    found: dict[int, str] = {}
    before: str | None = ""
    for version in _expected(versions, copies):
        try:
            release, digest = folder.read(name, version)
        except (OSError, ValueError) as error:
            found[version], before = f"it cannot be read: {reason(error)}", None
            continue
        if digest not in copies.get(version, {digest}):
            found[version] = "it is not what was registered"
        elif before is not None and release.previous != before:
            found[version] = "the chain breaks before it"
        before = digest
    return found


def _expected(versions: Iterable[int], copies: Iterable[int]) -> list[int]:
    """The versions that must be there: those known of, and the first that is missing in between."""
    known = sorted({*versions, *copies})
    gap = next((number for number, each in enumerate(known, start=1) if number != each), None)
    return known if gap is None else sorted({*known, gap})


def _copy_is_wrong(folder: RegistryFolder, name: str, version: int, digest: str) -> str:
    try:
        folder.read_copy(name, version, digest)
    except (OSError, ValueError) as error:
        return reason(error)
    return ""


def _restore(folder: RegistryFolder, name: str, version: int) -> str:
    """Return what is left to do for a record that no second copy holds."""
    known = set(folder.copies(name).get(version, ())) | set(_named_by_next(folder, name, version))
    which = f" (its digest is {', '.join(sorted(known))})" if known else ""
    path = folder.path(name, version)
    beyond = [other for other in folder.versions(name) if other > version]
    stray = f", or move {folder.path(name, beyond[-1])} away if that was never a release" if beyond else ""
    return f"move {path} away and restore the file from a backup{which}{stray}; or release under another name"


def _named_by_next(folder: RegistryFolder, name: str, version: int) -> tuple[str, ...]:
    """The digest that the record after it gives it."""
    for digest in ("", *folder.copies(name).get(version + 1, ())):
        try:
            later = folder.read_copy(name, version + 1, digest)[0] if digest else folder.read(name, version + 1)[0]
        except (OSError, ValueError):
            continue
        return (later.previous,)
    return ()


def _digest(folder: RegistryFolder, name: str, version: int) -> str:
    try:
        return folder.read(name, version)[1]
    except (OSError, ValueError):
        return ""


def _repaired(folder: RegistryFolder) -> Iterator[str]:
    with disk_errors(folder.root):
        for path in (folder.root, folder.second):
            if not_a_folder(path):
                yield f"{path}: not a folder; moved to {folder.set_aside(path)}"
        for name in folder.names():
            yield from _repaired_name(folder, name)


def _repaired_name(folder: RegistryFolder, name: str) -> Iterator[str]:
    for path in folder.misplaced(name):
        yield f"{path}: not a folder; moved to {folder.set_aside(path)}"
    lock = folder.lock_path(name)
    try:
        read_plain(lock, RECORD_LIMIT)
    except FileNotFoundError:
        pass
    except OSError as error:
        yield f"{lock}: {reason(error)}; moved to {folder.set_aside(lock)}"
    with folder.locked(name):
        for version in _wrong(folder, name):
            yield from _restored(folder, name, version)
        wrong = _wrong(folder, name)
        for version, digests in folder.copies(name).items():
            for digest in digests:
                path = folder.copy_path(name, version, digest)
                if version not in wrong and _copy_is_wrong(folder, name, version, digest):
                    yield f"{path}: damaged; moved to {folder.set_aside(path)}"
        if not wrong and (count := folder.copy_all(name)):
            yield f"{name}: {count} second copies written"


def _restored(folder: RegistryFolder, name: str, version: int) -> Iterator[str]:
    """Put a record back from its second copy, where the record after it names the same one or there is none."""
    path, named = folder.path(name, version), _named_by_next(folder, name, version)
    if named and _digest(folder, name, version) in named:
        for digest in sorted(folder.copies(name).get(version, frozenset()) - set(named)):
            other = folder.copy_path(name, version, digest)
            yield f"{other}: not a copy of the record; moved to {folder.set_aside(other)}"
        return
    for digest in sorted(folder.copies(name).get(version, ())):
        try:
            _, data = folder.read_copy(name, version, digest)
        except (OSError, ValueError):
            continue
        if named and digest not in named:
            yield (
                f"{folder.copy_path(name, version, digest)}: not the copy of the record that version "
                f"{version + 1} names"
            )
            continue
        if path.exists() or path.is_symlink():
            yield f"{path}: damaged; moved to {folder.set_aside(path)}"
        folder.write(name, version, data)
        yield f"{path}: restored from its second copy"
        return
