"""pytest-benchmark's files: read as runs, judged by the gate's statistics, and written from seatrial's own runs.

One file is one run of one process, and a run gives ONE number: rounds within a process share its luck, so that a test
over them finds differences where there are none. Base and candidate must take turns (ABBA): a stored base, or all of
one and then all of the other, cannot tell a change from the machine's drift, and is INCONCLUSIVE here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.reading import SHAPE_ERRORS, read_json
from seatrial.optimize.units import format_value

from .. import stats
from ..decision import holm
from ..verdict import Finding

STATISTICS = ("p50", "p99", "mean", "min")
RULES = ("max_regression", "at_most")
ALPHA_PASS, ALPHA_FAIL = 0.05, 0.01
_ROUNDS_FOR_P99 = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """One benchmark in one run: seconds per call of every round, or only the file's own summary of them."""

    data: tuple[float, ...]
    summary: Mapping[str, float]

    def number(self, statistic: str) -> float | None:
        """The one number that this run gives; None where its rounds cannot give it.

        A round that is no time (negative, infinite, NaN) is given instead: no statistic of such rounds means anything.
        """
        if (wrong := next((each for each in self.data if not 0 <= each < math.inf), None)) is not None:
            return wrong
        if statistic == "p99":
            return float(np.quantile(self.data, 0.99)) if len(self.data) >= _ROUNDS_FOR_P99 else None
        if self.data:
            made = {"p50": np.quantile(self.data, 0.5), "mean": np.mean(self.data), "min": np.min(self.data)}
            return float(made[statistic])
        value = self.summary.get({"p50": "median"}.get(statistic, statistic))
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One file: when it was written, on what machine, and its benchmarks by full name."""

    at: str
    machine: Mapping[str, Any]
    benchmarks: Mapping[str, Rounds]
    path: Path

    def find(self, name: str) -> Rounds | None:
        """The benchmark of that name; its path may begin elsewhere, as pytest's root folder did."""
        if name in self.benchmarks:
            return self.benchmarks[name]
        alike = [key for key in self.benchmarks if key.endswith(f"/{name}") or name.endswith(f"/{key}")]
        return self.benchmarks[alike[0]] if len(alike) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Limit on one benchmark: a statistic of its rounds, with a relative margin or a maximum in seconds."""

    statistic: str
    rule: str
    margin: float

    def __post_init__(self) -> None:
        if self.statistic not in STATISTICS:
            raise ConfigError(
                f"unknown statistic {self.statistic!r}",
                where="budget",
                next_step=f"known statistics: {', '.join(STATISTICS)}",
            )
        if self.rule not in RULES or not math.isfinite(self.margin) or self.margin <= 0:
            raise ConfigError(
                f"{self.rule} must be positive and finite, got {self.margin!r}",
                where="budget",
                next_step=f"use one of {', '.join(RULES)}",
            )


def read_session(path: Path) -> Session:
    """Read one file that ``pytest --benchmark-json`` wrote.

    Raises:
        MissingError: no such file.
        IntegrityError: not such a file.
    """
    if not path.is_file():
        raise MissingError("no such file", where=str(path), next_step="write it with pytest --benchmark-json=FILE")
    try:
        value = read_json(path, next_step="write it again with pytest --benchmark-json=FILE", constants=True)
        found = {
            str(each["fullname"]): Rounds(
                data=tuple(float(item) for item in each["stats"].get("data") or ()),
                summary={key: float(item) for key, item in each["stats"].items() if isinstance(item, int | float)},
            )
            for each in value["benchmarks"]
        }
        return Session(at=str(value["datetime"]), machine=value.get("machine_info", {}), benchmarks=found, path=path)
    except (IntegrityError, OSError, *SHAPE_ERRORS) as error:
        raise IntegrityError(
            f"not a pytest-benchmark file: {error!r}",
            where=str(path),
            next_step="write it again with pytest --benchmark-json=FILE",
        ) from error


def judge_rounds(name: str, rule: Rule, base: Sequence[Session], candidate: Sequence[Session]) -> Finding:
    """Judge the runs of one benchmark; `decide` turns several findings into FAILs together.

    Each element of `base` and `candidate` is a run of a process. INVALID where a run lacks the benchmark or ran on
    another machine; INCONCLUSIVE with fewer than four pairs, and where the runs were not taken in balanced turns.
    """
    blank = Finding(
        metric=f"{name} {rule.statistic}",
        unit="s",
        rule=rule.rule,
        gating=True,
        outcome="INCONCLUSIVE",
        reason="",
        margin=rule.margin,
    )
    numbers = {
        arm: [rounds.number(rule.statistic) if (rounds := each.find(name)) is not None else None for each in sessions]
        for arm, sessions in (("base", base), ("candidate", candidate))
    }
    files = zip((*base, *candidate), numbers["base"] + numbers["candidate"], strict=True)
    missing = [each.path.name for each, number in files if number is None]
    if missing:
        more = f" (p99 needs {_ROUNDS_FOR_P99} rounds)" if rule.statistic == "p99" else ""
        return replace(blank, outcome="INVALID", reason=f"{name}: no {rule.statistic} in {', '.join(missing)}{more}.")
    machines = {_machine(each.machine) for each in (*base, *candidate)}
    if len(machines) > 1:
        return replace(
            blank, outcome="INVALID", reason=f"{name}: the runs come from different machines: {_listed(machines)}."
        )
    values = {arm: [number for number in found if number is not None] for arm, found in numbers.items()}
    times = zip((*base, *candidate), values["base"] + values["candidate"], strict=True)
    if wrong := [f"{value:g} s in {each.path.name}" for each, value in times if not 0 < value < math.inf]:
        return replace(blank, outcome="INVALID", reason=f"{name}: not a valid time: {', '.join(wrong)}.")
    if rule.rule == "at_most":
        return _absolute(blank, values["candidate"])
    return _relative(blank, values, _turns(base, candidate))


def decide(findings: Sequence[Finding], alpha: float = ALPHA_FAIL) -> list[Finding]:
    """The findings with their FAILs: Holm over the whole family, so that many benchmarks do not add up false alarms."""
    family = [index for index, finding in enumerate(findings) if finding.p is not None]
    decided = list(findings)
    for index, p in zip(family, holm([findings[each].p or 0.0 for each in family]), strict=True):
        failed = p <= alpha and findings[index].outcome == "INCONCLUSIVE"
        decided[index] = replace(findings[index], p=p, outcome="FAIL" if failed else findings[index].outcome)
    return decided


def _relative(blank: Finding, values: Mapping[str, list[float]], turns: list[tuple[int, int, int]] | None) -> Finding:
    runs = min(len(values["base"]), len(values["candidate"]))
    if turns is None or len(turns) < 4:
        few = len(values["base"]) != len(values["candidate"]) or runs < 4
        why = (
            (
                f"4 runs of each arm are needed, taken alternately; got {len(values['base'])} base and "
                f"{len(values['candidate'])} candidate runs"
            )
            if few
            else ("the runs did not alternate in balanced order (ABBA), so drift cannot be separated from a change")
        )
        return replace(blank, n=runs, reason=f"{blank.metric}: {why}.")
    base = [values["base"][b] for b, _, _ in turns]
    candidate = [values["candidate"][c] for _, c, _ in turns]
    estimate = stats.paired(stats.log_ratios(base, candidate, 1), [order for _, _, order in turns])
    margin = math.log1p(blank.margin)
    low, high = stats.lower_bound(estimate, ALPHA_PASS), stats.upper_bound(estimate, ALPHA_PASS)
    typical = [float(np.exp(np.mean(np.log(each)))) for each in (base, candidate)]
    ratio = math.exp(estimate.effect)
    reason = (
        f"{blank.metric} went from {format_value(typical[0], 's')} to {format_value(typical[1], 's')} "
        f"({ratio - 1:+.1%}) over {estimate.n} pairs of runs; upper bound {math.expm1(high):+.1%}, "
        f"margin {blank.margin:+.1%}."
    )
    return replace(
        blank,
        base=typical[0],
        candidate=typical[1],
        ratio=ratio,
        interval=(math.exp(low), math.exp(high)) if math.isfinite(low + high) else None,
        bound=1 + blank.margin,
        p=stats.p_exceeds(estimate, margin),
        n=estimate.n,
        sd=estimate.sd,
        certifiable=stats.certifiable_margin(estimate, alpha=ALPHA_PASS),
        blocking=stats.blocking_effect(estimate, margin, alpha=ALPHA_FAIL),
        pairs_needed=stats.pairs_needed(estimate.sd, margin, alpha=ALPHA_PASS),
        order_effect=math.expm1(2 * estimate.order_effect),
        outcome="PASS" if high < margin else "INCONCLUSIVE",
        method=estimate.method,
        reason=reason,
    )


def _absolute(blank: Finding, values: Sequence[float]) -> Finding:
    if len(values) < 4:
        return replace(blank, n=len(values), reason=f"{blank.metric}: 4 runs are needed, got {len(values)}.")
    level = stats.level(np.log(values), math.log(blank.margin), alpha=ALPHA_PASS)
    typical, worst = math.exp(level.mean), math.exp(level.upper)
    return replace(
        blank,
        candidate=typical,
        interval=(math.exp(level.lower), worst),
        bound=blank.margin,
        p=level.p_above,
        n=len(values),
        outcome="PASS" if worst <= blank.margin else "INCONCLUSIVE",
        method="level",
        reason=(
            f"{blank.metric} is {format_value(typical, 's')} over {len(values)} runs, upper bound "
            f"{format_value(worst, 's')}; allowed at most {format_value(blank.margin, 's')}."
        ),
    )


def _turns(base: Sequence[Session], candidate: Sequence[Session]) -> list[tuple[int, int, int]] | None:
    """Pairs (base index, candidate index, +1 where the candidate ran second) by time; None unless balanced turns."""
    taken = sorted(
        [(each.at, 0, index) for index, each in enumerate(base)]
        + [(each.at, 1, index) for index, each in enumerate(candidate)]
    )
    if len(base) != len(candidate) or len({each[0] for each in taken}) < len(taken):
        return None
    found = []
    for one, other in zip(taken[::2], taken[1::2], strict=True):
        if one[1] == other[1]:
            return None
        first_is_base = one[1] == 0
        found.append((one[2], other[2], 1) if first_is_base else (other[2], one[2], -1))
    return found if len(found) % 2 == 0 and sum(each[2] for each in found) == 0 else None


def _machine(info: Mapping[str, Any]) -> str:
    cpu = info.get("cpu") or {}
    return f"{info.get('node', '')} {cpu.get('brand_raw', '')} {cpu.get('count', '')}".strip()


def _listed(machines: set[str]) -> str:
    return "; ".join(sorted(machines))
