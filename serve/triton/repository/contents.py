"""The files of one placed version against what they must be: a release's code, the artifact's bytes, nothing else.

The code is compared with the table of what seatrial shipped, the rest with the artifact in the store. The record
beside them counts only for what the store does not hold, and that is reported.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from seatrial.optimize.errors import IntegrityError, SeatrialError
from seatrial.optimize.plain import digest_settled
from seatrial.optimize.store import Store

from ..backend.releases import NAMES, RELEASES
from .doubt import Doubt
from .entries import CODE, shown, walk
from .placement import RECORD, Placement
from .version_files import recorded

BYTECODE = "__pycache__"


def doubts(placed: Placement, store: Store | None) -> Iterator[Doubt]:
    """Yield every file of a version that is missing, changed or more than was placed."""
    there = {str(path.relative_to(placed.path)): path for path in walk(placed.path)}
    yield from _bytecode(placed.path, there)
    files = {name: path for name, path in there.items() if name not in (RECORD, BYTECODE) and not _inside_cache(name)}
    code = {name: path for name, path in files.items() if placed.backend == "python" and name in NAMES}
    if placed.backend == "python":
        yield from _code(placed.path, code)
    expected, unverified = artifact_files(placed, store)
    if unverified:
        yield Doubt(rule="unverified", where=shown(placed.path), seen=unverified, refused=False)
    rest = {name: path for name, path in files.items() if name not in code}
    yield from _compared(placed.path, rest, expected)


def artifact_files(placed: Placement, store: Store | None) -> tuple[Mapping[str, str] | None, str]:
    """Return the artifact's files by digest (None: unknown), and why they are only the record's word."""
    artifact = None
    with suppress(SeatrialError, KeyError, TypeError, ValueError):  # a damaged store vouches for nothing
        artifact = store.find(placed.digest) if store is not None else None
    if artifact is not None:
        return {file.path: file.digest for file in artifact.files}, ""
    try:
        told = recorded(placed.path)
    except IntegrityError:
        told = None
    if told is None:
        return None, f"neither the store nor the record has digests of {placed.digest[:19]}"
    files = {name: digest for name, digest in told.items() if not (placed.backend == "python" and name in NAMES)}
    # An ensemble has no files: its digest is that of its configuration.
    return (
        files,
        f"the store does not contain {placed.digest[:19]}; its bytes are checked only against the record"
        if files
        else "",
    )


def _bytecode(version: Path, there: Mapping[str, Path]) -> Iterator[Doubt]:
    """Yield each folder of bytecode: Python runs it in place of the source, whatever the source says."""
    for name, path in there.items():
        if path.name == BYTECODE and path.is_dir() and not path.is_symlink():
            seen = f"{shown(name)} is a folder of bytecode, which runs instead of the checked source code"
            yield Doubt(rule="bytecode", where=shown(version / name), seen=seen)


def _inside_cache(name: str) -> bool:
    return BYTECODE in Path(name).parts[:-1]


def _code(version: Path, code: Mapping[str, Path]) -> Iterator[Doubt]:
    """Yield what of the code is not that of one release as a whole."""
    found: dict[str, str] = {}
    for name, path in sorted(code.items()):
        if path.is_symlink():
            continue  # reported as a link
        try:
            found[name] = digest_settled(path)
        except OSError as error:
            yield Doubt(rule="changed", where=shown(path), seen=f"{name} is {error.strerror or error}")
            return
    if found in RELEASES:
        return
    known = {name: {release[name] for release in RELEASES if name in release} for name in NAMES}
    foreign = [name for name, digest in found.items() if digest not in known[name]]
    for name in foreign:
        seen = f"{name} is not code of any release of seatrial ({found[name][:19]})"
        yield Doubt(rule="changed", where=shown(version / name), seen=seen)
    if foreign:
        return
    nearest = max(RELEASES, key=lambda release: sum(found.get(name) == digest for name, digest in release.items()))
    for name in sorted(nearest.keys() - found.keys()):
        yield Doubt(rule="changed", where=shown(version / name), seen=f"{name} is missing")
        return
    seen = f"its code comes from several releases of seatrial: {', '.join(sorted(found))}"
    yield Doubt(rule="changed", where=shown(version), seen=seen)


def _compared(version: Path, there: Mapping[str, Path], expected: Mapping[str, str] | None) -> Iterator[Doubt]:
    """Yield what differs from the expected digests; without any, only code is refused."""
    for name, path in sorted(there.items()):
        if path.is_symlink():
            continue  # reported as a link
        if path.is_dir():
            if expected is not None and name in expected:
                yield Doubt(rule="changed", where=shown(path), seen=f"{shown(name)} is a folder instead of a file")
            continue
        if expected is not None and name in expected:
            yield from _same(path, name, expected[name])
        elif CODE.fullmatch(path.name):
            yield Doubt(rule="foreign-code", where=shown(path), seen=f"code that seatrial did not place: {shown(name)}")
        elif expected is not None:
            yield Doubt(
                rule="changed", where=shown(path), seen=f"{shown(name)} was added: the artifact has no such file"
            )
    for name in sorted((expected or {}).keys() - there.keys()):
        yield Doubt(rule="changed", where=shown(version / name), seen=f"{name} is missing")


def _same(path: Path, name: str, digest: str) -> Iterator[Doubt]:
    try:
        found = digest_settled(path)
    except OSError as error:
        yield Doubt(rule="changed", where=shown(path), seen=f"{name} is {error.strerror or error}")
        return
    if found != digest:
        yield Doubt(
            rule="changed", where=shown(path), seen=f"{name} was changed: {found[:19]} instead of {digest[:19]}"
        )
