"""Removal of leftovers of killed runs on this machine, at the next start of any verb.

Looks at names alone, so that a start costs a few directory listings; imports what ends servers only where a dead
process left one. Never touches what belongs to a process that lives.
"""

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from seatrial.optimize import scratch
from seatrial.optimize.environment import home
from seatrial.optimize.errors import SeatrialError

_KIND = "seatrial-"
_NAMELESS = re.compile(r"(?:host|proof)-[0-9a-f]{12}|\d+-[a-z0-9_]{8}")  # of earlier versions: names without an owner
_RUNS = 5  # the newest, so that a start does not read through years of runs
_STAGED_SECONDS = 60.0  # nothing of ours writes one file for so long without a lock on it
_NAMELESS_SECONDS = 24 * 3600.0


def sweep() -> None:
    """Remove scratch folders of dead processes, and stop servers and proxies that only they used."""
    with suppress(SeatrialError, OSError):  # a start is no place to complain; the verb meets what matters to it
        _sweep(home())


def _sweep(base: Path) -> None:
    for root in (base / "work", base / "tune", base / "triton"):
        scratch.sweep(root)
    scratch.sweep(Path(tempfile.gettempdir()), _KIND)
    _sweep_nameless(base / "work")
    _sweep_runs(base / "runs")
    if _left(base / "triton" / "servers"):
        from .triton.running.leftovers import sweep_servers

        sweep_servers()
    if _left(base / "envoy" / "runs"):
        from .traffic.envoy.on_envoy import sweep as sweep_proxies

        sweep_proxies()


def _sweep_nameless(root: Path) -> None:
    """Remove folders of earlier versions that nothing has touched for a day and that no process names."""
    old = [each for each in root.glob("*-*") if _NAMELESS.fullmatch(each.name) and _age(each) > _NAMELESS_SECONDS]
    if not old:
        return
    from .processes import mentioning

    for each in old:
        if not mentioning(str(each)):
            shutil.rmtree(each, ignore_errors=True)


def _sweep_runs(runs: Path) -> None:
    """Remove what killed runs left half-made in the newest run folders."""
    for run in sorted(runs.glob("*"), key=_age)[:_RUNS]:
        for folder, _, files in os.walk(run):
            scratch.sweep(Path(folder), ".load-")
            for path in (Path(folder, file) for file in files if file.startswith(".staged-")):
                if _age(path) > _STAGED_SECONDS:
                    scratch.remove(path)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _left(root: Path) -> bool:
    return next(iter(scratch.abandoned(root)), None) is not None
