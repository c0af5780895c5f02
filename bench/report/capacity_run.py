"""What a capacity search left in a folder: the same result again from its probes."""

from pathlib import Path

from ..capacity import run, show
from .told import Told, recomputed


def told(folder: Path) -> Told:
    """The capacity of a search again, from every probe's raw run.

    Raises:
        IntegrityError: the run cannot be read.
    """
    found = run.recompute(folder)
    return recomputed(
        "capacity", folder, found, table=lambda: show.table(found), page=lambda path: show.write_html(path, found)
    )
