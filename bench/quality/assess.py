"""A look at quality outside a gate: the suite asked of an artifact in this process, or of a model behind a URL.

Orchestrates only. Speed is not measured and no server started, so the findings are about answers alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optimize.artifact import Artifact
from optimize.sessions.session import open_session
from optimize.store import Store

from ..gating.judge import decide
from ..targets import Endpoint
from ..verdict import EXIT_CODES, Finding, Outcome
from . import served
from .evidence import Evidence, gathered
from .findings import findings_of
from .quantities import Array
from .suite import Ask, Suite, shares

Progress = Callable[[str, float], None]
_PARTS = 10  # shares of the set: what progress is told by
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What a suite showed. `outcome` is None where no check gates: then it only tells."""

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
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name, _ in arms}
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


def answering(target: Artifact | Endpoint, store: Store, batch: int = _BATCH) -> Ask:
    """What answers for an artifact (opened here, one thread) or an endpoint (over HTTP).

    Raises:
        SeatrialError: the artifact cannot run on this machine.
    """
    if isinstance(target, Endpoint):
        return lambda inputs: served.answers(target, inputs, batch)
    session = open_session(target, store)
    first = target.inputs[0].shape[0] if target.inputs and target.inputs[0].shape else "batch"
    size = first if isinstance(first, int) else batch

    def ask(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        n = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, n, size):
            rows = np.minimum(np.arange(start, start + size), n - 1)  # the last batch is filled up
            rows = rows if isinstance(first, int) else rows[: n - start]
            parts.append(session.run({name: array[rows] for name, array in inputs.items()}))
        return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}

    return ask
