"""A look at quality outside a gate: the suite asked of an artifact in this process, or of a model behind a URL.

Orchestrates only. Speed is not measured and no server started, so the findings are about answers alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.sessions.answers import answers
from seatrial.optimize.sessions.choice import OWN, EngineChoice
from seatrial.optimize.sessions.engine import RanOn
from seatrial.optimize.sessions.session import open_artifact
from seatrial.optimize.store import Store

from ..decision import decide
from ..targets import Endpoint
from ..verdict import EXIT_CODES, Finding, Outcome
from . import served
from .evidence import Evidence, Share, gathered
from .findings import findings_of
from .suite import Ask, Suite, shares

Progress = Callable[[str, float], None]
_PARTS = 10  # shares of the set, for progress reports
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Result of a suite. `outcome` is None if no check gates; the result is then informational."""

    outcome: Outcome | None
    findings: tuple[Finding, ...]
    evidence: Evidence

    @property
    def exit_code(self) -> int:
        """As a gate's; 0 where nothing was to be judged."""
        return 0 if self.outcome is None else EXIT_CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """Outcome and findings as JSON values, without the raw answers."""
        return {"outcome": self.outcome, "findings": [asdict(finding) for finding in self.findings]}


def assess(
    suite: Suite,
    candidate: Ask,
    base: Ask | None = None,
    *,
    alpha_pass: float = 0.05,
    alpha_fail: float = 0.01,
    progress: Progress = lambda what, share: None,
) -> Assessment:
    """Ask a suite of one model, or of two by turns, and judge what came back.

    Raises:
        ConfigError: a check that cannot be asked of these samples.
        AnswerError, StageError: a model did not answer.
    """
    suite.ready()
    arms: list[tuple[str, Ask]] = (
        [("candidate", candidate)] if base is None else [("base", base), ("candidate", candidate)]
    )
    found: dict[str, list[Share]] = {name: [] for name, _ in arms}
    asked = [iter(shares(suite, ask, _PARTS)) for _, ask in arms]
    for part, both in enumerate(zip(*asked, strict=True)):
        progress("asking", part / _PARTS)
        for (name, _), share in zip(arms, both, strict=True):
            found[name].append(share)
    progress("judging", 1.0)
    evidence = gathered(found.get("base"), found["candidate"])
    findings: Sequence[Finding] = findings_of(suite.checks, evidence, alpha_pass=alpha_pass, alpha_fail=alpha_fail)
    findings, outcome = decide(findings, alpha_fail)
    gates = any(finding.gating for finding in findings)
    return Assessment(outcome=outcome if gates else None, findings=tuple(findings), evidence=evidence)


def answering(
    target: Artifact | Endpoint, store: Store, batch: int = _BATCH, choice: EngineChoice = OWN
) -> tuple[Ask, RanOn | None]:
    """Return the answer function of an artifact (opened here, one thread) or an endpoint (over HTTP).

    With it, what an artifact runs on, in the engine of `choice` where that opens its format; None for an endpoint.

    Raises:
        SeatrialError: the artifact cannot run on this machine.
    """
    if isinstance(target, Endpoint):
        return (lambda inputs: served.answers(target, inputs, batch)), None
    opened = open_artifact(target, store, choice=choice)
    return (lambda inputs: answers(opened.session, target.inputs, inputs, batch, target.outputs)), opened.ran_on
