"""The placement: one version of a model as it lies in a Triton repository.

Reads what `repository.place` wrote and nothing else; a version directory without our record is foreign and is
reported as such, never touched.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from seatrial.optimize.errors import IntegrityError, SeatrialError
from seatrial.optimize.plain import read_plain
from seatrial.optimize.record import Record

from ...deployment import Backend
from .. import plain
from ..engines import RECORD as RECORD
from .entries import is_there, is_version

JOURNAL = ".seatrial.json"
T = TypeVar("T", bound=Record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Version `version` of model `name` holds the artifact of that `digest`; `path` is the version's directory.

    `engine` are the options of the engine that serves it; None: ONNX Runtime on the CPU, or a native backend.
    """

    name: str
    version: int
    digest: str
    backend: Backend
    path: Path
    engine: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values of its record that say what it is; the path follows from its location."""
        engine = {} if self.engine is None else {"engine": dict(self.engine)}
        return {"schema": 1} | {name: getattr(self, name) for name in ("name", "version", "digest", "backend")} | engine


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRecord(
    Record,
    schema=1,
    what="the record of a placed version",
    next_step="move that version's directory away and place the artifact again",
    was={"flavour": "backend"},
):
    """Record in a version's directory; `artifact` names for people what it holds, `files` are their digests.

    `engine` is read by the code that serves the version, so that each version keeps the engine it was proven in while
    all share one configuration.
    """

    name: str
    version: int
    digest: str
    backend: Backend
    artifact: str = ""
    at: str = ""
    files: Mapping[str, str] | None = None
    engine: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedNumbers(
    Record,
    schema=1,
    what="the journal of used version numbers",
    next_step='restore it, or write {"schema":1,"highest":{"MODEL":HIGHEST VERSION EVER USED}}',
):
    """Highest version number ever used, by model."""

    highest: Mapping[str, int] = field(default_factory=dict)


def stored(kind: type[T], path: Path) -> T:
    """Return the record in a plain file; a link in its place is damage.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: it was changed, or cannot be read.
    """
    try:
        return kind.parse(read_plain(path, plain.RECORD_BYTES), where=str(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        why = f"{kind.record_what} cannot be read: {error.strerror or error}"
        raise IntegrityError(why, where=str(path), next_step=kind.record_next_step) from error


def placements(repository: Path, name: str) -> tuple[Placement, ...]:
    """Every version of the model that we placed, lowest first.

    Raises:
        IntegrityError: a record was changed by hand.
    """
    found = [_read(path) for path in version_directories(repository, name) if is_recorded(path)]
    return tuple(sorted(found, key=lambda placement: placement.version))


def models(repository: Path) -> tuple[str, ...]:
    """Return the names of all models in the repository, of any origin."""
    if not repository.is_dir():
        return ()
    found = [path for path in repository.iterdir() if path.is_dir() and is_there(path / "config.pbtxt")]
    return tuple(sorted(path.name for path in found))


def version_directories(repository: Path, name: str) -> list[Path]:
    """Directories that Triton takes for versions: plain integers without leading zeros."""
    folder = repository / name
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if is_version(path.name) and path.is_dir()]


def used_numbers(repository: Path) -> Mapping[str, int]:
    """Return the highest version number ever used, by model, as far as it can be read: see `placing.place`."""
    with suppress(OSError, SeatrialError):
        return stored(UsedNumbers, repository / JOURNAL).highest
    return {}


def is_recorded(path: Path) -> bool:
    """Return whether something has the record's name, be it a record or not."""
    return is_there(path / RECORD)


def _read(path: Path) -> Placement:
    record = stored(PlacementRecord, path / RECORD)
    if (record.name, str(record.version)) != (path.parent.name, path.name):
        raise IntegrityError(
            "the record of a placed version belongs to another model or version",
            where=str(path / RECORD),
            next_step=PlacementRecord.record_next_step,
        )
    return Placement(
        name=record.name,
        version=record.version,
        digest=record.digest,
        backend=record.backend,
        path=path,
        engine=record.engine,
    )
