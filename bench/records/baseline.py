"""Baselines: what a model measured on a class of machine, kept with its raw values under a name.

Never an arm of a gate, since stored figures drift away from what the machine would measure today: a baseline is for
trends, for absolute limits, and for the forecast's spread. A comparison across classes of machine is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seatrial.optimize.artifact import digest_bytes, digest_file
from seatrial.optimize.environment import now
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.names import checked, file_name
from seatrial.optimize.record import Record

from ..gating.findings import complete_pairs, slot_value
from ..gating.pairs import ARMS, Arm, GateRun
from ..measurement import Measurement
from ..measuring.machine_class import MachineClass
from ..metrics import metric_of
from . import journal

PER_SLOT = ("p50", "p99", "throughput", "peak_memory", "startup")
_DERIVED = {"verdict.json", "report.html"}  # what reading a run writes; no part of what was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Record, schema=1, what="the baseline"):
    """One record: a name (``main``), the model, what was measured (one value per slot), and the run's own digest."""

    name: str
    model: str
    run: str
    measurements: tuple[Measurement, ...]
    at: str

    @property
    def machine(self) -> MachineClass:
        """The class of machine that all its values are of."""
        return MachineClass.of(self.measurements[0].environment)

    def of(self, metric: str) -> Measurement | None:
        """Return the measurement of that metric."""
        return next((each for each in self.measurements if each.metric.name == metric), None)

    def check(self) -> None:
        """Check that there are values, and what is read of their machines."""
        if not self.measurements or not all(each.values for each in self.measurements):
            raise ValueError("the baseline has no values")
        for each in self.measurements:
            each.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A metric then and now: medians over slots and their ratio, and the range that the stored slots had."""

    metric: str
    unit: str
    then: float
    now: float
    lowest: float
    highest: float

    @property
    def ratio(self) -> float:
        """Now over then; NaN where then was 0."""
        return self.now / self.then if self.then else math.nan

    @property
    def outside(self) -> bool:
        """Return whether the new value lies outside the range of the stored slots."""
        return not self.lowest <= self.now <= self.highest


def record(home: Path, name: str, measurements: Sequence[Measurement], *, model: str, run: str) -> Baseline:
    """Keep measurements as the model's baseline of that name; an older one of the name stays in the journal.

    Raises:
        ConfigError: no values, or values of several classes of machine.
        MachineError: the disk refused.
    """
    checked(name, "baseline name", where="--name")
    classes = {MachineClass.of(each.environment) for each in measurements if each.values}
    if len(classes) != 1:
        what = "nothing was measured" if not classes else f"the values come from {len(classes)} machine classes"
        raise ConfigError(
            f"the run gives no baseline: {what}", where=run, next_step="record a run that measured on one machine"
        )
    made = Baseline(
        name=name, model=model, run=run, measurements=tuple(each for each in measurements if each.values), at=now()
    )
    journal.append(path_of(home, classes.pop(), model), made.to_json())
    return made


def read(home: Path, model: str, name: str, machine: MachineClass) -> Baseline:
    """The model's newest baseline of that name on that class of machine.

    Raises:
        ConfigError: there is one, but of other classes of machine only.
        MissingError: there is none.
    """
    every = [each for each in known(home) if each.model == model and each.name == name]
    fits = [each for each in every if each.machine == machine]
    if fits:
        return fits[-1]
    if every:
        others = "; ".join(sorted({str(each.machine) for each in every}))
        raise ConfigError(
            f"baseline {name!r} of {model} was measured on another machine class: {others}",
            where=f"this machine: {machine}",
            next_step="values of different machines cannot be compared; record a baseline here",
        )
    names = ", ".join(sorted({f"{each.model} {each.name}" for each in known(home)})) or "none"
    raise MissingError(
        f"there is no baseline {name!r} of {model}",
        where=str(home),
        next_step=f"record one with seatrial baseline record; known: {names}",
    )


def known(home: Path) -> list[Baseline]:
    """Every record, by class of machine and model, oldest first within these."""
    paths = sorted((home / "baselines").glob("*/*.jsonl"))
    return [each for path in paths for each in journal.records(path, 1, Baseline.from_json)]


def compare(stored: Baseline, measured: Sequence[Measurement]) -> list[Movement]:
    """Compare every common metric; an informational change, not a verdict.

    Raises:
        ConfigError: measured on another class of machine.
    """
    for each in measured:
        if MachineClass.of(each.environment) != stored.machine:
            raise ConfigError(
                f"baseline {stored.name!r} was measured on another machine class: {stored.machine}",
                where=f"measured on {MachineClass.of(each.environment)}",
                next_step="values of different machines cannot be compared; use a baseline of the same class",
            )
    both = [(old, new) for new in measured if new.values and (old := stored.of(new.metric.name)) is not None]
    return [
        Movement(
            metric=new.metric.name,
            unit=new.metric.unit,
            then=float(np.median(old.values)),
            now=float(np.median(new.values)),
            lowest=min(old.values),
            highest=max(old.values),
        )
        for old, new in both
    ]


def spread(stored: Baseline, metric: str) -> float | None:
    """The standard deviation of the logarithm between slots, for a forecast; None from fewer than three slots."""
    measured = stored.of(metric)
    if measured is None or len(measured.values) < 3 or not all(0 < each < math.inf for each in measured.values):
        return None
    return float(np.std(np.log(measured.values), ddof=1))


def as_limits(stored: Baseline, headroom: float) -> str:
    """Absolute limits for a budget (TOML): the worst stored slot with `headroom` (0.1 = 10 %) beyond it."""
    lines = []
    for each in stored.measurements:
        lower = each.metric.direction == "lower"
        bound = max(each.values) * (1 + headroom) if lower else min(each.values) / (1 + headroom)
        rule = "at_most" if lower else "at_least"
        lines += ["[[limits]]", f'metric = "{each.metric.name}"', f"{rule} = {float(f'{bound:.4g}')!r}", ""]
    return "\n".join(lines)


def measurements_of(run: GateRun, arm: Arm) -> list[Measurement]:
    """Return the measurements of one arm of a gate: one value per usable slot and metric."""
    design, named = run.header.budget.design, run.named(arm)
    found = []
    for metric in PER_SLOT:
        slots = [pair[ARMS.index(arm)] for pair in complete_pairs(run)]
        values = [slot_value(slot, metric, 1.0) for slot in slots]
        found.append(
            Measurement(
                subject=named.digest,
                metric=metric_of(metric),
                scenario=f"poisson {design.rate:g}/s for {design.seconds:g} s",
                values=tuple(value for value in values if value is not None),
                environment=run.header.environment,
                at=run.header.at,
            )
        )
    return [each for each in found if each.values]


def digest_of(folder: Path) -> str:
    """A digest of everything raw in a run's folder: the same wherever the folder lies, another where a byte differs."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _DERIVED)
    lines = [f"{path.relative_to(folder).as_posix()} {digest_file(path)}" for path in files]
    return digest_bytes("\n".join(lines).encode())


def path_of(home: Path, machine: MachineClass, model: str) -> Path:
    """Return the path of a model's baselines on a class of machine."""
    return home / "baselines" / machine.key / f"{file_name(model)}.jsonl"
