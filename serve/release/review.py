"""Review of a release: what was promised before it was served, and what was realised since.

HOME/reviews/NAME.jsonl    one realised figure a line
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seatrial.bench.records import journal
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked
from seatrial.optimize.record import Record

from .record import Release
from .surrogate import Pair

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised(Record, schema=_SCHEMA, what="a realised figure"):
    """A figure of a release as it turned out: `kpi` is a KPI of the criteria or a metric of the verdict.

    `low` and `high` are its interval, where one is known. `at` is when it was written down.
    """

    release: str
    kpi: str
    value: float
    at: str
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of a release: what the verdict promised, and what was realised last."""

    figure: str
    unit: str
    promised: float | None
    realised: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


class Reviews:
    """Realised figures under one home."""

    def __init__(self, home: Path) -> None:
        self.root = home / "reviews"

    def add(self, realised: Realised) -> None:
        """Write a figure down; it is on the disk when this returns.

        Raises:
            ConfigError: its interval does not hold it.
            MachineError: the disk refused.
        """
        low = realised.value if realised.low is None else realised.low
        high = realised.value if realised.high is None else realised.high
        if not low <= realised.value <= high:
            raise ConfigError(
                f"{realised.value:g} does not lie in [{low:g}, {high:g}]",
                where="--low, --high",
                next_step="give the interval of that figure",
            )
        journal.append(self._path(realised.release.partition("@")[0]), realised.to_json())

    def of(self, name: str) -> list[Realised]:
        """Return every figure of a name, oldest first.

        Raises:
            IntegrityError: a line is damaged; names file and line.
        """
        return journal.records(self._path(name), _SCHEMA, Realised.from_json)

    def _path(self, name: str) -> Path:
        return self.root / f"{checked(name, 'release name')}.jsonl"


def compared(release: Release, realised: Sequence[Realised]) -> tuple[Compared, ...]:
    """Return what a release promised against what was realised: first the verdict's figures, then others."""
    last = {each.kpi: each for each in realised if each.release == release.label}
    found = list[Compared]()
    for finding in release.verdict.get("findings", ()):
        name = str(finding["metric"]) + (f" of {finding['about']}" if finding.get("about") else "")
        if finding.get("candidate") is not None and name not in {each.figure for each in found}:
            found.append(_row(name, str(finding.get("unit", "")), finding["candidate"], last.pop(name, None)))
    return (*found, *(_row(name, "", None, each) for name, each in last.items()))


def _row(name: str, unit: str, promised: float | None, realised: Realised | None) -> Compared:
    if realised is None:
        return Compared(figure=name, unit=unit, promised=promised, realised=None)
    return Compared(
        figure=name,
        unit=unit,
        promised=promised,
        realised=realised.value,
        low=realised.low,
        high=realised.high,
        note=realised.note,
    )


def pairs(releases: Sequence[Release], realised: Sequence[Realised], *, kpi: str, metric: str) -> list[Pair]:
    """Return offline metric and realised KPI of each release that has both, oldest first."""
    last = {each.release: each.value for each in realised if each.kpi == kpi}
    found = []
    for release in releases:
        promised = next(
            (
                each.get("candidate")
                for each in release.verdict.get("findings", ())
                if each.get("metric") == metric and not each.get("about")
            ),
            None,
        )
        if promised is not None and release.label in last:
            found.append(Pair(release=release.label, offline=float(promised), realised=last[release.label]))
    return found
