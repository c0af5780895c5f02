"""What an inspection of stored things found: counts, damage with its next step, and what a repair did about it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import IntegrityError


class DamageError(IntegrityError):
    """A part of what seatrial keeps is damaged; `part` says which kind of part."""

    def __init__(self, what: str, *, part: str, where: str, next_step: str) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.part = part


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One damaged part: what it is, where it lies, and the instruction that heals it."""

    part: str
    what: str
    where: str
    next_step: str

    @classmethod
    def of(cls, error: DamageError) -> "Damage":
        """Return what a reader of the part would be told."""
        return cls(part=error.part, what=error.what, where=error.where, next_step=error.next_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """How many parts were looked at, the damage that is there, what was repaired, and remarks that are no damage."""

    counts: Mapping[str, int] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    repaired: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 sound, 5 damage is there."""
        return IntegrityError.exit_code if self.damage else 0

    def to_json(self) -> dict[str, Any]:
        """JSON values, for ``--json``."""
        return {
            "sound": not self.damage,
            "counts": dict(self.counts),
            "damage": [asdict(each) for each in self.damage],
            "repaired": list(self.repaired),
            "remarks": list(self.remarks),
        }

    def __add__(self, other: "Inspection") -> "Inspection":
        """Both together."""
        return Inspection(
            counts={**self.counts, **other.counts},
            damage=(*self.damage, *other.damage),
            repaired=(*self.repaired, *other.repaired),
            remarks=(*self.remarks, *other.remarks),
        )


Inspector = Callable[[Path, bool], Inspection]
"""Inspects what a floor above keeps under SEATRIAL_HOME, and repairs it first where the flag says so."""


def shown(text: str) -> str:
    """Text from a disk without what a terminal would obey or could not show."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
