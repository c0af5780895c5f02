"""Findings of an inspection of stored files: counts, damage with its next step, and repairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import IntegrityError
from .record import Record


class DamageError(IntegrityError):
    """A part of what seatrial keeps is damaged; `part` says which kind of part."""

    def __init__(self, what: str, *, part: str, where: str, next_step: str) -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.part = part


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One damaged part: what it is, where it lies, and the instruction that repairs it."""

    part: str
    what: str
    where: str
    next_step: str

    @classmethod
    def of(cls, error: DamageError) -> "Damage":
        """Return the damage as the error that a reader of the part gets."""
        return cls(part=error.part, what=error.what, where=error.where, next_step=error.next_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(Record, computed=("sound",)):
    """Counts of inspected parts, damage, repairs, and remarks that are not damage."""

    counts: Mapping[str, int] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    repaired: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Exit code: 0 where all is sound, 5 where damage is left."""
        return IntegrityError.exit_code if self.damage else 0

    @property
    def sound(self) -> bool:
        """Return whether no damage is left."""
        return not self.damage

    def __add__(self, other: "Inspection") -> "Inspection":
        """Both together."""
        return Inspection(
            counts={**self.counts, **other.counts},
            damage=(*self.damage, *other.damage),
            repaired=(*self.repaired, *other.repaired),
            remarks=(*self.remarks, *other.remarks),
        )


Inspector = Callable[[Path, bool], Inspection]
"""Callback that inspects the files of a floor above under SEATRIAL_HOME, and repairs them first if the flag is set."""


def shown(text: str) -> str:
    """Return text from a disk without control characters or unprintable characters."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
