"""Going on with a gate that could not tell: what is checked before, and the design with more pairs. Starts nothing.

The pairs that were measured stay; those that were spoiled are measured again, and more are added. A look was taken at
them already, at the whole error rate, so the continued run's own look gets the share of the pairs that are new
(`looks`), and the verdict says to what the rates may add up.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples

from ..budget import Budget
from ..verdict import Verdict
from .findings import complete_pairs
from .pairs import GateRun
from .settling import settling

MOST = 200  # pairs


def pairs_for(run: GateRun, verdict: Verdict) -> int:
    """The pairs in all after which the open findings should be settled; those planned, where some were not measured.

    Raises:
        ConfigError: there is nothing to go on with, or no number of pairs would do.
    """
    planned, measured = run.header.budget.design.pairs, len(complete_pairs(run))
    if verdict.outcome in ("PASS", "FAIL"):
        raise ConfigError(
            f"the verdict is {verdict.outcome}, so there is nothing to continue",
            next_step="run without --continue" if verdict.outcome == "FAIL" else "run seatrial ship without --continue",
        )
    if measured < planned:
        return planned
    open_ = [settling(each) for each in verdict.findings if each.gating and each.outcome == "INCONCLUSIVE"]
    wanted = max((each.pairs for each in open_ if each.means == "pairs"), default=0)
    if any(each.means == "noise" for each in open_):  # on this machine as it was; it may be quieter now
        wanted = max(wanted, 2 * planned)
    if verdict.outcome == "INCONCLUSIVE" and not wanted:
        raise ConfigError(
            "more pairs would not settle the open findings", next_step="read the verdict's next steps, or pass --pairs"
        )
    return min(MOST, max(wanted, planned + 2))


def continued(
    run: GateRun, verdict: Verdict, budget: Budget, pairs: int, arms: Mapping[str, Artifact], samples: Samples
) -> Budget:
    """The run's budget with `pairs` pairs in all, once it is sure that they belong to the same run.

    Raises:
        ConfigError: other artifacts, samples, budget or machine than the run began with, or no more pairs than it has.
    """
    began = run.header.budget
    planned = began.design.pairs
    design = replace(budget.design, pairs=planned, looks=began.design.looks)
    there: dict[str, tuple[Any, Any]] = {
        "budget": (replace(budget, design=design).digest, began.digest),
        "samples": (samples.digest, run.header.samples.digest),
        "base": (arms["base"].digest, run.header.base.digest),
        "candidate": (arms["candidate"].digest, run.header.candidate.digest),
        "machine": _machine(environment().to_json(), run.header.environment),
    }
    for what, (now, then) in there.items():
        if now != then:
            raise ConfigError(
                f"{what} differs from the start of the run: now {_short(now)}, then {_short(then)}",
                next_step="start a new gate: run without --continue",
            )
    if pairs % 2 or pairs < planned or pairs > MOST:
        raise ConfigError(
            f"the total of pairs must be even, at least {planned} and at most {MOST}, got {pairs}",
            next_step="pass --pairs",
        )
    if pairs == planned:
        return began
    looks = began.design.looks or (planned,)
    return replace(began, design=replace(began.design, pairs=pairs, looks=(*looks, pairs)))


def _machine(now: Mapping[str, Any], then: Mapping[str, Any]) -> tuple[Any, Any]:
    first, second = ([about.get(name) for name in ("cpu", "cores")] for about in (now, then))
    return first, second


def _short(value: Any) -> str:
    return str(value).removeprefix("sha256:")[:12] if isinstance(value, str) else str(value)
