"""Tombstones: what a version was that is no longer placed, and why. Its artifact and release stay in their stores.

HOME/retired/MODEL/VERSION.json
"""

from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.artifact import canonical
from seatrial.optimize.names import checked
from seatrial.optimize.record import Record
from seatrial.optimize.store import write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone(Record, schema=1, what="a tombstone", next_step="restore the file from a backup, or move it away"):
    """A version that was retired: the artifact that it served, its configuration, the reason and the replacement."""

    model: str
    version: int
    digest: str
    at: str
    reason: str = ""
    replacement: str = ""
    config: str = ""

    @classmethod
    def of(cls, home: Path, model: str, version: int) -> "Tombstone | None":
        """Return the tombstone of a version; None where it has none.

        Raises:
            IntegrityError: it was changed.
        """
        try:
            return cls.read(path_of(home, model, version))
        except FileNotFoundError:
            return None


def path_of(home: Path, model: str, version: int) -> Path:
    """Return where the tombstone of a version lies."""
    return home / "retired" / checked(model, "model name") / f"{version}.json"


def bury(home: Path, tombstone: Tombstone) -> None:
    """Write a tombstone; it is on the disk when this returns."""
    write_atomically(path_of(home, tombstone.model, tombstone.version), canonical(tombstone.to_json()))
