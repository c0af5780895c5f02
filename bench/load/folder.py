"""A load verb's folder: the raw run, the scenario that it was run under, and what the server counted meanwhile.

So that a report computes everything again that the verb printed. Judges nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seatrial.optimize.reading import decode, read_object
from seatrial.optimize.store import write_atomically

from ..scenarios import MultiStream, Offline, Scenario, Server, SingleStream
from .run import LoadRun, Saturation
from .show import Reading, read

SCHEMA = 1
_NAME = "load.json"
_SCENARIOS: Mapping[str, type[Any]] = {
    "server": Server,
    "single-stream": SingleStream,
    "multi-stream": MultiStream,
    "offline": Offline,
}


def keep(folder: Path, scenario: Scenario, counted: Mapping[str, Any]) -> None:
    """Write the scenario and the server's counts (`server_statistics.Window.counted`) beside the raw run."""
    told = {"schema": SCHEMA, "scenario": asdict(scenario), "server": dict(counted)}
    write_atomically(folder / _NAME, json.dumps(told, indent=1, allow_nan=False).encode())


def reading(folder: Path, run: LoadRun | Saturation) -> tuple[Reading, dict[str, Any]]:
    """Return the summary of a stored run and the server's counters; empty if they were not kept.

    Raises:
        IntegrityError: the scenario cannot be read.
    """
    try:
        told = read_object(folder / _NAME, schema=SCHEMA)
    except FileNotFoundError:
        return read(_likely(run), run), {}
    values = dict(told["scenario"])
    scenario: Scenario = decode(_SCENARIOS[values["name"]], values, where=str(folder / _NAME))
    return read(scenario, run), dict(told["server"])


def _likely(run: LoadRun | Saturation) -> Scenario:
    """The scenario of a run that another than the load verb made, or that was stopped early."""
    if isinstance(run, LoadRun):
        return Server(rate=run.schedule.rate, batch=run.batch)
    return Offline(batch=run.batch, concurrency=run.concurrency)
