"""Scenarios that can be rehearsed, and the record of a rehearsal.

Pure. A rehearsal passes where the fault was noticed and overcome within its limits, and where everything stands
afterwards as it stood before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from seatrial.optimize.artifact import canonical
from seatrial.optimize.names import checked
from seatrial.optimize.plain import write_atomically
from seatrial.optimize.record import Record

Scenario = Literal[
    "model-killed",
    "model-stalled",
    "server-killed",
    "edge-killed",
    "poisoned-feature",
    "dead-pipeline",
    "revoked-key",
]
Unit = Literal["seconds", "windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Description of a scenario: the damage, who is to notice it, and by when at the latest, in its unit."""

    does: str
    notices: str
    limit: float
    unit: Unit = "seconds"


SCENARIOS: Final[Mapping[Scenario, Description]] = {
    "model-killed": Description(
        does="kills the processes of one version, which Triton goes on calling ready",
        notices="seatrial supervise, which loads the version again",
        limit=30.0,
    ),
    "model-stalled": Description(
        does="halts the processes of one version (SIGSTOP), so that its latency has no end",
        notices="seatrial supervise, which replaces them",
        limit=60.0,
    ),
    "server-killed": Description(
        does="kills the server",
        notices="seatrial supervise, which starts it again with its versions",
        limit=120.0,
    ),
    "edge-killed": Description(
        does="kills the edge's proxy",
        notices="seatrial edge watch, which starts it again with its routes",
        limit=60.0,
    ),
    "poisoned-feature": Description(
        does="multiplies one number of twelve windows of recorded traffic by 1,000, in a copy of the monitor",
        notices="the monitor, which names the feature and advises to patch what feeds the model",
        limit=3.0,
        unit="windows",
    ),
    "dead-pipeline": Description(
        does="leaves twelve windows of recorded traffic empty, in a copy of the monitor",
        notices="the monitor, to which silence is a state of its own",
        limit=3.0,
        unit="windows",
    ),
    "revoked-key": Description(
        does="revokes, in memory, the key of one approval that counts",
        notices="the approvals: the role is short at once, and placing would be refused",
        limit=1.0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal(Record, schema=1, what="a rehearsal", computed=("passed",)):
    """One rehearsal: times from the fault on, in the scenario's unit; None for what did not come in time.

    `evidence` is the word of who noticed. `same` says whether everything stood afterwards as it stood before; `undone`
    whether the fault itself had to be taken back, since nothing had overcome it.
    """

    scenario: Scenario
    model: str
    subject: str
    at: str
    detected: float | None
    recovered: float | None
    limit: float
    unit: Unit
    evidence: str = ""
    same: bool = True
    undone: bool = False

    @property
    def passed(self) -> bool:
        """Return whether it was noticed and overcome in time, and left nothing behind."""
        in_time = self.detected is not None and self.detected <= self.limit
        return in_time and self.recovered is not None and self.same and not self.undone


def keep(home: Path, rehearsal: Rehearsal) -> Path:
    """Write the record of a rehearsal; return its file."""
    folder = home / "rehearsals" / checked(rehearsal.model, "model name")
    path = folder / f"{rehearsal.at.replace(':', '').replace('+0000', '')}-{rehearsal.scenario}.json"
    write_atomically(path, canonical(rehearsal.to_json()))
    return path


def kept(home: Path, model: str) -> tuple[Rehearsal, ...]:
    """Return the rehearsals of a model, oldest first.

    Raises:
        IntegrityError: a record is damaged.
    """
    folder = home / "rehearsals" / checked(model, "model name")
    return tuple(Rehearsal.read(path) for path in sorted(folder.glob("*.json")))
