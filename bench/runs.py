"""Folders of runs: one per run under the home, named by kind and time. Writes nothing and reads no run."""

from datetime import UTC, datetime
from pathlib import Path

from seatrial.optimize.environment import home


def run_folder(kind: str) -> Path:
    """A folder for a run that does not exist yet, named by kind and time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = home() / "runs" / f"{kind}-{stamp}"
    number = 1
    while (folder := base.with_name(f"{base.name}-{number}" if number > 1 else base.name)).exists():
        number += 1
    return folder
