"""A load verb's folder: the raw run, the scenario that it was run under, and what the server counted meanwhile.

So that a report computes everything again that the verb printed. Judges nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.record import Record

from ..measurement import NOTHING
from ..scenarios import Offline, Scenario, Server
from ..server_statistics import Counted
from .run import LoadRun, Saturation
from .show import Reading, read

_NAME = "load.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions(Record, schema=1, what="the scenario of the load"):
    """The scenario of a load, and the server's counts during it."""

    scenario: Scenario
    server: Counted


def keep(folder: Path, scenario: Scenario, counted: Counted) -> None:
    """Write the scenario and the server's counts beside the raw run."""
    Conditions(scenario=scenario, server=counted).write(folder / _NAME, indent=1)


def reading(folder: Path, run: LoadRun | Saturation) -> tuple[Reading, Counted]:
    """Return the summary of a stored run and the server's counters; unavailable if they were not kept.

    Raises:
        IntegrityError: the scenario cannot be read.
    """
    found = Conditions.find(folder / _NAME)
    if found is None:
        return read(_likely(run), run), NOTHING
    return read(found.scenario, run), found.server


def _likely(run: LoadRun | Saturation) -> Scenario:
    """The scenario of a run that another than the load verb made, or that was stopped early."""
    if isinstance(run, LoadRun):
        return Server(rate=run.schedule.rate, batch=run.batch)
    return Offline(batch=run.batch, concurrency=run.concurrency)
