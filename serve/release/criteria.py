"""Release criteria: what a model must show before it becomes a release, and which business figures it is for.

Read from TOML (`load_criteria`); `assess` holds a verdict against them. Pure apart from reading the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from seatrial.bench.verdict import Finding, Outcome, Verdict
from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.names import checked

from .surrogate import Pair, Shown, shown

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One business figure: `unit`, the `direction` that is better, and the smallest effect that anybody cares about.

    `worth` is what one unit of it is worth a month, in the currency of `prices.toml`; `owner` answers for it. `metric`
    is the offline metric that stands in for it, of which larger is better where `larger_metric`.
    """

    unit: str
    direction: Literal["up", "down"]
    minimum_effect: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    owner: str
    worth: float = 0.0
    metric: str = ""
    larger_metric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """A finding that the verdict must have and that must have passed; `about` names a class, group or segment.

    `at_most` and `at_least` bound the candidate's value as an SLA does: the interval of an absolute finding must lie
    within them, and of a relative one the value.
    """

    metric: str
    about: str = ""
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What releases of one name must meet.

    `budget` is the budget's file, relative to this one: a verdict by another budget does not count. A KPI that no
    offline metric was shown to follow stays open: it is decided by a rollout, or by what was realised.
    """

    schema: int
    name: str
    purpose: str
    owner: str
    budget: str
    kpi: Mapping[str, Kpi] = field(default_factory=dict)
    require: tuple[Required, ...] = ()

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(f"schema {self.schema}", where="schema", next_step=f"use schema {SCHEMA}")
        checked(self.name, "release name", where="name")
        for each in self.require:
            if each.at_most is not None and each.at_least is not None and each.at_most < each.at_least:
                raise ConfigError(
                    f"at_most {each.at_most:g} is below at_least {each.at_least:g}",
                    where=f"require: {each.metric}",
                    next_step="swap them, or remove one",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One criterion held against a verdict."""

    name: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A verdict held against the criteria: each criterion, and the KPIs that only traffic can decide."""

    criteria: tuple[Criterion, ...]
    open: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """FAIL where one failed, INCONCLUSIVE where one could not tell, else PASS."""
        found = {each.outcome for each in self.criteria}
        return "FAIL" if "FAIL" in found else "INCONCLUSIVE" if found - {"PASS"} else "PASS"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of what did not pass."""
        return tuple(f"{each.name}: {each.reason}" for each in self.criteria if each.outcome != "PASS")


def load_criteria(path: Path) -> Criteria:
    """Read criteria.

    Raises:
        MissingError: no such file.
        ConfigError: not TOML, an unknown key, a value of the wrong type or out of range.
    """
    return config.load(path, Criteria)


def assess(criteria: Criteria, verdict: Verdict, *, budget: str, past: Mapping[str, Sequence[Pair]]) -> Assessment:
    """Hold a verdict against the criteria.

    `budget` is the digest of the criteria's budget. `past` are pairs of offline metric and realised figure of earlier
    releases by KPI: an offline metric may only block, and never passes a KPI, until they show that it follows it.
    """
    found = [_budget(verdict, budget), *(_required(each, verdict) for each in criteria.require)]
    undecided = []
    for name, kpi in criteria.kpi.items():
        criterion = _kpi(name, kpi, verdict, shown(past.get(name, ()), follows=_follows(kpi)))
        if criterion is None:
            undecided.append(name)
        else:
            found.append(criterion)
    return Assessment(criteria=tuple(found), open=tuple(undecided))


def _follows(kpi: Kpi) -> Literal[1, -1]:
    """Return the sign that the correlation of metric and KPI must have."""
    return 1 if kpi.larger_metric == (kpi.direction == "up") else -1


def _budget(verdict: Verdict, digest: str) -> Criterion:
    if verdict.budget == digest:
        return Criterion(name="budget", outcome=verdict.outcome, reason="; ".join(verdict.summary[:2]))
    return Criterion(
        name="budget",
        outcome="INCONCLUSIVE",
        reason=f"the run was judged by another budget ({verdict.budget[:19]}) than the criteria's ({digest[:19]})",
    )


def _required(required: Required, verdict: Verdict) -> Criterion:
    name = required.metric + (f" of {required.about}" if required.about else "")
    about = (required.about,) if required.about else {each.about for each in verdict.findings}
    found = [each for each in verdict.findings if each.metric == required.metric and each.about in about]
    if not found:
        reason = "the run did not check it: add it to the budget, and gate again"
        return Criterion(name=name, outcome="INCONCLUSIVE", reason=reason)
    outcomes = [_one(required, finding) for finding in found]
    for worst in ("FAIL", "INVALID", "INCONCLUSIVE"):
        for outcome, reason in outcomes:
            if outcome == worst:
                return Criterion(name=name, outcome=outcome, reason=reason)
    return Criterion(name=name, outcome="PASS", reason=outcomes[0][1])


def _one(required: Required, finding: Finding) -> tuple[Outcome, str]:
    if finding.outcome != "PASS":
        return finding.outcome, finding.reason
    if required.at_most is None and required.at_least is None:
        return "PASS", finding.reason
    if finding.candidate is None:
        return "INCONCLUSIVE", f"the candidate's {finding.metric} was not measured"
    absolute = finding.ratio is None and finding.difference is None and finding.interval is not None
    low, high = finding.interval if absolute and finding.interval is not None else (finding.candidate,) * 2
    unit = f" {finding.unit}" if finding.unit else ""
    said = f"{finding.candidate:.4g}{unit} [{low:.4g}, {high:.4g}]"
    if required.at_most is not None and high > required.at_most:
        reason = f"{said}, at most {required.at_most:g} is required"
        return ("FAIL" if low > required.at_most else "INCONCLUSIVE"), reason
    if required.at_least is not None and low < required.at_least:
        reason = f"{said}, at least {required.at_least:g} is required"
        return ("FAIL" if high < required.at_least else "INCONCLUSIVE"), reason
    return "PASS", said


def _kpi(name: str, kpi: Kpi, verdict: Verdict, evidence: Shown) -> Criterion | None:
    """Return what the offline metric decides of a KPI; None where only traffic can decide it."""
    finding = verdict.finding(kpi.metric) if kpi.metric else None
    if finding is not None and finding.outcome == "FAIL":
        return Criterion(name=f"KPI {name}", outcome="FAIL", reason=finding.reason)
    if finding is None or finding.outcome != "PASS" or not evidence.follows:
        return None
    return Criterion(name=f"KPI {name}", outcome="PASS", reason=f"by {kpi.metric}: {evidence.reason}")
