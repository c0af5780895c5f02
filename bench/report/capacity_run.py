"""Report of a stored capacity search: the same result, recomputed from its probes."""

from pathlib import Path

from ..capacity import run, show
from .run_report import RunReport, recomputed


def told(folder: Path) -> RunReport:
    """The capacity of a search again, from every probe's raw run.

    Raises:
        IntegrityError: the run cannot be read.
    """
    found = run.recompute(folder)
    return recomputed(
        "capacity", folder, found, table=lambda: show.table(found), page=lambda path: show.write_html(path, found)
    )
