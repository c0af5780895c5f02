"""Report of a run of `bench.measuring.measure`, recomputed from its raw values."""

from pathlib import Path

from ..measuring import measured
from .run_report import RunReport, recomputed


def told(folder: Path) -> RunReport:
    """Every figure of a measured run again, and its raw values for a baseline.

    Raises:
        MissingError: no run there.
        IntegrityError: the run cannot be read.
    """
    about, values = measured.read(folder)
    summary = measured.recompute(folder)
    return recomputed(
        "measure",
        folder,
        summary,
        table=lambda: measured.table(summary),
        measured=lambda arm: (about.subject.name, list(values)),
    )
