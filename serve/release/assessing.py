"""Criteria found and held against a verdict, with what earlier releases promised and realised."""

from pathlib import Path

from seatrial.bench.budget import load_budget
from seatrial.bench.verdict import Verdict

from ..errors import RegistryError
from .criteria import Assessment, Criteria, assess, load_criteria
from .registry import Registry
from .review import Reviews, pairs
from .surrogate import Pair

CRITERIA = Path("serve/criteria")


def assessed(name: str, verdict: Verdict, path: Path | None, *, home: Path) -> Assessment | None:
    """Hold a verdict that passed against the criteria of that name; None where there are none.

    Raises:
        RegistryError: a criterion failed (exit code 1), was not checked or could not tell (3).
        MissingError, ConfigError: the criteria or their budget cannot be read, or they are another name's.
    """
    found = path or CRITERIA / f"{name}.toml"
    if (path is None and not found.exists()) or verdict.outcome != "PASS":
        return None
    criteria = load_criteria(found)
    if criteria.name != name:
        raise RegistryError(
            f"these are the criteria of {criteria.name}, not of {name}",
            where=str(found),
            next_step="name the criteria of this release: --criteria FILE",
            exit_code=2,
        )
    assessment = assess(
        criteria,
        verdict,
        budget=load_budget(found.parent / criteria.budget).digest,
        past=_past(name, criteria, home),
    )
    if assessment.outcome != "PASS":
        raise RegistryError(
            f"{name} does not meet its criteria: {'; '.join(assessment.reasons[:3])}",
            where=str(found),
            next_step="fix the causes, or have the criteria changed; then gate and register again",
            exit_code=1 if assessment.outcome == "FAIL" else 3,
        )
    return assessment


def _past(name: str, criteria: Criteria, home: Path) -> dict[str, list[Pair]]:
    releases, realised = Registry(home / "releases").releases(name), Reviews(home).of(name)
    return {
        kpi: pairs(releases, realised, kpi=kpi, metric=each.metric) for kpi, each in criteria.kpi.items() if each.metric
    }
