"""The verdict as a value: what was found about each rule, and what follows from it. Decides nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from seatrial.optimize.record import Record

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID"]
EXIT_CODES: Mapping[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INVALID": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Finding of the run about one rule of the budget, in the metric's unit.

    `ratio` is candidate over base (relative rules), `difference` candidate minus base (`max_drop`); `interval` belongs
    to whichever is set, else to the candidate's value, and covers it with confidence ``1 - 2 * alpha_pass``. `margin`
    is the rule's number, `bound` the value that ratio, difference or candidate must not cross. `certifiable` is the
    smallest regression that this run could have ruled out, `blocking` the one it would have blocked, both with power
    90 % and in the margin's terms. `pairs_needed` is how many pairs would show an effect of this size to lie on its
    side of the margin (None: more than 400). `p` is the Holm-adjusted p-value of the FAIL. `order_effect` is what
    running second cost, relative. `about` names the class, group or segment that a check speaks of.
    """

    metric: str
    unit: str
    rule: str
    gating: bool
    outcome: Outcome
    reason: str
    margin: float
    base: float | None = None
    candidate: float | None = None
    ratio: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    bound: float | None = None
    p: float | None = None
    n: int = 0
    sd: float | None = None
    certifiable: float | None = None
    blocking: float | None = None
    pairs_needed: int | None = None
    order_effect: float | None = None
    method: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One arm as a run and its verdict name it."""

    name: str
    digest: str
    format: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """The evaluation set as a run and its verdict name it."""

    split: str = ""
    count: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(
    Record,
    schema=1,
    what="the verdict",
    next_step="judge the run again: seatrial report RUN",
    computed=("exit_code",),
):
    """The outcome with everything that led to it.

    `reasons` are about the run as a whole: why it is INVALID, or what is wrong with the candidate itself. `base` and
    `candidate` name the artifacts, `pairs` is how many were used, `confidence` that of the findings' intervals, and
    `scope` how far the verdict reaches. `looks` are the numbers of pairs at which the gate was allowed to stop,
    `seconds` is how long all slots took together, `notes` what a reader should know that decides nothing.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]
    base: Judged
    candidate: Judged
    pairs: int
    confidence: float
    budget: str
    samples: EvaluationSet
    at: str
    scope: str = "this host"
    looks: tuple[int, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 could not tell, 4 the run is invalid."""
        return EXIT_CODES[self.outcome]

    @property
    def summary(self) -> tuple[str, ...]:
        """The sentences that explain the outcome: the run's reasons, then those findings that decided."""
        deciding = {"FAIL": ("FAIL",), "INVALID": ("INVALID",), "INCONCLUSIVE": ("INCONCLUSIVE",), "PASS": ("PASS",)}
        return self.reasons + tuple(
            finding.reason
            for finding in self.findings
            if finding.gating and finding.outcome in deciding[self.outcome] and finding.reason not in self.reasons
        )

    def finding(self, metric: str) -> Finding | None:
        """The first finding about that metric."""
        return next((finding for finding in self.findings if finding.metric == metric), None)
