"""The history of gates: one line per gate and metric, by model and class of machine, only ever appended.

What a gate found (ratio with interval, both values) stays as it was found; what it adds up to is for
`bench.records.trend`. INVALID runs leave no line: they measured nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from seatrial.optimize.names import file_name
from seatrial.optimize.record import Record

from ..gating.pairs import GateRun
from ..measuring.machine_class import MachineClass
from ..verdict import Verdict
from . import journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Record, schema=1, what="the point of a history"):
    """One metric in one gate: the values of both arms, candidate over base with its interval, and what was decided.

    `run` is the digest of the run's raw files (`bench.records.baseline.digest_of`), `at` when it was measured.
    """

    model: str
    metric: str
    unit: str
    base: float
    candidate: float
    ratio: float | None
    interval: tuple[float, float] | None
    outcome: str
    verdict: str
    base_digest: str
    candidate_digest: str
    machine: str
    commit: str
    run: str
    at: str

    def check(self) -> None:
        """Check the time, by which points are ordered."""
        datetime.fromisoformat(self.at)


def record(home: Path, run: GateRun, verdict: Verdict, digest: str) -> tuple[Point, ...]:
    """Add a gate to its model's history; nothing where it is there already or was INVALID.

    Raises:
        MachineError: the disk refused.
    """
    machine = MachineClass.of(run.header.environment)
    model = verdict.candidate.name
    path = path_of(home, machine, model)
    if verdict.outcome == "INVALID" or any(line.get("run") == digest for line in journal.read(path, 1)):
        return ()
    made: dict[str, Point] = {}
    for finding in verdict.findings:
        if finding.base is None or finding.candidate is None or (finding.metric in made and finding.ratio is None):
            continue
        made[finding.metric] = Point(
            model=model,
            metric=finding.metric,
            unit=finding.unit,
            base=finding.base,
            candidate=finding.candidate,
            ratio=finding.ratio,
            interval=finding.interval if finding.ratio is not None else None,
            outcome=finding.outcome,
            verdict=verdict.outcome,
            base_digest=verdict.base.digest,
            candidate_digest=verdict.candidate.digest,
            machine=machine.key,
            commit=str(run.header.environment.get("commit") or ""),
            run=digest,
            at=verdict.at,
        )
    for point in made.values():
        journal.append(path, point.to_json())
    return tuple(made.values())


def points(home: Path, model: str, machine: MachineClass) -> list[Point]:
    """The model's history on that class of machine, oldest measurement first."""
    found = journal.records(path_of(home, machine, model), 1, Point.from_json)
    return sorted(found, key=lambda point: point.at)


def models(home: Path, machine: MachineClass) -> list[str]:
    """The models that have a history on that class of machine."""
    return sorted(path.stem for path in (home / "history" / machine.key).glob("*.jsonl"))


def path_of(home: Path, machine: MachineClass, model: str) -> Path:
    """Return the path of a model's history on a class of machine."""
    return home / "history" / machine.key / f"{file_name(model)}.jsonl"
