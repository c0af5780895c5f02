"""The rollout plan: by which steps a candidate takes traffic, and what must be shown before the next one.

Read from TOML (`load_plan`) and checked here, before anything is loaded; moves no traffic and judges nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from seatrial.bench.budget import load_budget
from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.ranges import Range, check_ranges

from ..shadow.agreement import AgreementLimits

Metric = Literal["mean", "p95", "p99", "errors", "refused"]
METRICS: tuple[Metric, ...] = ("mean", "p95", "p99", "errors", "refused")
SCHEMA = 1


_FRACTION = "use a fraction: 0.05 is 5 %"
_MARGIN = Range(above=0, below=1, fix="use a positive margin: 0.05 is 5 %, and with 0 nothing can be shown")
_ALPHA = Range(above=0, below=0.5, fix="use a small chance of a false alarm: 0.01 is 1 %")
_TIME = Range(above=0, below=math.inf, fix="give a positive number of seconds")
_COUNT = Range(at_least=0, below=math.inf, fix="use 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Margins of a candidate: latencies relative (0.05 = 5 %), `errors` and `refused` as added rates.

    `mean` is the geometric mean (the mean of log latency), which no single slow request can move. `errors` are the
    service's failures (5xx, timeouts), `refused` what it blames on the client (4xx): a candidate that refuses what the
    stable version takes is broken too. None takes the budget's value where there is one, else the usual one.
    """

    mean: Annotated[float | None, _MARGIN] = None
    p95: Annotated[float | None, _MARGIN] = None
    p99: Annotated[float | None, _MARGIN] = None
    errors: Annotated[float | None, _MARGIN] = None
    refused: Annotated[float | None, _MARGIN] = None

    def __post_init__(self) -> None:
        check_ranges(self, "margins")

    def of(self, metric: Metric) -> float:
        """The margin of one metric."""
        value: float | None = getattr(self, metric)
        return USUAL[metric] if value is None else value


USUAL: dict[Metric, float] = {"mean": 0.05, "p95": 0.10, "p99": 0.10, "errors": 0.001, "refused": 0.005}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphas:
    """Chances of a false alarm over a whole rollout, however often one looks; together the family's, 2 % at the usual.

    Most is spent on errors and the far tail: such events are rare, so evidence is expensive. `passing` is the level
    of the intervals that must lie below their margins. It needs no correction, for all of them must pass.
    """

    mean: Annotated[float, _ALPHA] = 0.002
    p95: Annotated[float, _ALPHA] = 0.001
    p99: Annotated[float, _ALPHA] = 0.006
    errors: Annotated[float, _ALPHA] = 0.010
    refused: Annotated[float, _ALPHA] = 0.001
    passing: Annotated[float, _ALPHA] = 0.05

    def __post_init__(self) -> None:
        check_ranges(self, "alphas")

    def of(self, metric: Metric) -> float:
        """The chance of a false alarm spent on one metric."""
        return float(getattr(self, metric))

    @property
    def family(self) -> float:
        """The chance that any of them calls a candidate worse that is not."""
        return math.fsum(self.of(metric) for metric in METRICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Before any caller gets its answers: the share mirrored to the candidate, and the longest wait for agreement.

    A `mirror` of 0 goes without: the file's word for no such phase. `outputs` are limits per output of the model (``*``
    for those that have none; nothing at all: top-1 of 0.99), and `compared_at_least` the share of the copied requests
    whose answers must have been compared.
    """

    mirror: Annotated[float, Range(at_least=0, at_most=1, fix=_FRACTION)] = 0.1
    dwell: Annotated[float, _TIME] = 86_400.0
    outputs: Mapping[str, AgreementLimits] = field(default_factory=dict)
    compared_at_least: Annotated[float, Range(at_least=0, at_most=1, fix="use 0.9, the usual value")] = 0.9

    def __post_init__(self) -> None:
        check_ranges(self, "shadow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One share of live traffic, until enough is known.

    `requests` are the least that each arm must have answered. With `needs = "evidence"` every metric must moreover be
    shown to lie within its margin; with "requests" it is enough that nothing was shown to be worse (small shares find
    catastrophes, and would need days for more). `dwell` is the longest stay in seconds, after which the rollout pauses.
    """

    share: Annotated[float, Range(above=0, at_most=1, fix=_FRACTION)]
    requests: Annotated[int, Range(at_least=1, fix="use a positive number of requests")] = 500
    needs: Literal["evidence", "requests"] = "evidence"
    dwell: Annotated[float, _TIME] = 86_400.0

    def __post_init__(self) -> None:
        check_ranges(self, "steps")
        if self.share == 1 and self.needs == "evidence":
            raise ConfigError(
                "at a share of 1 no baseline is left to compare with",
                where="steps.needs",
                next_step='set needs = "requests" there, and prove it at a smaller share',
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole way of a candidate. Times in seconds, memory in bytes (0: no limit).

    A candidate that had to be brought back goes back. `server_restarts` is how often the whole server may be started
    again while it is on trial: once, for its cause may lie elsewhere; the second time looks like the candidate's.

    `budget` is a gate's budget, relative to the plan's file, whose margins hold where the plan gives none. `load` is
    the longest wait for the candidate to be ready; `warmup` what is discarded of every step before anything counts;
    `drain` the wait between the last request sent to a version and its unloading. Evidence is gathered in blocks of at
    least `block` seconds and `block_requests` of each arm; `interval` is how often the controller looks.
    """

    schema: int
    steps: tuple[Step, ...]
    shadow: Shadow | None = Shadow()
    budget: str = ""
    margins: Margins = Margins()
    alphas: Alphas = Alphas()
    memory: Annotated[int, _COUNT] = 0
    server_restarts: Annotated[int, _COUNT] = 1
    load: Annotated[float, _TIME] = 300.0
    warmup: Annotated[float, _COUNT] = 15.0
    drain: Annotated[float, _COUNT] = 5.0
    interval: Annotated[float, _TIME] = 5.0
    block: Annotated[float, _TIME] = 10.0
    block_requests: Annotated[int, Range(at_least=1, fix="use 5, the usual value")] = 5

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(
                f"schema {self.schema}", where="schema", next_step=f"use schema {SCHEMA}, which this version reads"
            )
        shares = [step.share for step in self.steps]
        if not shares or shares != sorted(set(shares)):
            raise ConfigError(
                f"shares must increase from step to step, got {shares}",
                where="steps",
                next_step="order them, each once",
            )
        check_ranges(self)

    @property
    def compared(self) -> int:
        """Steps in which both versions answer, so that they can be compared."""
        return max(1, sum(step.share < 1 for step in self.steps))


def load_plan(path: Path) -> Plan:
    """Read a plan; margins that it leaves out come from its budget.

    Raises:
        MissingError: no such file.
        ConfigError: an unknown key, or something that cannot be.
    """
    plan = config.load(path, Plan)
    if plan.shadow is not None and not plan.shadow.mirror:
        plan = replace(plan, shadow=None)
    if not plan.budget:
        return plan

    limits = {limit.metric: limit for limit in load_budget(path.parent / plan.budget).limits}
    found: dict[str, float] = {}
    for metric, name in (("mean", "p50"), ("p95", "p95"), ("p99", "p99")):
        if name in limits and (value := limits[name].max_regression):
            found[metric] = value
    if "errors" in limits and (rate := limits["errors"].at_most):
        found["errors"] = rate
    given = {each.name: value for each in fields(Margins) if (value := getattr(plan.margins, each.name)) is not None}
    return replace(plan, margins=Margins(**(found | given)))
