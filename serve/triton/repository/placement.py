"""The placement: one version of a model as it lies in a Triton repository.

Reads what `repository.place` wrote and nothing else; a version directory without our record is foreign and is
reported as such, never touched.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.plain import read_plain

from ...deployment import Flavour
from .. import plain
from .entries import is_there, is_version

RECORD = "placement.json"
JOURNAL = ".seatrial.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Version `version` of model `name` holds the artifact of that `digest`; `path` is the version's directory."""

    name: str
    version: int
    digest: str
    flavour: Flavour
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of the record in the version's directory; the path follows from its location."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "flavour": self.flavour,
        }


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
    try:
        content = json.loads(read_plain(repository / JOURNAL, plain.RECORD_BYTES))
        return {str(name): int(highest) for name, highest in content["highest"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def is_recorded(path: Path) -> bool:
    """Return whether something has the record's name, be it a record or not."""
    return is_there(path / RECORD)


def _read(path: Path) -> Placement:
    try:
        record = json.loads(read_plain(path / RECORD, plain.RECORD_BYTES))
        placement = Placement(
            name=str(record["name"]),
            version=int(record["version"]),
            digest=str(record["digest"]),
            flavour=record["flavour"],
            path=path,
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _changed(path, getattr(error, "strerror", None) or str(error)) from error
    if record.get("schema") != SCHEMA or (placement.name, str(placement.version)) != (path.parent.name, path.name):
        raise _changed(path, "it belongs to another model, version or schema")
    if placement.flavour not in get_args(Flavour):
        raise _changed(path, f"it names the unknown flavour {placement.flavour!r}")
    return placement


def _changed(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the record of a placed version cannot be used: {why}",
        where=str(path / RECORD),
        next_step="move that version's directory away and place the artifact again",
    )
