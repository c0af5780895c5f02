"""One look at new traffic: read the tables, judge what came since the last look, keep how far it was judged.

`judge` writes nothing and `keep` writes what it found, first the windows for reports, then the state. A kill or a
refusal of the disk at any point leaves the state of the look before, from which the same windows are judged again with
the same result.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MachineError, MissingError
from seatrial.optimize.locking import locked

from . import history, learning, on_duckdb, watching
from .learning import Learned, Progress
from .plan import Plan
from .shelf import Shelf
from .watching import Look


def folder_of(model: str) -> Path:
    """Return the folder of a model's monitor."""
    return home() / "watch" / model


@contextmanager
def shelf_of(model: str, *, patience: float = 10.0) -> Iterator[Shelf]:
    """Hold the folder of a model's monitor for the length of a block.

    Raises:
        MachineError: another process holds it for longer than `patience` seconds.
    """
    folder = folder_of(model)
    busy = MachineError(
        "another process watches this model", where=str(folder), next_step="wait for it to end, then retry"
    )
    with locked(folder.with_name(f"{model}.lock"), seconds=patience, busy=busy):
        yield Shelf(folder=folder)


def tables(files: Sequence[Path]) -> list[Path]:
    """Return the tables that the paths name: files, and of a folder those in it, by name.

    Raises:
        MissingError: a folder without tables.
    """
    found = list[Path]()
    for path in files:
        inside = sorted(each for each in path.iterdir() if each.suffix in on_duckdb.READERS) if path.is_dir() else []
        if path.is_dir() and not inside:
            raise MissingError(
                "no table lies in the folder", where=str(path), next_step=f"write {', '.join(on_duckdb.READERS)} there"
            )
        found += inside or [path]
    return found


def judge(
    plan: Plan, shelf: Shelf, files: Sequence[Path], progress: Progress, *, until: float | None = None, where: str = ""
) -> tuple[Learned, Look]:
    """Judge what came since the last look, up to `until` (default: the last row); nothing is written.

    Raises:
        ConfigError: the plan has changed since the baseline was learned, or a table cannot be read.
        MissingError: no baseline, or no such table.
        IntegrityError: a stored record is damaged.
    """
    learned, digest = shelf.baseline()
    if digest != plan.digest:
        raise ConfigError(
            "the plan is not the one that the baseline was learned by",
            where=where,
            next_step=f"learn again: seatrial learn {where or 'PLAN'} FILE, or take the changes back",
        )
    kept = shelf.state()
    begin = kept[1].until if kept else None
    with on_duckdb.opened(plan, tables(files)) as traffic:
        for note in traffic.notes:
            progress("captured", 1.0, note)
        intervals = learning.windows(plan, learned.sketch, traffic, progress, label="windows", begin=begin, until=until)
    return learned, watching.look(plan, learned, kept, intervals)


def keep(shelf: Shelf, look: Look) -> None:
    """Write what a look found.

    Raises:
        OSError, MachineError: the disk refused; the state is that of the look before.
    """
    history.append(shelf.folder, look)
    shelf.keep_state(look.state, look.watched, look.waiting)
