"""Checks for leftovers of a killed verb: processes, partial files, shared-memory regions, unreadable files.

Looks at one SEATRIAL_HOME, its working folder and its own TMPDIR; starts and ends nothing.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import psutil

from seatrial.optimize import scratch
from seatrial.optimize.artifact import digest_file
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.store import Store
from seatrial.serve.release.registry import Registry
from seatrial.serve.triton.repository.placement import models
from seatrial.serve.triton.repository.vouching import check
from seatrial.serve.triton.server import Server

SHM = Path("/dev/shm")
_REGION = re.compile(r"seatrial[-_]")


def strays(home: Path, known: Sequence[int] = ()) -> dict[int, str]:
    """Return processes that work for that home, by number, apart from the `known` ones and their children."""
    found = {}
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            ours = process.environ().get("SEATRIAL_HOME") == str(home) or str(home) in command
            if not ours or process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if not {process.pid, *(parent.pid for parent in process.parents())} & set(known):
                found[process.pid] = command[:90]
        except psutil.Error:
            continue
    return found


def leftovers(home: Path, folder: Path, temporary: Path) -> list[str]:
    """Return what a killed verb left half-made, as paths."""
    kept = Server.find(home / "triton" / "server.json")
    found = [*_children(home / "work"), *_children(home / "tune")]
    found += [each for each in _children(temporary) if each.name.startswith(("seatrial", "tmp"))]
    found += [each for each in _children(home / "triton" / "servers") if kept is None or each != kept.scratch]
    found += _children(home / "envoy" / "runs")
    for place in (home, folder):
        found += [
            each
            for each in _files(place)
            if each.name.startswith((".staged", ".load-", ".backends-", ".seatrial-render-", ".seatrial-aside"))
        ]
    for stage in folder.glob(".seatrial/placing/*/*"):
        found += [stage] if stage.is_dir() or stage.suffix == ".file" else []
    found += [each for each in _files(home / "releases") if each.suffix[1:].isdigit()]
    return sorted({str(each) for each in found if each.exists() and not _held_by_edge(each, home)})


def _held_by_edge(path: Path, home: Path) -> bool:
    """Tell whether an edge that is up has its sockets there."""
    names = (record.read_text(errors="replace") for record in (home / "envoy" / "edges").glob("*/proxy.json"))
    return any(str(path) in text for text in names)


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def pid_of(record: Path) -> int:
    """Return the process that a record of an edge names; 0 where it is gone or says none."""
    try:
        return int(json.loads(record.read_bytes())["pid"])
    except (OSError, ValueError, KeyError):
        return 0


def regions() -> set[str]:
    """Return the names of all regions of ours in shared memory, of any process."""
    return {each.name for each in SHM.iterdir() if _REGION.match(each.name)}


def unmapped(names: set[str]) -> set[str]:
    """Return those regions that no living process has mapped: another user's regions are in use."""
    left = set(names)
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text(errors="replace")
        except OSError:
            continue
        left -= {name for name in left if name in text}
    return left & regions()


def damage(home: Path, folder: Path) -> list[str]:
    """Return every stored file that cannot be read, and every digest that does not fit."""
    return [*_unreadable(home), *_unreadable(folder), *_store(home), *_releases(home), *_placed(home, folder)]


def _unreadable(root: Path) -> Iterator[str]:
    for path in _files(root):
        try:
            if path.suffix == ".json" and path.is_file() and not path.name.startswith("."):
                json.loads(path.read_bytes())
            elif path.suffix in (".jsonl", ".journal") and path.is_file():
                _lines(path)
            elif path.suffix == ".npz" and path.is_file():
                with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                    _ = [stored[name] for name in stored.files]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, BadZipFile) as error:
            yield f"{path}: {error}"


def _files(root: Path) -> Iterator[Path]:
    """Walk all files and folders below; what goes meanwhile is passed over."""
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))


def _lines(path: Path) -> None:
    """Read all lines but the last, which a kill may tear: readers pass over it and the next writer closes it."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        if line:
            json.loads(line)


def _store(home: Path) -> Iterator[str]:
    for blob in (home / "store" / "blobs" / "sha256").glob("[0-9a-f]*"):
        if digest_file(blob) != f"sha256:{blob.name}":
            yield f"{blob}: not its digest"
    try:
        store = Store(home / "store")
        for artifact in store.all():
            if not store.holds(artifact):
                yield f"{artifact.short}: not whole"
    except SeatrialError as error:
        yield f"store: {error.what}"


def _releases(home: Path) -> Iterator[str]:
    for name in _children(home / "releases"):
        if name.name.startswith("."):
            continue  # second copies
        try:
            Registry(home / "releases").releases(name.name)
        except SeatrialError as error:
            yield f"releases of {name.name}: {error.what}"


def _placed(home: Path, folder: Path) -> Iterator[str]:
    try:
        if (folder / "models").is_dir():
            check(folder / "models", models(folder / "models"), Store(home / "store"))
    except SeatrialError as error:
        yield f"models: {error.what} ({error.where})"


def abandoned(home: Path) -> list[str]:
    """Return scratch folders whose owner has ended."""
    roots = (home / "work", home / "tune", home / "triton", home / "triton" / "servers")
    kept = Server.find(home / "triton" / "server.json")
    found = [each for root in roots for each in scratch.abandoned(root)]
    return [str(each) for each in found if kept is None or each != kept.scratch]
