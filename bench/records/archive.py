"""Archive of trials: noise, false-alarm and miss rates per machine class.

One journal per machine class (`optimize.environment.Environment.fingerprint`) under the home. Every line is one `aa` or
`drill` with the spread of each metric between slots, the time a slot took, and how its gates ended. Judges nothing.
"""

from pathlib import Path

from seatrial.optimize.environment import Environment

from ..gating.noise import Trial
from . import journal


def path_of(home: Path, machine: Environment) -> Path:
    """Return the path of the trials of that class of machine."""
    return home / "trials" / f"{machine.fingerprint.removeprefix('sha256:')[:16]}.jsonl"


def append(home: Path, machine: Environment, trial: Trial) -> None:
    """Add a trial; raises MachineError where the disk refuses."""
    journal.append(path_of(home, machine), trial.to_json())


def trials(home: Path, machine: Environment) -> list[Trial]:
    """All trials of that class of machine, oldest first."""
    return journal.records(path_of(home, machine), 1, Trial.from_json)
