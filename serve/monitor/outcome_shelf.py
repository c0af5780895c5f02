"""Outcomes on disk: parts of some thousand, each staged, fsynced and renamed, so that a kill leaves old or new.

One lock for a model's outcomes; whoever reads takes none, since each file is whole at any moment.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from seatrial.optimize.environment import home
from seatrial.optimize.errors import MachineError
from seatrial.optimize.locking import locked
from seatrial.optimize.names import checked
from seatrial.optimize.record import Record

from .outcomes import Conflict, Outcome

_PART = 5000  # outcomes of a file, which is written again until it is full: chosen
_RESTORE = "restore the file from a copy, or move it away and add the outcomes again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Record, schema=1, what="a file of outcomes", next_step=_RESTORE):
    """Outcomes in the order in which they were added."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts(Record, schema=1, what="the conflicts of outcomes", next_step=_RESTORE):
    """Values that differ from what stands, until one is added with `--replace`."""

    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Record, schema=1, what="the queue of cases to label", next_step=_RESTORE):
    """Why each request was chosen that was handed out to be labelled."""

    chosen_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeShelf:
    """The folder of one model's outcomes."""

    folder: Path

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return all outcomes in the order in which they were added.

        Raises:
            IntegrityError: a file is damaged; names it.
        """
        return tuple(each for path in self._parts() for each in Part.read(path).outcomes)

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Add outcomes: all of them are on disk when this returns, the files before the last one stay as they are."""
        parts = self._parts()
        last = Part.read(parts[-1]).outcomes if parts else ()
        number = len(parts) or 1
        if len(last) >= _PART:
            last, number = (), number + 1
        every = (*last, *outcomes)
        for at in range(0, len(every), _PART):
            self._write(Part(outcomes=every[at : at + _PART]), f"{number + at // _PART:06d}.json")

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the values that differ from what stands."""
        found = Conflicts.find(self.folder / "conflicts.json")
        return found.conflicts if found else ()

    def keep_conflicts(self, conflicts: Sequence[Conflict]) -> None:
        """Write which values differ from what stands."""
        if tuple(conflicts) != self.conflicts():
            self._write(Conflicts(conflicts=tuple(conflicts)), "conflicts.json")

    def queued(self) -> Mapping[str, str]:
        """Return why each request was chosen that was handed out."""
        found = Queued.find(self.folder / "queued.json")
        return found.chosen_by if found else {}

    def keep_queued(self, chosen_by: Mapping[str, str]) -> None:
        """Write why requests were chosen, beside those of before."""
        self._write(Queued(chosen_by={**self.queued(), **chosen_by}), "queued.json")

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.json"))

    def _write(self, record: Record, name: str) -> None:
        try:
            record.write(self.folder / name)
        except OSError as error:
            raise MachineError(
                f"cannot write outcomes: {error.strerror or error}",
                where=str(self.folder / name),
                next_step="free space there, or allow this user to write there; then add the file again",
            ) from error


def shelf_of(model: str) -> OutcomeShelf:
    """Return the outcomes of a model, for reading.

    Raises:
        ConfigError: the model's name cannot be one.
    """
    return OutcomeShelf(folder=home() / "watch" / checked(model, "model name") / "outcomes")


@contextmanager
def held(model: str) -> Iterator[OutcomeShelf]:
    """Hold the outcomes of a model for the length of a block, for writing; raises as `shelf_of`.

    Raises:
        MachineError: another process holds them.
    """
    shelf = shelf_of(model)
    busy = MachineError(
        "another process writes outcomes of this model",
        where=str(shelf.folder),
        next_step="wait for it to end, then retry",
    )
    with locked(shelf.folder.with_name("outcomes.lock"), seconds=60.0, busy=busy):
        yield shelf
